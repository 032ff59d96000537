package etcdstore_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"paddock/controller/etcdstore"
	"paddock/controller/store"
	"paddock/internal/pki"
)

// member is a store of one member with mutual TLS, on an address of this machine that no other test has.
type member struct {
	dir       string
	authority *pki.Authority
	endpoint  string
}

func newMember(t *testing.T) *member {
	t.Helper()
	m := &member{dir: t.TempDir()}
	var b [3]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	host := fmt.Sprintf("127.%d.%d.%d", 1+b[0]%250, b[1], 1+b[2]%250)
	var err error
	if m.authority, err = pki.NewAuthority(filepath.Join(m.dir, "ca"), time.Now()); err != nil {
		t.Fatal(err)
	}
	cert, key := m.issue(t, pki.RoleEtcd, host)
	peer := "https://" + host + ":2380"
	m.endpoint = "https://" + host + ":2379"
	server, err := etcdstore.RunMember(t.Context(), etcdstore.MemberOptions{
		Dir: filepath.Join(m.dir, "data"), Name: "m1", Client: m.endpoint, Peer: peer, Members: map[string]string{"m1": peer},
		Cert: cert, Key: key, CA: filepath.Join(m.dir, "ca", pki.CAFile),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return m
}

func (m *member) issue(t *testing.T, role pki.Role, hosts ...string) (cert, key string) {
	t.Helper()
	cert, key, err := m.authority.Issue(filepath.Join(m.dir, "certs"), pki.Request{Role: role, Name: "n", Hosts: hosts}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// as is the store as a process of that role has it.
func (m *member) as(t *testing.T, role pki.Role) (*etcdstore.Store, error) {
	t.Helper()
	cert, key := m.issue(t, role)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(m.dir, "ca", pki.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	s, err := etcdstore.Dial(t.Context(), etcdstore.Options{
		Endpoints: []string{m.endpoint},
		TLS:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}},
	})
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func (m *member) mustAs(t *testing.T, role pki.Role) *etcdstore.Store {
	t.Helper()
	s, err := m.as(t, role)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each role may write what is its own, and nothing else; a role without a user nothing at all.
func TestAccess(t *testing.T) {
	m := newMember(t)
	admin := m.mustAs(t, pki.RoleAdmin)
	users := map[string]store.Access{
		pki.RoleController.CommonName(): store.ControllerAccess(), pki.RoleRouter.CommonName(): store.RouterAccess(),
	}
	wide := store.RouterAccess() // what a former version gave is taken away
	wide.Write = append(wide.Write, store.ControllersPrefix)
	for _, router := range []store.Access{wide, store.RouterAccess()} {
		users[pki.RoleRouter.CommonName()] = router
		if err := admin.SetAccess(t.Context(), pki.RoleAdmin.CommonName(), users); err != nil {
			t.Fatal(err)
		}
	}

	const id, c = "acme", "c0ffee00"
	managed := []string{
		store.Tenant(id), store.Usage(id), store.Key("k"), store.Function(id, "f"), store.Version(id, "f", 1), store.Pipeline(id, "p"),
		store.Secret(id, "s"), store.Host("h.example"), store.Election("janitor"), store.RuntimesPrefix + "node", store.BlobsPrefix + "acme/00/0",
	}
	bound := []string{store.Controller(c), store.Assignment(c, id, "node", "0")}
	roles := []struct {
		role    pki.Role
		may     []string
		mayNot  []string
		readNot []string
	}{
		{pki.RoleRouter, append(slices.Clone(managed), bound[1]), []string{bound[0], "/elsewhere"}, []string{"/elsewhere"}},
		{pki.RoleController, bound, append(slices.Clone(managed), "/elsewhere"), []string{"/elsewhere", store.BlobsPrefix}},
		{pki.RoleAdmin, slices.Concat(bound, managed), nil, nil},
	}
	for _, r := range roles {
		t.Run(string(r.role), func(t *testing.T) {
			s := m.mustAs(t, r.role)
			for _, key := range r.may {
				if _, err := put(t.Context(), s, key, string(r.role)); err != nil {
					t.Errorf("put %s: %v", key, err)
				}
			}
			for _, key := range r.mayNot {
				if _, err := put(t.Context(), s, key, string(r.role)); !errors.Is(err, store.ErrDenied) {
					t.Errorf("put %s: %v, want it denied", key, err)
				}
				if _, err := s.Commit(t.Context(), store.Txn{Deletes: []string{key}}); !errors.Is(err, store.ErrDenied) {
					t.Errorf("delete %s: %v, want it denied", key, err)
				}
				// Nor along with what it may.
				both := store.Txn{Puts: []store.Put{{Key: r.may[0], Value: []byte("x")}, {Key: key, Value: []byte("x")}}}
				if _, err := s.Commit(t.Context(), both); !errors.Is(err, store.ErrDenied) {
					t.Errorf("put %s and %s: %v, want it denied", r.may[0], key, err)
				}
			}
			for _, prefix := range r.readNot {
				if _, _, err := s.List(t.Context(), prefix); !errors.Is(err, store.ErrDenied) {
					t.Errorf("list %s: %v, want it denied", prefix, err)
				}
			}
			if kvs, _, err := s.List(t.Context(), store.Root); err != nil || len(kvs) == 0 {
				t.Errorf("list %s: %d keys, %v", store.Root, len(kvs), err)
			}
		})
	}
	if _, err := m.as(t, pki.RoleClient); !errors.Is(err, store.ErrDenied) {
		t.Errorf("a certificate of a role without rights: %v, want it denied", err)
	}
}

// What a controller does all day goes on under access control: a lease with its record, its loss, the watch of the catalogue.
func TestAccessLeavesControllersTheirWork(t *testing.T) {
	m := newMember(t)
	admin := m.mustAs(t, pki.RoleAdmin)
	err := admin.SetAccess(t.Context(), pki.RoleAdmin.CommonName(), map[string]store.Access{
		pki.RoleController.CommonName(): store.ControllerAccess(), pki.RoleRouter.CommonName(): store.RouterAccess(),
	})
	if err != nil {
		t.Fatal(err)
	}
	controller, router := m.mustAs(t, pki.RoleController), m.mustAs(t, pki.RoleRouter)
	changes := controller.Watch(t.Context(), store.Root, 1)
	l, err := controller.Grant(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	key := store.Controller("c0ffee00")
	if _, err := controller.Commit(t.Context(), store.Txn{
		Guards: []store.Guard{{Key: key}}, Puts: []store.Put{{Key: key, Value: []byte("here"), Lease: l.ID()}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t.Context(), router, store.Tenant("acme"), "x"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(seen) < 2 {
		b, ok := <-changes
		if !ok || b.Err != nil {
			t.Fatalf("the watch ended: %v", b.Err)
		}
		for _, e := range b.Events {
			seen[e.Key] = true
		}
	}
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := router.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the record outlived its lease: %v", err)
	}
}
