package controller

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool"
)

func assignmentOf(t string, n int) pool.Assignment {
	return pool.Assignment{
		Container: call.ContainerID(fmt.Sprintf("%032x", n)), Tenant: tenant.ID(t), Runtime: "node",
		Isolation: tenant.IsolationRunc, Since: time.Now(),
	}
}

// bubble runs f with a writer over a store in memory.
func bubble(t *testing.T, f func(t *testing.T, s *memstore.Store, a *assignments)) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		a := newAssignments("c1", s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); a.run(ctx) }()
		f(t, s, a)
		cancel()
		<-done
		s.Close()
	})
}

func records(t *testing.T, s *memstore.Store) (keys []string) {
	t.Helper()
	kvs, _, err := s.List(t.Context(), store.AssignmentsOf("c1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range kvs {
		keys = append(keys, kv.Key)
	}
	return keys
}

func TestOneWritePerAssignmentAndReleasesTogether(t *testing.T) {
	bubble(t, func(t *testing.T, s *memstore.Store, a *assignments) {
		for i := range 5 {
			a.want(assignmentOf("acme", i))
			synctest.Wait()
		}
		if n := s.Stats().Writes; n != 5 || len(records(t, s)) != 5 {
			t.Fatalf("%d writes and %d records after 5 assignments", n, len(records(t, s)))
		}
		for i := range 5 {
			a.drop(assignmentOf("acme", i))
			synctest.Wait()
		}
		if n := s.Stats().Writes; n != 5 {
			t.Errorf("%d writes before the linger is over", n)
		}
		time.Sleep(releaseLinger)
		synctest.Wait()
		if n := s.Stats().Writes; n != 6 || len(records(t, s)) != 0 {
			t.Errorf("%d writes, %d records; want one write for all five releases", n, len(records(t, s)))
		}
	})
}

func TestAReleaseRidesAlong(t *testing.T) {
	bubble(t, func(t *testing.T, s *memstore.Store, a *assignments) {
		a.want(assignmentOf("acme", 1))
		synctest.Wait()
		a.drop(assignmentOf("acme", 1))
		synctest.Wait()
		a.want(assignmentOf("bolt", 2))
		synctest.Wait()
		if n := s.Stats().Writes; n != 2 || len(records(t, s)) != 1 {
			t.Errorf("%d writes, records %v; want the release in the second assignment's write", n, records(t, s))
		}
	})
}

func TestBoundedAndCaughtUpHoweverLongTheStoreIsAway(t *testing.T) {
	bubble(t, func(t *testing.T, s *memstore.Store, a *assignments) {
		a.want(assignmentOf("acme", 0))
		synctest.Wait()
		s.SetAway(true)
		a.drop(assignmentOf("acme", 0))
		for i := 1; i <= 10_000; i++ { // containers come and go for hours
			a.want(assignmentOf("acme", i))
			a.drop(assignmentOf("acme", i))
			if i%1000 == 0 {
				time.Sleep(time.Hour)
			}
		}
		a.want(assignmentOf("acme", 10_001))
		a.mu.Lock()
		held := len(a.wanted) + len(a.stored)
		a.mu.Unlock()
		if held > 2 {
			t.Errorf("%d entries are held for one live container", held)
		}
		before := s.Stats().Writes
		s.SetAway(false)
		time.Sleep(writeBackMax + releaseLinger + time.Second)
		synctest.Wait()
		if got := records(t, s); len(got) != 1 || got[0] != a.key(assignmentOf("acme", 10_001)) {
			t.Errorf("records after the store came back: %v", got)
		}
		if n := s.Stats().Writes - before; n != 1 {
			t.Errorf("%d writes to catch up, want 1", n)
		}
	})
}

func TestStaleRecordsOfAFormerProcessGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		a := newAssignments("c1", s, slog.New(slog.DiscardHandler))
		adopted, gone := assignmentOf("acme", 1), assignmentOf("acme", 2)
		foreign := store.Assignment("c2", "acme", "node", "x")
		_, err := s.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: a.key(adopted)}, {Key: a.key(gone)}, {Key: foreign}}})
		if err != nil {
			t.Fatal(err)
		}
		a.want(adopted)
		if err := a.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := records(t, s); len(got) != 1 || got[0] != a.key(adopted) {
			t.Errorf("records %v", got)
		}
		if _, err := s.Get(t.Context(), foreign); err != nil {
			t.Errorf("another controller's record: %v", err)
		}
		if n := s.Stats().Puts; n != 3 {
			t.Errorf("the adopted one was written again: %d puts", n)
		}
		s.Close()
	})
}

func TestAFailedGuardLeadsToReadingAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *memstore.Store, a *assignments) {
		a.want(assignmentOf("acme", 1))
		synctest.Wait()
		// Somebody deletes one record and writes another where we are about to.
		other := assignmentOf("acme", 2)
		_, err := s.Commit(t.Context(), store.Txn{
			Puts: []store.Put{{Key: a.key(other), Value: nil}}, Deletes: []string{a.key(assignmentOf("acme", 1))},
		})
		if err != nil {
			t.Fatal(err)
		}
		a.want(other)
		synctest.Wait()
		if got := records(t, s); len(got) != 2 {
			t.Errorf("records %v; want both wanted ones", got)
		}
		if s.Stats().Conflicts == 0 {
			t.Error("the test made no conflict")
		}
	})
}

func TestManyAtOnceFitIntoTransactions(t *testing.T) {
	bubble(t, func(t *testing.T, s *memstore.Store, a *assignments) {
		s.SetAway(true)
		for i := range 1000 {
			a.want(assignmentOf("acme", i))
		}
		time.Sleep(time.Minute)
		s.SetAway(false)
		time.Sleep(writeBackMax)
		synctest.Wait()
		if n := len(records(t, s)); n != 1000 {
			t.Fatalf("%d records of 1000", n)
		}
		for i := range 1000 {
			a.drop(assignmentOf("acme", i))
		}
		time.Sleep(2 * releaseLinger)
		synctest.Wait()
		if n := len(records(t, s)); n != 0 {
			t.Errorf("%d records left", n)
		}
	})
}
