package janitor

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"paddock/controller/catalog"
	"paddock/controller/memstore"
	"paddock/controller/store"
)

// club is several candidates over one store.
type club struct {
	t      *testing.T
	store  *memstore.Store
	fleet  atomic.Pointer[catalog.Fleet]
	mu     sync.Mutex
	sweeps map[string]int
}

func newClub(t *testing.T) *club {
	c := &club{t: t, store: memstore.New(), sweeps: map[string]int{}}
	c.fleet.Store(&catalog.Fleet{})
	return c
}

func (c *club) options(id string) Options {
	return Options{
		ID: id, Store: c.store, Fleet: c.fleet.Load, Logger: slog.New(slog.DiscardHandler),
		Sweep: func(context.Context) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sweeps[id]++
			return nil
		},
	}
}

func (c *club) run(ctx context.Context, over *sync.WaitGroup, id string) {
	over.Go(func() { Run(ctx, c.options(id)) })
}

func (c *club) elected() string {
	kv, err := c.store.Get(c.t.Context(), store.Election(role))
	if err != nil {
		return ""
	}
	return string(kv.Value)
}

// swept is how often each has swept.
func (c *club) swept() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.sweeps)
}

func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClub(t)
		defer c.store.Close()
		var over sync.WaitGroup
		stops := map[string]context.CancelFunc{}
		for _, id := range []string{"r1", "r2", "r3"} {
			var ctx context.Context
			ctx, stops[id] = context.WithCancel(t.Context())
			c.run(ctx, &over, id)
		}
		time.Sleep(time.Minute)
		first := c.elected()
		if sweeps := c.swept(); first == "" || len(sweeps) != 1 || sweeps[first] != 1 {
			t.Fatalf("%q is elected, sweeps %v", first, sweeps)
		}
		stops[first]()
		time.Sleep(time.Minute)
		second := c.elected()
		if sweeps := c.swept(); second == "" || second == first || sweeps[second] != 1 {
			t.Fatalf("after %q has gone %q is elected, sweeps %v", first, second, sweeps)
		}
		time.Sleep(2*sweepEvery + time.Minute)
		if sweeps := c.swept(); sweeps[second] != 3 || len(sweeps) != 2 {
			t.Errorf("sweeps in two hours: %v", sweeps)
		}
		for _, stop := range stops {
			stop()
		}
		over.Wait()
		if id := c.elected(); id != "" {
			t.Errorf("%q is elected after the end", id)
		}
	})
}

func (c *club) records(id string) int {
	kvs, _, err := c.store.List(c.t.Context(), store.AssignmentsOf(id))
	if err != nil {
		c.t.Fatal(err)
	}
	return len(kvs)
}

func (c *club) put(key string) {
	c.t.Helper()
	kv, _ := c.store.Get(c.t.Context(), key)
	if _, err := c.store.Commit(c.t.Context(), store.Txn{
		Guards: []store.Guard{{Key: key, ModRevision: kv.ModRevision}}, Puts: []store.Put{{Key: key}},
	}); err != nil {
		c.t.Fatal(err)
	}
}

// Records of a controller that is gone stay for ten minutes, and for ever if it comes back.
func TestDeadControllersRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClub(t)
		defer c.store.Close()
		for i := range 2 * batch {
			c.put(store.Assignment("gone", "acme", "node", string(rune('a'+i))))
		}
		c.put(store.Assignment("back", "acme", "node", "x"))
		ctx, cancel := context.WithCancel(t.Context())
		var over sync.WaitGroup
		c.run(ctx, &over, "r1")
		time.Sleep(deadAfter - time.Minute)
		if c.records("gone") != 2*batch || c.records("back") != 1 {
			t.Fatal("records went too early")
		}
		c.put(store.Controller("back")) // registered, though this process has not seen it yet
		time.Sleep(5 * time.Minute)
		if c.records("gone") != 0 || c.records("back") != 1 {
			t.Errorf("%d records of who is gone, %d of who is back", c.records("gone"), c.records("back"))
		}
		cancel()
		over.Wait()
	})
}

// Who has lost the role without knowing removes nothing.
func TestFormerJanitorsWriteNothing(t *testing.T) {
	c := newClub(t)
	defer c.store.Close()
	_, guard, err := stand(t.Context(), c.options("r1"))
	if err != nil {
		t.Fatal(err)
	}
	c.store.Expire(1)
	if _, _, err := stand(t.Context(), c.options("r2")); err != nil {
		t.Fatal(err)
	}
	key := store.Assignment("gone", "acme", "node", "x")
	c.put(key)
	kv, err := c.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	d := dead{o: c.options("r1"), guard: guard}
	if err := d.remove(t.Context(), "gone", []store.KV{kv}); err == nil || c.records("gone") != 1 {
		t.Errorf("removed by a former janitor (%v)", err)
	}
}
