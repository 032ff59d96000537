package controller

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/memstore"
	"paddock/controller/store"
	pb "paddock/proto/paddock/v1"
)

func member(t *testing.T, s store.Store, f func(m *membership)) {
	m := newMembership(s, &pb.ControllerRecord{Id: "c1", Region: "local", Capacity: 10}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.run(ctx) }()
	synctest.Wait()
	f(m)
	cancel()
	<-done
}

func registered(t *testing.T, s store.Store) *pb.ControllerRecord {
	t.Helper()
	kv, err := s.Get(t.Context(), store.Controller("c1"))
	if err != nil {
		return nil
	}
	rec := &pb.ControllerRecord{}
	if err := proto.Unmarshal(kv.Value, rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestMembershipFollowsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer s.Close()
		member(t, s, func(m *membership) {
			if rec := registered(t, s); rec.GetRegion() != "local" || !m.isJoined() {
				t.Fatalf("registered %v, joined %v", rec, m.isJoined())
			}
			s.Expire(1)
			time.Sleep(writeBackMax)
			synctest.Wait()
			if registered(t, s) == nil || !m.isJoined() {
				t.Error("not registered again after the lease was lost")
			}
			s.SetAway(true)
			s.Expire(2)
			time.Sleep(time.Hour)
			synctest.Wait()
			if m.isJoined() {
				t.Error("counts as registered while the store is away")
			}
			s.SetAway(false)
			time.Sleep(writeBackMax)
			synctest.Wait()
			if registered(t, s) == nil {
				t.Error("not registered again after the store came back")
			}
		})
		if registered(t, s) != nil {
			t.Error("still registered after the end")
		}
	})
}

func TestMembershipWritesChangesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer s.Close()
		member(t, s, func(m *membership) {
			before := s.Stats().Writes
			m.update(func(r *pb.ControllerRecord) { r.Capacity = 20 })
			m.update(func(r *pb.ControllerRecord) { r.Capacity = 20 })
			synctest.Wait()
			if rec := registered(t, s); rec.GetCapacity() != 20 {
				t.Errorf("registered %v", rec)
			}
			if n := s.Stats().Writes - before; n != 1 {
				t.Errorf("%d writes for one change", n)
			}
		})
	})
}

func TestMembershipReplacesItsOwnRecordFromBeforeAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer s.Close()
		if _, err := s.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: store.Controller("c1"), Value: nil}}}); err != nil {
			t.Fatal(err)
		}
		member(t, s, func(*membership) {
			if rec := registered(t, s); rec.GetCapacity() != 10 {
				t.Errorf("registered %v", rec)
			}
		})
	})
}
