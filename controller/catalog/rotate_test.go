package catalog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func (w *world) rotateKEK(tenants int) {
	w.t.Helper()
	n, err := w.service.RotateKEK(w.t.Context())
	must(w.t, err)
	if n != tenants {
		w.t.Errorf("%d data keys wrapped again, want %d", n, tenants)
	}
}

// dropsOldKEK lets the time pass after which a sweep drops replaced key-encryption keys.
func (w *world) dropsOldKEK() {
	w.t.Helper()
	path := filepath.Join(w.dir, "kek")
	was, err := os.ReadFile(path)
	must(w.t, err)
	must(w.t, w.service.Sweep(w.t.Context()))
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, was) {
		w.t.Error("a sweep dropped a key that was just replaced")
	}
	old := time.Now().Add(-2 * keepOldKey)
	must(w.t, os.Chtimes(path, old, old))
	must(w.t, w.service.Sweep(w.t.Context()))
	if now, err := os.ReadFile(path); err != nil || len(now) >= len(was) {
		w.t.Errorf("the replaced key stays: %d bytes, %d before (%v)", len(now), len(was), err)
	}
}

// reads checks that everything of acme is readable by a process that starts now.
func (w *world) reads(when, hash string) {
	w.t.Helper()
	fresh := openWorld(w.t, w.store, w.dir)
	if got, _ := fresh.gets("acme", "f"); got != "map[A:value a B:value b]" {
		w.t.Errorf("%s: %s", when, got)
	}
	if src, err := fresh.view.Source(w.t.Context(), "acme", hash); err != nil || string(src) != "code" {
		w.t.Errorf("%s: %q, %v", when, src, err)
	}
}

// failing is a store that ends like a killed process: after some commits it takes no more.
type failing struct {
	store.Store
	left atomic.Int64
}

func (f *failing) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if f.left.Add(-1) < 0 {
		return 0, store.ErrUnavailable
	}
	return f.Store.Commit(ctx, txn)
}

// TestRotationBrokenOff: wherever a rotation of a data key or of the key-encryption key is broken off, everything reads, and
// the next one ends it.
func TestRotationBrokenOff(t *testing.T) {
	rotations := map[string]func(*world) error{
		"data key":           func(w *world) error { _, err := w.service.RotateDataKey(t.Context(), "acme"); return err },
		"key-encryption key": func(w *world) error { _, err := w.service.RotateKEK(t.Context()); return err },
	}
	for name, rotate := range rotations {
		for commits := int64(0); ; commits++ {
			f := &failing{Store: mem(t)}
			f.left.Store(1 << 30)
			w := newWorld(t, f)
			w.tenant("acme", nil)
			w.tenant("b", nil)
			w.secret("acme", "A", "", "value a")
			w.secret("acme", "B", "f", "value b")
			hash := w.deploy("acme", "f", "code").Version.Hash
			_, revision := w.gets("acme", "f")
			f.left.Store(commits)
			err := rotate(w)
			f.left.Store(1 << 30)
			w.reads(fmt.Sprintf("%s, broken off after %d writes", name, commits), hash)
			must(t, rotate(openWorld(t, w.store, w.dir)))
			w.reads(name+", ended", hash)
			if _, now := w.gets("acme", "f"); now != revision {
				t.Errorf("%s: the revision has changed although no value has", name)
			}
			if err == nil {
				if commits < 2 {
					t.Errorf("%s: only %d writes", name, commits)
				}
				break
			}
			wantKind(t, err, errs.NoCapacity)
		}
	}
}

// TestDataKeyRotation: after a rotation nothing is left under the old key, which goes after an hour.
func TestDataKeyRotation(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.secret("acme", "A", "", "value a")
	w.secret("acme", "B", "f", "value b")
	hash := w.deploy("acme", "f", "code").Version.Hash
	sealedBefore := w.view.ListSecrets("acme")[0].sealed
	path := filepath.Join(w.dir, "blobs", "acme", hash)
	blobBefore, err := os.ReadFile(path)
	must(t, err)
	done, err := w.service.RotateDataKey(t.Context(), "acme")
	must(t, err)
	if done != (Rotated{Secrets: 2, Blobs: 1}) {
		t.Errorf("%+v", done)
	}
	blobAfter, err := os.ReadFile(path)
	must(t, err)
	keyOf := func(b []byte) string { return string(b[:keyPrefix]) }
	if now := w.view.ListSecrets("acme")[0].sealed; keyOf(now) == keyOf(sealedBefore) || keyOf(blobAfter) != keyOf(now) {
		t.Error("not all is under the new key")
	}
	must(t, os.WriteFile(path, blobBefore, 0o600)) // a deployment that had begun before puts it under the old key
	w.reads("under the old key", hash)
	if done, err := w.service.RotateDataKey(t.Context(), "acme"); err != nil || done != (Rotated{Blobs: 1}) {
		t.Errorf("%+v, %v", done, err)
	}
	must(t, w.service.Sweep(t.Context()))
	rec := &pb.TenantRecord{}
	get := func() *openedKey {
		t.Helper()
		_, err := w.service.get(t.Context(), store.Tenant("acme"), rec)
		must(t, err)
		k, err := w.service.seal.dataKey(t.Context(), "acme", rec.GetWrappedKey())
		must(t, err)
		return k
	}
	if n := get().keys.Len(); n != 2 {
		t.Errorf("%d keys right after the rotation", n)
	}
	rec.KeyReplaced = asTimestamp(time.Now().Add(-2 * keepOldKey))
	value, err := proto.Marshal(rec)
	must(t, err)
	w.sees(w.raw(store.Tenant("acme"), value))
	must(t, os.WriteFile(path, blobBefore, 0o600))
	must(t, w.service.Sweep(t.Context()))
	if k := get(); k.keys.Len() != 1 || rec.GetKeyReplaced() != nil {
		t.Errorf("%d keys after an hour", k.keys.Len())
	}
	w.reads("without the old key", hash)
	must(t, os.WriteFile(path, blobBefore, 0o600))
	_, err = openWorld(t, w.store, w.dir).view.Source(t.Context(), "acme", hash)
	wantKind(t, err, errs.Internal)
}

// TestKEKRotatedElsewhere: a process that has the old key-encryption key finds the new one in the file.
func TestKEKRotatedElsewhere(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.secret("acme", "A", "", "value a")
	elsewhere := openWorld(t, w.store, w.dir)
	w.rotateKEK(1)
	elsewhere.sees(w.view.Revision())
	if got, _ := elsewhere.gets("acme", ""); got != "map[A:value a]" {
		t.Errorf("%s", got)
	}
	w.rotateKEK(0)
}
