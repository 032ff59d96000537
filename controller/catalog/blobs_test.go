package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"paddock/controller/store"
	"paddock/internal/tenant"
)

// awayStore can be made not to answer, or to fail when something is to be written.
type awayStore struct {
	store.Store
	away  atomic.Bool
	fails func(store.Txn) error
}

func (s *awayStore) Get(ctx context.Context, key string) (store.KV, error) {
	if s.away.Load() {
		return store.KV{}, store.ErrUnavailable
	}
	return s.Store.Get(ctx, key)
}

func (s *awayStore) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if s.away.Load() {
		return 0, store.ErrUnavailable
	}
	if s.fails != nil {
		if err := s.fails(txn); err != nil {
			return 0, err
		}
	}
	return s.Store.Commit(ctx, txn)
}

// What a keeper of blobs promises, a directory and the store alike.
func TestBlobKeepers(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (blobKeeper, error){
		"directory": func(t *testing.T) (blobKeeper, error) { return openDirBlobs(t.TempDir()) },
		"store":     func(t *testing.T) (blobKeeper, error) { return openStoreBlobs(t.Context(), mem(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			k, err := open(t)
			must(t, err)
			defer k.close()
			ctx := t.Context()
			if _, err := k.get(ctx, "acme/none", 10); !errors.Is(err, ErrNoBlob) {
				t.Errorf("a blob that is not there: %v", err)
			}
			if _, err := k.age(ctx, "acme/none"); !errors.Is(err, ErrNoBlob) {
				t.Errorf("the age of a blob that is not there: %v", err)
			}
			must(t, k.remove(ctx, "acme/none"))
			began := time.Now().Add(-2 * time.Second)
			// From nothing over one piece to several transactions, and over each other.
			for i, size := range []int{0, 10, blobChunkBytes, 2*blobChunkBytes + 1, 5 * blobChunkBytes, 3} {
				data := bytes.Repeat([]byte{byte(i)}, size)
				must(t, k.put(ctx, "acme/a", data))
				got, err := k.get(ctx, "acme/a", int64(size))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
				}
			}
			if _, err := k.get(ctx, "acme/a", 2); err == nil || errors.Is(err, ErrNoBlob) {
				t.Errorf("more than the limit: %v", err)
			}
			must(t, k.put(ctx, "acme/b", []byte("b")))
			must(t, k.put(ctx, "other/a", []byte("o")))
			if at, err := k.age(ctx, "acme/a"); err != nil || at.Before(began) || at.After(time.Now().Add(time.Second)) {
				t.Errorf("put at %v, %v", at, err)
			}
			var seen []string
			must(t, k.each(ctx, "acme/", func(key string, _ time.Time) error { seen = append(seen, key); return nil }))
			if fmt.Sprint(seen) != "[acme/a acme/b]" {
				t.Errorf("listed %v", seen)
			}
			must(t, k.remove(ctx, "acme/a"))
			if _, err := k.get(ctx, "acme/a", 10); !errors.Is(err, ErrNoBlob) {
				t.Errorf("a removed blob: %v", err)
			}
		})
	}
}

// What was written again or broken off leaves nothing behind in the store, and what is too much is refused.
func TestStoredBlobsLeaveNothing(t *testing.T) {
	s := &awayStore{Store: mem(t)}
	b, err := openStoreBlobs(t.Context(), s)
	must(t, err)
	keys := func() (all []string) {
		kvs, _, err := s.List(t.Context(), store.BlobsPrefix)
		must(t, err)
		for _, kv := range kvs {
			all = append(all, kv.Key)
		}
		return all
	}
	large := make([]byte, 4*blobChunkBytes)
	must(t, b.put(t.Context(), "acme/a", large))
	must(t, b.put(t.Context(), "acme/a", large[:3*blobChunkBytes]))
	if n := len(keys()); n != 4 {
		t.Errorf("a head and 3 pieces are %d keys: %v", n, keys())
	}
	if got := b.total.Load(); got != 3*blobChunkBytes {
		t.Errorf("%d bytes are counted", got)
	}
	commits := 0
	s.fails = func(store.Txn) error {
		if commits++; commits == 3 { // the note, a piece, and the end
			return store.ErrUnavailable
		}
		return nil
	}
	if err := b.put(t.Context(), "acme/b", large); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("broken off: %v", err)
	}
	s.fails = nil
	if _, err := b.get(t.Context(), "acme/b", 1<<30); !errors.Is(err, ErrNoBlob) {
		t.Errorf("half a blob is one: %v", err)
	}
	before := len(keys())
	must(t, b.tidy(t.Context(), time.Now().Add(-time.Hour))) // somebody may be at it
	if len(keys()) != before {
		t.Error("a blob that is being written lost its pieces")
	}
	must(t, b.tidy(t.Context(), time.Now().Add(time.Hour)))
	must(t, b.remove(t.Context(), "acme/a"))
	if left := keys(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	must(t, b.tidy(t.Context(), time.Now()))
	if got := b.total.Load(); got != 0 {
		t.Errorf("%d bytes are counted of nothing", got)
	}
	if err := b.put(t.Context(), "acme/c", make([]byte, maxStoredBlob+1)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("more than one blob may have: %v", err)
	}
	b.total.Store(maxStoredBlobs)
	if err := b.put(t.Context(), "acme/c", []byte("x")); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("more than all may have: %v", err)
	}
}

// router is a world of one of several routers: they share the store, and the keys of keysFrom.
func router(t *testing.T, s store.Store, keysFrom string) *world {
	t.Helper()
	dir := t.TempDir()
	kek, err := LoadKEK(filepath.Join(keysFrom, "kek"))
	must(t, err)
	blobs, err := OpenStoreBlobs(t.Context(), s, filepath.Join(dir, "code"))
	must(t, err)
	return openWorld(t, s, dir, func(vo *ViewOptions, so *Options) {
		vo.KEK, so.KEK, vo.Blobs, so.Blobs = kek, kek, blobs, blobs
	})
}

func wantSource(t *testing.T, w *world, want, hash string) {
	t.Helper()
	if got, err := w.view.Source(t.Context(), "acme", hash); err != nil || string(got) != want {
		t.Errorf("the code is %q, %v; want %q", got, err, want)
	}
}

// eventually waits for what happens beside.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick, end := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

// Code that one router took is served by another that has no directory in common with it, while the store is away as well, and
// after the key that the copy is under was replaced.
func TestCodeThroughTheStore(t *testing.T) {
	s := &awayStore{Store: mem(t)}
	keys := t.TempDir()
	one, two := router(t, s, keys), router(t, s, keys)
	one.tenant("acme", nil)
	d := one.deploy("acme", "f", "one")
	two.sees(d.Revision)
	copied := func(hash string) func() bool {
		return func() bool {
			_, err := two.view.opts.Blobs.copied(t.Context(), "acme", hash, 1<<20)
			return err == nil
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); two.view.KeepCopies(ctx) }()
	eventually(t, "what was there is copied", copied(d.Version.Hash))
	next := one.deploy("acme", "f", "two")
	eventually(t, "what is activated is copied", copied(next.Version.Hash))
	stop()
	<-done
	s.away.Store(true)
	wantSource(t, two, "two", next.Version.Hash)
	s.away.Store(false)

	_, err := one.service.RotateDataKey(t.Context(), "acme")
	must(t, err)
	rec, ok := one.view.Tenant("acme")
	if !ok {
		t.Fatal("no tenant")
	}
	two.sees(rec.Revision)
	two.view.code.forget("acme")
	wantSource(t, two, "two", next.Version.Hash)

	_, err = one.service.DeleteTenant(t.Context(), "acme")
	must(t, err)
	if kvs, _, err := s.List(t.Context(), store.BlobsPrefix); err != nil || len(kvs) != 0 {
		t.Errorf("a deleted tenant left %d keys, %v", len(kvs), err)
	}
	if _, err := two.view.opts.Blobs.sweep(t.Context(), time.Now().Add(time.Hour), func(tenant.ID, string) bool { return false }); err != nil {
		t.Error(err)
	}
	if copied(next.Version.Hash)() {
		t.Error("the copy of a deleted tenant's code outlives the sweep")
	}
}
