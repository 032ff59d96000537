package catalog

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"paddock/controller/etcdstore"
	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// world is a catalogue over a store, with its files in a directory of the test.
type world struct {
	t       *testing.T
	dir     string
	store   store.Store
	view    *View
	service *Service
	keyring *Keyring
	removed *containers
	log     *lines
}

// containers stands for the controller.
type containers struct {
	mu   sync.Mutex
	of   map[tenant.ID]int
	fail error
}

func (c *containers) RemoveTenant(_ context.Context, t tenant.ID) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.of[t]
	if c.fail == nil {
		delete(c.of, t)
	}
	return n, c.fail
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newWorld(t *testing.T, s store.Store, change ...func(*ViewOptions, *Options)) *world {
	t.Helper()
	return openWorld(t, s, t.TempDir(), change...)
}

func openWorld(t *testing.T, s store.Store, dir string, change ...func(*ViewOptions, *Options)) *world {
	t.Helper()
	w := &world{t: t, dir: dir, store: s, removed: &containers{of: map[tenant.ID]int{}}, log: &lines{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	kek, err := LoadKEK(filepath.Join(dir, "kek"))
	must(t, err)
	pepper, err := LoadPepper(filepath.Join(dir, "pepper"))
	must(t, err)
	blobs, err := OpenBlobs(filepath.Join(dir, "blobs"))
	must(t, err)
	vo := ViewOptions{Store: s, Blobs: blobs, KEK: kek, Logger: log}
	so := Options{Store: s, Blobs: blobs, KEK: kek, Pepper: pepper, Remover: w.removed, Logger: log}
	for _, f := range change {
		f(&vo, &so)
	}
	w.view, err = NewView(vo)
	must(t, err)
	t.Cleanup(func() {
		must(t, w.view.Close())
		must(t, blobs.Close())
	})
	so.View = w.view
	w.service, err = NewService(so)
	must(t, err)
	w.keyring = NewKeyring(w.view, pepper)
	<-w.view.Ready()
	return w
}

func mem(t *testing.T) *memstore.Store {
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func etcd(t *testing.T) (*etcdstore.Embedded, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "etcd")
	s, err := etcdstore.Embed(t.Context(), etcdstore.EmbedOptions{Dir: dir})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantKind checks an error's kind and that its text for the caller has all the parts.
func wantKind(t *testing.T, err error, kind errs.Kind, parts ...string) {
	t.Helper()
	if errs.KindOf(err) != kind {
		t.Errorf("error %v, want kind %s", err, kind)
		return
	}
	for _, p := range parts {
		if !strings.Contains(errs.From(err).Message, p) {
			t.Errorf("message %q does not say %q", errs.From(err).Message, p)
		}
	}
}

func (w *world) tenant(id string, policy *pb.Policy) {
	w.t.Helper()
	_, err := w.service.CreateTenant(w.t.Context(), tenant.ID(id), policy)
	must(w.t, err)
}

func (w *world) deploy(id, name, source string) Deployed {
	w.t.Helper()
	d, err := w.service.DeployFunction(w.t.Context(), tenant.ID(id), Deployment{
		Name: name, Source: []byte(source), Kind: call.KindAuto,
	})
	must(w.t, err)
	return d
}

// raw writes a record as somebody else would.
func (w *world) raw(key string, value []byte) int64 {
	w.t.Helper()
	rev, err := w.store.Commit(w.t.Context(), store.Txn{Puts: []store.Put{{Key: key, Value: value}}})
	must(w.t, err)
	return rev
}

// sees waits until the view has a revision.
func (w *world) sees(rev int64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.view.WaitRevision(ctx, rev); err != nil {
		w.t.Fatalf("the view did not come to revision %d: %v (it is at %d)", rev, err, w.view.Revision())
	}
}

func ptr[T any](v T) *T { return &v }

// VerifyKey does with a token what the way of a call does, without remembering.
func (k *Keyring) VerifyKey(token string) (*KeyView, error) {
	id, secret, ok := k.Parse(token)
	v, known := k.Key(id)
	if ok && known && !k.Stale() && k.Verify(v, secret) && !v.expired(time.Now()) {
		return v, nil
	}
	return nil, errs.New(errs.Unauthenticated, "the key is not valid")
}
