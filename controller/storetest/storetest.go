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

// collect reads batches until n events came, and checks that revisions only rise.
func collect(t *testing.T, batches <-chan store.Batch, n int) []store.Event {
	t.Helper()
	var events []store.Event
	var last int64
	timeout := time.After(patience)
	for len(events) < n {
		select {
		case b, ok := <-batches:
			if !ok || b.Err != nil {
				t.Fatalf("the watch ended (%v) after %d of %d events", b.Err, len(events), n)
			}
			if b.Revision < last {
				t.Fatalf("revision %d after %d", b.Revision, last)
			}
			for _, e := range b.Events {
				if e.ModRevision <= last-1 || e.ModRevision > b.Revision {
					t.Fatalf("event at %d in a batch up to %d after %d", e.ModRevision, b.Revision, last)
				}
			}
			last = b.Revision
			events = append(events, b.Events...)
		case <-timeout:
			t.Fatalf("%d of %d events after %v", len(events), n, patience)
		}
	}
	return events
}

// last reads batches until the one with an error and then the end of the channel.
func last(t *testing.T, batches <-chan store.Batch) error {
	t.Helper()
	var err error
	timeout := time.After(patience)
	for {
		select {
		case b, ok := <-batches:
			switch {
			case !ok && err == nil:
				t.Fatal("the watch ended without saying why")
			case !ok:
				return err
			case err != nil:
				t.Fatalf("a batch after the last: %+v", b)
			}
			err = b.Err
		case <-timeout:
			t.Fatalf("the watch did not end")
		}
	}
}

func testWatchOrder(t *testing.T, r *rig) {
	r.put(t, "/w/before", "not seen")
	rev := r.put(t, "/w/x", "0")
	batches := r.Watch(r.ctx, "/w/", rev+1)
	r.put(t, "/other", "not seen")
	r.put(t, "/w/x", "1")
	both := r.commit(t, store.Txn{Puts: []store.Put{{Key: "/w/y", Value: []byte("2")}}, Deletes: []string{"/w/x"}})
	r.put(t, "/w/z", "3")
	events := collect(t, batches, 4)
	got := map[string]string{}
	for _, e := range events {
		got[fmt.Sprintf("%s %v %d", e.Key, e.Deleted, e.ModRevision-rev)] = string(e.Value)
	}
	want := map[string]string{"/w/x false 2": "1", "/w/y false 3": "2", "/w/x true 3": "", "/w/z false 4": "3"}
	if fmt.Sprint(got) != fmt.Sprint(want) || both != rev+3 {
		t.Errorf("got %v, want %v", got, want)
	}
	if !slices.IsSortedFunc(events, func(a, b store.Event) int { return int(a.ModRevision - b.ModRevision) }) {
		t.Errorf("out of order: %+v", events)
	}
}

func testWatchFromThePast(t *testing.T, r *rig) {
	first := r.put(t, "/w/0", "")
	for i := 1; i < 50; i++ {
		r.put(t, fmt.Sprintf("/w/%d", i), "")
	}
	for i, e := range collect(t, r.Watch(r.ctx, "/w/", first), 50) {
		if e.Key != fmt.Sprintf("/w/%d", i) || e.ModRevision != first+int64(i) {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
}

func testWatchProgress(t *testing.T, r *rig) {
	batches := r.Watch(r.ctx, "/w/", 0)
	rev := r.put(t, "/elsewhere", "")
	timeout := time.After(patience)
	for {
		select {
		case b := <-batches:
			if b.Err != nil || len(b.Events) > 0 {
				t.Fatalf("%+v", b)
			}
			if b.Revision >= rev {
				return
			}
		case <-timeout:
			t.Fatal("no progress")
		}
	}
}

// A watch that begins after the last write is alive although nothing is written.
func testWatchProgressWhenIdle(t *testing.T, r *rig) {
	rev := r.put(t, "/w/a", "not seen")
	for b := range r.Watch(r.ctx, "/w/", rev+1) {
		if b.Err != nil || len(b.Events) > 0 {
			t.Fatalf("%+v", b)
		}
		if b.Revision >= rev {
			return
		}
	}
	t.Fatal("no progress")
}

func testWatchCompacted(t *testing.T, r *rig) {
	first := r.put(t, "/w/a", "1")
	r.put(t, "/w/a", "2")
	now := r.put(t, "/w/a", "3")
	r.h.Compact(t, r.Store, now)
	if err := last(t, r.Watch(r.ctx, "/w/", first)); !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("%v, want compacted", err)
	}
	kvs, rev, err := r.List(r.ctx, "/w/")
	if err != nil || len(kvs) != 1 || string(kvs[0].Value) != "3" {
		t.Fatalf("List after compaction: %v, %v", kvs, err)
	}
	batches := r.Watch(r.ctx, "/w/", rev+1)
	r.put(t, "/w/a", "4")
	if e := collect(t, batches, 1)[0]; string(e.Value) != "4" {
		t.Fatalf("%+v", e)
	}
}

func testWatchEnds(t *testing.T, r *rig) {
	ctx, cancel := context.WithCancel(r.ctx)
	batches := r.Watch(ctx, "/w/", 0)
	cancel()
	if err := last(t, batches); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want cancelled", err)
	}
	batches = r.Watch(r.ctx, "/w/", 0)
	go func() { _ = r.Close() }()
	if err := last(t, batches); !errors.Is(err, store.ErrClosed) {
		t.Errorf("%v, want closed", err)
	}
}

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
