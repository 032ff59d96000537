package storetest

import (
	"errors"
	"testing"
	"time"

	"paddock/controller/store"
)

func testLeaseRelease(t *testing.T, r *rig) {
	l, err := r.Grant(r.ctx, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	r.commit(t, store.Txn{Puts: []store.Put{{Key: "/l/a", Value: []byte("x"), Lease: l.ID()}}})
	batches := r.Watch(r.ctx, "/l/", 0)
	select {
	case <-l.Done():
		t.Fatal("lost at once")
	default:
	}
	if err := l.Release(r.ctx); err != nil {
		t.Fatal(err)
	}
	<-l.Done()
	r.wantAbsent(t, "/l/a")
	if e := collect(t, batches, 1)[0]; !e.Deleted || e.Key != "/l/a" {
		t.Errorf("%+v", e)
	}
	if err := l.Release(r.ctx); err != nil {
		t.Errorf("second Release: %v", err)
	}
	_, err = r.Commit(r.ctx, store.Txn{Puts: []store.Put{{Key: "/l/a", Lease: l.ID()}}})
	if !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("put under a lease that is gone: %v", err)
	}
}

func testLeaseLost(t *testing.T, r *rig) {
	l, err := r.Grant(r.ctx, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	r.commit(t, store.Txn{Puts: []store.Put{{Key: "/l/a", Lease: l.ID()}, {Key: "/l/b"}}})
	r.h.Expire(t, r.Store, l.ID())
	select {
	case <-l.Done():
	case <-r.ctx.Done():
		t.Fatal("the holder was never told")
	}
	r.wantAbsent(t, "/l/a")
	r.want(t, "/l/b", "")
}
