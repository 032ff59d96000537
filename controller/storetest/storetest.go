// Package storetest is the contract of store.Store as a suite of tests. Every implementation runs it; what code over the
// interface may rely on is what stands here. It tests no implementation's own extras.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"paddock/controller/store"
)

// patience bounds every wait of the suite; nothing waits that long unless it fails.
const patience = 30 * time.Second

// Harness is one implementation under test, with what the interface does not offer.
type Harness struct {
	// New returns an empty store; the suite closes it.
	New func(t *testing.T) store.Store
	// Compact forgets history up to rev.
	Compact func(t *testing.T, s store.Store, rev int64)
	// Expire ends a lease behind its holder's back.
	Expire func(t *testing.T, s store.Store, id store.LeaseID)
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"GetPutDelete", testGetPutDelete},
		{"Guards", testGuards},
		{"Atomic", testAtomic},
		{"Races", testRaces},
		{"ManyCallers", testManyCallers},
		{"List", testList},
		{"Limits", testLimits},
		{"WatchOrder", testWatchOrder},
		{"WatchFromThePast", testWatchFromThePast},
		{"WatchProgress", testWatchProgress},
		{"WatchProgressWhenIdle", testWatchProgressWhenIdle},
		{"WatchCompacted", testWatchCompacted},
		{"WatchEnds", testWatchEnds},
		{"LeaseRelease", testLeaseRelease},
		{"LeaseLost", testLeaseLost},
		{"EndedContext", testEndedContext},
		{"Stats", testStats},
		{"Close", testClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			s := h.New(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			c.run(t, &rig{Store: s, ctx: ctx, h: h})
		})
	}
}

type rig struct {
	store.Store
	ctx context.Context
	h   Harness
}

func (r *rig) put(t *testing.T, key, value string, guards ...store.Guard) int64 {
	t.Helper()
	return r.commit(t, store.Txn{Guards: guards, Puts: []store.Put{{Key: key, Value: []byte(value)}}})
}

func (r *rig) commit(t *testing.T, txn store.Txn) int64 {
	t.Helper()
	rev, err := r.Commit(r.ctx, txn)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return rev
}

func (r *rig) want(t *testing.T, key, value string) store.KV {
	t.Helper()
	kv, err := r.Get(r.ctx, key)
	if err != nil || string(kv.Value) != value || kv.Key != key {
		t.Fatalf("Get(%s) = %q, %v; want %q", key, kv.Value, err, value)
	}
	return kv
}

func (r *rig) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if kv, err := r.Get(r.ctx, key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Get(%s) = %q, %v; want not found", key, kv.Value, err)
	}
}

func testGetPutDelete(t *testing.T, r *rig) {
	r.wantAbsent(t, "/a")
	rev := r.put(t, "/a", "one")
	if kv := r.want(t, "/a", "one"); kv.ModRevision != rev {
		t.Errorf("ModRevision %d, Commit said %d", kv.ModRevision, rev)
	}
	next := r.put(t, "/a", "")
	if next != rev+1 {
		t.Errorf("revision %d after %d", next, rev)
	}
	r.want(t, "/a", "")
	r.commit(t, store.Txn{Deletes: []string{"/a"}})
	r.wantAbsent(t, "/a")
	before := r.put(t, "/b", "x")
	if got := r.commit(t, store.Txn{Deletes: []string{"/a"}}); got != before {
		t.Errorf("deleting nothing made revision %d after %d", got, before)
	}
}

func testGuards(t *testing.T, r *rig) {
	first := r.put(t, "/a", "1", store.Guard{Key: "/a"})
	conflict := func(what string, txn store.Txn) {
		t.Helper()
		if _, err := r.Commit(r.ctx, txn); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v, want a conflict", what, err)
		}
	}
	put := []store.Put{{Key: "/a", Value: []byte("bad")}}
	conflict("guarded as absent", store.Txn{Guards: []store.Guard{{Key: "/a"}}, Puts: put})
	conflict("old revision", store.Txn{Guards: []store.Guard{{Key: "/a", ModRevision: first - 1}}, Puts: put})
	conflict("one guard of two", store.Txn{Guards: []store.Guard{{Key: "/a", ModRevision: first}, {Key: "/b", ModRevision: 7}},
		Puts: put})
	conflict("delete", store.Txn{Guards: []store.Guard{{Key: "/a", ModRevision: first + 9}}, Deletes: []string{"/a"}})
	r.want(t, "/a", "1")
	r.put(t, "/a", "2", store.Guard{Key: "/a", ModRevision: first}, store.Guard{Key: "/b"})
	r.commit(t, store.Txn{Deletes: []string{"/a"}})
	r.put(t, "/a", "3", store.Guard{Key: "/a"})
	r.want(t, "/a", "3")
}

func testAtomic(t *testing.T, r *rig) {
	r.put(t, "/old", "x")
	rev := r.commit(t, store.Txn{
		Puts:    []store.Put{{Key: "/a", Value: []byte("1")}, {Key: "/b", Value: []byte("2")}},
		Deletes: []string{"/old"},
	})
	if a, b := r.want(t, "/a", "1"), r.want(t, "/b", "2"); a.ModRevision != rev || b.ModRevision != rev {
		t.Errorf("revisions %d, %d of one transaction at %d", a.ModRevision, b.ModRevision, rev)
	}
	r.wantAbsent(t, "/old")
}

// testRaces: of many guarded increments of one counter none is lost and none counted twice.
func testRaces(t *testing.T, r *rig) {
	const workers, each = 8, 10
	r.put(t, "/n", "")
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for done := 0; done < each; {
				kv, err := r.Get(r.ctx, "/n")
				if err != nil {
					t.Error(err)
					return
				}
				_, err = r.Commit(r.ctx, store.Txn{
					Guards: []store.Guard{{Key: "/n", ModRevision: kv.ModRevision}},
					Puts:   []store.Put{{Key: "/n", Value: append(kv.Value, 'x')}},
				})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	r.want(t, "/n", string(bytes.Repeat([]byte("x"), workers*each)))
}

func testList(t *testing.T, r *rig) {
	for _, key := range []string{"/p/b", "/p/a", "/q", "/p/a/c", "/p"} {
		r.put(t, key, "v"+key)
	}
	last := r.put(t, "/p/z", "v/p/z")
	kvs, rev, err := r.List(r.ctx, "/p/")
	if err != nil || rev != last {
		t.Fatalf("List: revision %d, %v; want %d", rev, err, last)
	}
	var keys []string
	for _, kv := range kvs {
		keys = append(keys, kv.Key)
		if string(kv.Value) != "v"+kv.Key || kv.ModRevision == 0 {
			t.Errorf("%+v", kv)
		}
	}
	if want := []string{"/p/a", "/p/a/c", "/p/b", "/p/z"}; !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
	if kvs, _, err := r.List(r.ctx, "/none/"); err != nil || len(kvs) != 0 {
		t.Errorf("List of nothing: %v, %v", kvs, err)
	}
	many := 0
	for many < 5000 { // more than a page of any implementation
		var txn store.Txn
		for range 100 {
			txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprintf("/many/%05d", many)})
			many++
		}
		r.commit(t, txn)
	}
	if kvs, _, err := r.List(r.ctx, "/many/"); err != nil || len(kvs) != many || kvs[many-1].Key != "/many/04999" {
		t.Errorf("List of %d: %d, %v", many, len(kvs), err)
	}
}

func testLimits(t *testing.T, r *rig) {
	big := make([]byte, store.MaxValueBytes+1)
	for name, txn := range map[string]store.Txn{
		"value": {Puts: []store.Put{{Key: "/a", Value: big}}},
		"total": {Puts: []store.Put{{Key: "/a", Value: big[1:]}, {Key: "/b", Value: big[1:]}}},
		"ops":   {Deletes: make([]string, store.MaxTxnOps+1)},
	} {
		if _, err := r.Commit(r.ctx, txn); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("%s: %v, want too large", name, err)
		}
	}
	for name, txn := range map[string]store.Txn{
		"empty":     {},
		"twice":     {Puts: []store.Put{{Key: "/a"}, {Key: "/a"}}},
		"both":      {Puts: []store.Put{{Key: "/a"}}, Deletes: []string{"/a"}},
		"empty key": {Puts: []store.Put{{Key: ""}}},
	} {
		if _, err := r.Commit(r.ctx, txn); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r.wantAbsent(t, "/a")
	full := store.Txn{}
	for i := range store.MaxTxnOps {
		key := fmt.Sprintf("/k/%03d", i)
		full.Guards = append(full.Guards, store.Guard{Key: key})
		full.Puts = append(full.Puts, store.Put{Key: key})
	}
	r.commit(t, full)
	r.commit(t, store.Txn{Puts: []store.Put{{Key: "/a", Value: big[1:]}}})
}

func testEndedContext(t *testing.T, r *rig) {
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	if _, err := r.Get(ctx, "/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	if _, _, err := r.List(ctx, "/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("List: %v", err)
	}
	if _, err := r.Commit(ctx, store.Txn{Puts: []store.Put{{Key: "/a"}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
}

func testStats(t *testing.T, r *rig) {
	before := r.Stats()
	rev := r.put(t, "/a", "")
	r.commit(t, store.Txn{Puts: []store.Put{{Key: "/b"}, {Key: "/c"}}, Deletes: []string{"/a"}})
	_, _ = r.Commit(r.ctx, store.Txn{Guards: []store.Guard{{Key: "/b"}}, Puts: []store.Put{{Key: "/b"}}})
	if got := r.commit(t, store.Txn{Deletes: []string{"/none"}}); got != rev+1 {
		t.Errorf("%d revisions, want 2", got-rev+1)
	}
	_, _ = r.Get(r.ctx, "/b")
	after := r.Stats()
	if after.Writes-before.Writes != 2 || after.Puts-before.Puts != 3 || after.Conflicts-before.Conflicts != 1 ||
		after.Reads-before.Reads != 1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func testClose(t *testing.T, r *rig) {
	l, err := r.Grant(r.ctx, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	<-l.Done()
	if _, err := r.Get(r.ctx, "/a"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	if _, err := r.Commit(r.ctx, store.Txn{Puts: []store.Put{{Key: "/a"}}}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if err := last(t, r.Watch(r.ctx, "/", 0)); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Watch: %v", err)
	}
}

// testManyCallers: however many ask at once, everybody gets an answer of their own.
func testManyCallers(t *testing.T, r *rig) {
	r.put(t, "/a", "x")
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			for range 40 {
				if _, err := r.Get(r.ctx, "/a"); err != nil {
					t.Errorf("caller %d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
}
