package pki

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func authority(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := NewAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func source(t *testing.T, a *Authority, dir string, r Request) *Source {
	t.Helper()
	cert, key, err := a.Issue(dir, r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cert, key, filepath.Join(dir, CAFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// talk has both sides shake hands and exchange a byte.
func talk(server, client *tls.Config) (serverErr, clientErr error) {
	a, b := net.Pipe()
	end := time.Now().Add(20 * time.Second)
	a.SetDeadline(end)
	b.SetDeadline(end)
	var over sync.WaitGroup
	over.Go(func() {
		defer a.Close()
		c := tls.Server(a, server)
		if serverErr = c.Handshake(); serverErr == nil {
			_, serverErr = c.Write([]byte{1})
		}
	})
	over.Go(func() {
		defer b.Close()
		c := tls.Client(b, client)
		if clientErr = c.Handshake(); clientErr == nil {
			_, clientErr = io.ReadFull(c, make([]byte, 1))
		}
	})
	over.Wait()
	return serverErr, clientErr
}

func TestOnlyTheRightOnesConnect(t *testing.T) {
	a, _ := authority(t)
	other, _ := authority(t)
	hosts := []string{"10.0.0.1", "node-1.example"}
	server := source(t, a, t.TempDir(), Request{Role: RoleController, Name: "c1", Hosts: hosts})
	router := source(t, a, t.TempDir(), Request{Role: RoleRouter, Name: "r1"})
	foreign := source(t, other, t.TempDir(), Request{Role: RoleRouter, Name: "r1"})
	member := source(t, a, t.TempDir(), Request{Role: RoleEtcd, Name: "e1"})
	old := source(t, a, t.TempDir(), Request{Role: RoleRouter, Name: "r1", TTL: time.Minute})
	if err := expire(a, old, Request{Role: RoleRouter, Name: "r1", TTL: time.Minute}, filepath.Dir(old.cert)); err != nil {
		t.Fatal(err)
	}
	nobody := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	for name, c := range map[string]struct {
		client       *tls.Config
		serverRefuse string
		clientRefuse string
	}{
		"a router":           {router.ClientTLS("10.0.0.1", RoleController), "", ""},
		"by name":            {router.ClientTLS("node-1.example", RoleController), "", ""},
		"wherever":           {router.ClientTLS("", RoleController), "", ""},
		"a router elsewhere": {router.ClientTLS("10.0.0.2", RoleController), "", "10.0.0.1"},
		"looks for etcd":     {router.ClientTLS("10.0.0.1", RoleEtcd), "", "is controller c1"},
		"another authority":  {foreign.ClientTLS("", RoleController), "", "unknown authority"},
		"another role":       {member.ClientTLS("10.0.0.1", RoleController), "is etcd e1", ""},
		"expired":            {old.ClientTLS("10.0.0.1", RoleController), "expired", ""},
		"no certificate":     {nobody, "didn't provide a certificate", ""},
	} {
		serverErr, clientErr := talk(server.ServerTLS(RoleRouter), c.client)
		fine := c.serverRefuse == "" && c.clientRefuse == ""
		if fine != (serverErr == nil && clientErr == nil) {
			t.Errorf("%s: server %v, client %v", name, serverErr, clientErr)
		}
		if c.serverRefuse != "" && (serverErr == nil || !strings.Contains(serverErr.Error(), c.serverRefuse)) {
			t.Errorf("%s: the server says %v", name, serverErr)
		}
		if c.clientRefuse != "" && (clientErr == nil || !strings.Contains(clientErr.Error(), c.clientRefuse)) {
			t.Errorf("%s: the client says %v", name, clientErr)
		}
	}
	// The other authority's certificate is refused by the server too, when the client would go on.
	blind := foreign.ClientTLS("")
	blind.VerifyConnection = nil
	if err, _ := talk(server.ServerTLS(RoleRouter), blind); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another authority's router: %v", err)
	}
}

// expire replaces a source's certificate by one that has ended.
func expire(a *Authority, s *Source, r Request, dir string) error {
	if _, _, err := a.Issue(dir, r, time.Now().Add(-time.Hour)); err != nil {
		return err
	}
	pair, roots, err := s.read()
	s.pair, s.roots = pair, roots
	return err
}

// New files are in force for the next connection, without a restart; bad ones are not.
func TestChangedFilesAreRead(t *testing.T) {
	a, _ := authority(t)
	own := t.TempDir()
	server := source(t, a, own, Request{Role: RoleController, Name: "c1", Hosts: []string{"a.example"}})
	router := source(t, a, t.TempDir(), Request{Role: RoleRouter, Name: "r1"})
	config, client := server.ServerTLS(RoleRouter), router.ClientTLS("b.example", RoleController)
	again := func() error {
		server.mu.Lock()
		server.checked = time.Time{}
		server.mu.Unlock()
		serverErr, clientErr := talk(config, client)
		return errors.Join(serverErr, clientErr)
	}
	if again() == nil {
		t.Fatal("a certificate for another name was taken")
	}
	if err := os.WriteFile(server.key, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again(); err == nil || !strings.Contains(err.Error(), "a.example") {
		t.Errorf("with a bad file: %v", err)
	}
	if _, _, err := a.Issue(own, Request{Role: RoleController, Name: "c1", Hosts: []string{"b.example"}, TTL: 2 * time.Hour}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Errorf("after the change: %v", err)
	}
	if left := time.Until(server.Expires()); left > 2*time.Hour || left < time.Hour {
		t.Errorf("expires in %s", left)
	}
	// What another authority signed is refused once only that one is in the file.
	_, otherDir := authority(t)
	pem, err := os.ReadFile(filepath.Join(otherDir, CAFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(server.ca, pem, 0o644); err != nil {
		t.Fatal(err)
	}
	if again() == nil {
		t.Error("the former authority still counts")
	}
}

func TestAuthorityIsNeverReplaced(t *testing.T) {
	a, dir := authority(t)
	if _, err := NewAuthority(dir, time.Now()); !errors.Is(err, ErrExists) {
		t.Errorf("a second one: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, CAKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	again, err := LoadAuthority(dir)
	if err != nil || !again.cert.Equal(a.cert) {
		t.Errorf("read again: %v", err)
	}
	_, otherDir := authority(t)
	key, _ := os.ReadFile(filepath.Join(otherDir, CAKeyFile))
	if err := os.WriteFile(filepath.Join(dir, CAKeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthority(dir); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("another's key: %v", err)
	}
	for _, r := range []Request{
		{Role: "king", Name: "x"}, {Role: RoleAuthority, Name: "x"}, {Role: RoleRouter}, {Role: RoleRouter, Name: "a/b"},
		{Role: RoleRouter, Name: "x", TTL: time.Second}, {Role: RoleRouter, Name: "x", TTL: MaxTTL + 1},
	} {
		if _, _, err := a.Issue(t.TempDir(), r, time.Now()); err == nil {
			t.Errorf("issued %+v", r)
		}
	}
}
