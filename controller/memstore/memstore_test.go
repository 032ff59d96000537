package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/controller/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		New: func(*testing.T) store.Store { return memstore.New() },
		Compact: func(_ *testing.T, s store.Store, rev int64) {
			s.(*memstore.Store).Compact(rev)
		},
		Expire: func(_ *testing.T, s store.Store, id store.LeaseID) {
			s.(*memstore.Store).Expire(id)
		},
	})
}

func TestAway(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	ctx := t.Context()
	batches := s.Watch(ctx, "/", 0)
	s.SetAway(true)
	if b := <-batches; !errors.Is(b.Err, store.ErrUnavailable) {
		t.Errorf("watch: %+v", b)
	}
	if _, err := s.Get(ctx, "/a"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	s.SetAway(false)
	if _, err := s.Commit(ctx, store.Txn{Puts: []store.Put{{Key: "/a"}}}); err != nil {
		t.Error(err)
	}
}

// TestHistoryIsBounded: memory does not grow with the number of writes.
func TestHistoryIsBounded(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	for i := range 25_000 {
		if _, err := s.Commit(context.Background(), store.Txn{
			Puts: []store.Put{{Key: "/a", Value: fmt.Append(nil, i)}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if b := <-s.Watch(t.Context(), "/", 2); !errors.Is(b.Err, store.ErrCompacted) {
		t.Fatalf("%+v", b)
	}
}
