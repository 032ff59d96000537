package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"paddock/controller/store"
)

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
