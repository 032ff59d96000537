package catalog

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"paddock/controller/etcdstore"
	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/identity"
)

// TestServerRestarts: etcd, reached by gRPC, goes away and comes back. Meanwhile all that was there
// is served; a change is refused in time; afterwards changes work and those made elsewhere arrive.
func TestServerRestarts(t *testing.T) {
	dir, err := os.MkdirTemp("", "cat") // short: a socket's path has at most 108 bytes
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o := etcdstore.EmbedOptions{Dir: filepath.Join(dir, "etcd"), ClientSocket: filepath.Join(dir, "s")}
	server, err := etcdstore.Embed(t.Context(), o)
	must(t, err)
	client, err := etcdstore.Dial(t.Context(), etcdstore.Options{Endpoints: []string{"unix://" + o.ClientSocket}})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	w := newWorld(t, client)
	w.tenant("acme", nil)
	d := w.deploy("acme", "f", "code")
	_, token, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	must(t, err)

	must(t, server.Close())
	stop := make(chan struct{})
	asked := make(chan int)
	go func() { // the data path, all the time
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				asked <- n
				return
			default:
			}
			_, known := w.view.Tenant("acme")
			_, active := w.view.Function("acme", "f", 0)
			src, err := w.view.Source(t.Context(), "acme", d.Version.Hash)
			if _, keyErr := w.keyring.VerifyKey(token); !known || !active || string(src) != "code" || err != nil || keyErr != nil {
				t.Errorf("ask %d: %v %v %q %v %v", n, known, active, src, err, keyErr)
			}
		}
	}()
	began := time.Now()
	_, err = w.service.UpdateTenant(t.Context(), "acme", nil)
	wantKind(t, err, errs.NoCapacity, "store")
	if took := time.Since(began); took > 2*store.CallTimeout {
		t.Errorf("refused after %v", took)
	}

	server, err = etcdstore.Embed(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	rev, err := server.Commit(t.Context(), store.Txn{Puts: []store.Put{
		{Key: store.Tenant("new"), Value: tenantRecord(t, "new", 5)},
	}})
	must(t, err)
	w.sees(rev)
	if concurrency(w.view, "new") != 5 {
		t.Error("a change made elsewhere did not arrive")
	}
	_, err = w.service.SuspendTenant(t.Context(), "acme", false)
	must(t, err)
	close(stop)
	t.Logf("%d asks answered meanwhile", <-asked)
	if age := w.view.Age(); age > 5*time.Second {
		t.Errorf("age %v", age)
	}
	if st := w.view.Stats(); st.Missed != 0 || st.Unreadable != 0 {
		t.Errorf("%+v", st)
	}
}
