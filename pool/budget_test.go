package pool_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

const oneContainer = tenant.DefaultMemoryBytes

func TestEvictsTheLeastRecentlyUsed(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.MaxContainers = -1, 1, 3
		o.Create = slowly(10 * time.Millisecond)
	}, func(r *rig) {
		for _, id := range []tenant.ID{"a", "b", "c"} {
			r.must(id, "value 1")
			time.Sleep(time.Second)
		}
		r.must("a", "value 1") // b is the oldest now
		res := r.must("d", "value 1")
		if res.Start != call.StartCold {
			t.Errorf("start %s", res.Start)
		}
		synctest.Wait()
		if r.heardCause("b") != pool.CauseEvicted {
			t.Errorf("b: %q; want it evicted", r.heardCause("b"))
		}
		if n := r.Stats().Evicted; n != 1 {
			t.Errorf("%d evicted, want 1", n)
		}
		if res := r.must("a", "value 1"); res.Start != call.StartWarm {
			t.Errorf("a lost its container")
		}
	})
}

func TestBusyOnesAreNotEvicted(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.MaxContainers = -1, 1, 2
	}, func(r *rig) {
		var s served
		s.run(r, r.req("a", "gate go"))
		s.run(r, r.req("b", "gate go"))
		req := r.req("c", "value 1")
		req.Deadline = time.Now().Add(time.Second)
		r.fails(req, errs.NoCapacity, "", errs.StartedNo)
		s.run(r, r.req("c", "value 1"))
		r.engine.Open("go")
		s.wg.Wait() // c evicts whoever is idle first
		if len(s.errs) != 0 {
			t.Error(s.errs)
		}
	})
}

func TestFreezeAndThaw(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		res := r.must("a", "value 1")
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if r.engine.Container(res.Container).Frozen() {
			t.Error("frozen too early")
		}
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if !r.engine.Container(res.Container).Frozen() || r.Stats().Frozen != 1 {
			t.Fatalf("not frozen after freeze_after: %+v", r.Stats())
		}
		again := r.must("a", "value 2")
		if again.Start != call.StartThawed || again.Container != res.Container {
			t.Errorf("%+v", again)
		}
		if r.Stats().Frozen != 0 {
			t.Error("still counted as frozen")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if r.Stats().Frozen != 1 {
			t.Error("not frozen again")
		}
		time.Sleep(tenant.DefaultIdleTTL)
		synctest.Wait()
		if r.heardCause("a") != pool.CauseIdle {
			t.Errorf("released: %q, want idle", r.heardCause("a"))
		}
	})
}

func TestBurningIsFrozenAtOnce(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		res := r.must("a", "burn; value 1")
		quiet := r.must("b", "value 1")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if !r.engine.Container(res.Container).Frozen() {
			t.Error("it burns and is not frozen")
		}
		if r.engine.Container(quiet.Container).Frozen() {
			t.Error("a quiet one was frozen")
		}
		if n := r.Stats().Burning; n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestFreezeThatFailsDestroys(t *testing.T) {
	bubble(t, func(o *fake.Options, _ *pool.Config) {
		o.Freeze = func(context.Context, pool.ContainerID) error { return errors.New("still burns") }
	}, func(r *rig) {
		res := r.must("a", "value 1")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if r.engine.Container(res.Container) != nil {
			t.Error("it lives")
		}
		if s := r.Stats(); s.FreezeFailures != 1 || s.Recycled[pool.CauseFreeze] != 1 {
			t.Errorf("%+v", s)
		}
		r.must("a", "value 1")
	})
}

func TestThawThatFailsIsRetriedElsewhere(t *testing.T) {
	bubble(t, func(o *fake.Options, _ *pool.Config) {
		o.Thaw = func(context.Context, pool.ContainerID) error { return errors.New("no") }
	}, func(r *rig) {
		res := r.must("a", "value 1")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if again := r.must("a", "value 2"); again.Container == res.Container {
			t.Error("the container that does not thaw answered")
		}
	})
}

// Calls that arrive while a container is being frozen find it on in the end.
func TestCallDuringFreeze(t *testing.T) {
	bubble(t, func(o *fake.Options, _ *pool.Config) {
		o.Freeze = func(context.Context, pool.ContainerID) error { time.Sleep(time.Second); return nil }
	}, func(r *rig) {
		id := r.must("a", "value 1").Container
		time.Sleep(10*time.Second + 500*time.Millisecond)
		res := r.must("a", "value 2")
		if res.Container != id || res.Start != call.StartThawed || res.Stages.Queue < 400*time.Millisecond {
			t.Errorf("%+v", res)
		}
	})
}

// Frozen ones count for what they use, so more tenants fit than limits would allow; thawing needs room.
func TestMemoryBudget(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.CreateParallel = -1, 1, 1
		c.MemoryBudgetBytes, c.ReserveBytes = 3*oneContainer+5<<20, 10<<20
		o.UsageBytes = 10 << 20
	}, func(r *rig) {
		over := func() {
			t.Helper()
			if s := r.Stats(); s.MemoryCommittedBytes > s.MemoryBudgetBytes-10<<20 {
				t.Errorf("committed %d of %d MiB", s.MemoryCommittedBytes>>20, s.MemoryBudgetBytes>>20)
			}
		}
		for i := range 8 {
			r.must(tenant.ID(fmt.Sprint("t", i)), "value 1")
			over()
			time.Sleep(11 * time.Second)
			synctest.Wait()
			over()
		}
		s := r.Stats()
		if s.Frozen != 8 || s.MemoryCommittedBytes != 80<<20 || s.Evicted != 0 {
			t.Errorf("%d frozen, %d MiB committed, %d evicted; want 8, 80, 0", s.Frozen, s.MemoryCommittedBytes>>20, s.Evicted)
		}
		for i := 4; i < 8; i++ {
			r.Drain(pool.Selector{Tenant: tenant.ID(fmt.Sprint("t", i))}, pool.CauseAdmin)
		}
		synctest.Wait()
		var done served
		for i := range 3 { // two fit, and evicting the fourth would not make room for the third
			done.run(r, r.req(tenant.ID(fmt.Sprint("t", i)), "sleep 1s"))
			over()
		}
		if s := r.Stats(); s.Thaws != 1 || s.Frozen != 2 || s.Evicted != 0 {
			t.Errorf("%d wait for memory, %d are frozen, %d were evicted; want 1, 2, 0", s.Thaws, s.Frozen, s.Evicted)
		}
		done.wg.Wait()
		over()
		if d := len(done.order); d != 3 {
			t.Errorf("%d answered", d)
		}
		r.must("new", "value 1") // idle ones are frozen for it before anybody is evicted
		over()
		if s := r.Stats(); s.Evicted != 0 {
			t.Errorf("%d evicted", s.Evicted)
		}
		if len(done.errs) != 0 {
			t.Error(done.errs)
		}
	})
}

func (r *rig) heardCause(id tenant.ID) pool.Cause {
	r.heard.mu.Lock()
	defer r.heard.mu.Unlock()
	for c, t := range r.heard.assigned {
		if t == id {
			if cause, ok := r.heard.released[c]; ok {
				return cause
			}
		}
	}
	return ""
}

func TestResizeSendsTheWarmOnesAway(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.MaxContainers = 4, 8, 8
		o.Create = slowly(10 * time.Millisecond)
	}, func(r *rig) {
		r.untilReady(4)
		r.must("a", "value 1")
		r.untilReady(4)
		two, all := 2, 3
		if err := r.Resize(&two, nil, &all); err != nil {
			t.Fatal(err)
		}
		r.until("three are left", func(s pool.Stats) bool { return s.Ready == 2 && s.Assigned == 1 && s.Draining == 0 })
		if res := r.must("a", "value 1"); res.Start != call.StartWarm {
			t.Errorf("a lost its container")
		}
	})
}
