package pool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/fake"
)

// Nothing of a fresh call's container is left when the last byte of its answer comes out.
func TestFreshIsGoneBeforeTheLastByte(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, o)
		defer r.stop()
		r.untilReady(2)
		mine := r.must("a", "id")
		req := r.req("a", "id")
		req.Fresh = true
		res, err := r.run(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.Container == mine.Container {
			t.Error("a fresh call ran in the tenant's container")
		}
		if r.engine.Container(res.Container) != nil {
			t.Error("its container lives")
		}
		r.untilReady(1)
		var sink collect
		lives := []bool{}
		sink.onData = func() {
			alive := false
			for _, c := range r.engine.Live() {
				if c.ID() != mine.Container && r.isAssigned(c.ID()) {
					alive = true
				}
			}
			lives = append(lives, alive)
		}
		stream := r.req("a", "stream one two three")
		stream.Fresh = true
		stream.Via = 1
		if _, err := r.Do(t.Context(), stream, &sink); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(sink.pieces, " "); strings.ReplaceAll(got, " ", "") != "onetwothree" || sink.status != 200 {
			t.Errorf("%d %q", sink.status, got)
		}
		if lives[len(lives)-1] {
			t.Error("the last piece came out while the container lived")
		}
		if again := r.must("a", "id"); again.Container != mine.Container {
			t.Error("the tenant's own container is gone")
		}
	})
}

func (r *rig) isAssigned(id pool.ContainerID) bool {
	for _, i := range r.Containers("") {
		if i.ID == id {
			return i.State == pool.Assigned || i.State == pool.Draining
		}
	}
	return false
}

func TestFreshLossesAreTold(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		req := r.req("a", "oom")
		req.Fresh = true
		r.fails(req, errs.OutOfMemory, "", "")
		req = r.req("a", "spin")
		req.Fresh, req.Deadline = true, time.Now().Add(time.Second)
		began := time.Now()
		r.fails(req, errs.Timeout, "", "")
		if d := time.Since(began); d > 1500*time.Millisecond {
			t.Errorf("answered after %s", d)
		}
	})
}

// What has not started is tried again; what may have, only if the call says so.
func TestRetries(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.MinReady, c.MaxReady = 4, 8 }, func(r *rig) {
		r.untilReady(4)
		once := r.req("a", "crash")
		r.fails(once, errs.SandboxLost, "crashed", errs.StartedMaybe)
		if n := r.engine.Starts(once.ID); n != 1 {
			t.Errorf("began %d times, want once", n)
		}
		twice := r.req("a", "crash")
		twice.Idempotent = true
		r.fails(twice, errs.SandboxLost, "crashed", errs.StartedMaybe)
		if n := r.engine.Starts(twice.ID); n != 2 {
			t.Errorf("began %d times, want twice", n)
		}
		if n := r.Stats().Retries; n != 1 {
			t.Errorf("%d retries counted", n)
		}
	})
}

func TestRecyclingByPolicy(t *testing.T) {
	for _, c := range []struct {
		cause pool.Cause
		edit  func(*tenant.Policy)
		calls int
		wait  time.Duration
	}{
		{pool.CauseIdle, func(p *tenant.Policy) { p.IdleTTL = 20 * time.Second }, 1, 21 * time.Second},
		{pool.CauseMaxLife, func(p *tenant.Policy) { p.MaxLife = time.Minute }, 1, 67 * time.Second},
		{pool.CauseMaxCalls, func(p *tenant.Policy) { p.MaxCalls = 3 }, 3, 0},
	} {
		t.Run(string(c.cause), func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				r.untilReady(2)
				var id pool.ContainerID
				for range c.calls {
					req := r.req("a", "value 1")
					req.Policy = policy(c.edit)
					res, err := r.run(req)
					if err != nil {
						t.Fatal(err)
					}
					if id != "" && res.Container != id {
						t.Error("recycled too early")
					}
					id = res.Container
				}
				time.Sleep(c.wait)
				synctest.Wait()
				if got := r.heardCause("a"); got != c.cause {
					t.Errorf("released: %q, want %s", got, c.cause)
				}
				if r.engine.Container(id) != nil {
					t.Error("it lives")
				}
				r.must("a", "value 1")
			})
		})
	}
}

// An active tenant has a successor, bound and warm, before its container drains for its age.
func TestSuccessor(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		ids := map[pool.ContainerID]bool{}
		for range 200 {
			req := r.req("a", "value 1")
			req.Policy = policy(func(p *tenant.Policy) { p.MaxLife = time.Minute })
			res, err := r.run(req)
			if err != nil {
				t.Fatal(err)
			}
			if len(ids) > 0 && res.Start != "warm" {
				t.Errorf("a call paid for the change: %s", res.Start)
			}
			ids[res.Container] = true
			time.Sleep(time.Second)
		}
		if len(ids) < 3 {
			t.Errorf("%d containers in 200 s with a life of 1 min", len(ids))
		}
	})
}

func TestWarmOnesAge(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.MaxAge = time.Hour }, func(r *rig) {
		r.untilReady(2)
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if s := r.Stats(); s.Recycled[pool.CauseMaxAge] != 2 || s.Ready != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExplain(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.must("a", "value 1")
		all := r.Explain("a", "")
		if len(all) != 2 || all[0].Cause != pool.CauseIdle || all[1].Cause != pool.CauseMaxLife || all[0].Due {
			t.Fatalf("%+v", all)
		}
		if d := time.Until(all[0].At); d != tenant.DefaultIdleTTL {
			t.Errorf("idle in %s", d)
		}
		if all[0].Why == "" {
			t.Error("no reason")
		}
	})
}

func TestPolicyOfAnotherIsolation(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		id := r.must("a", "value 1").Container
		r.SetPolicy("a", policy(func(p *tenant.Policy) { p.Isolation = tenant.IsolationGVisor }))
		synctest.Wait()
		if r.heardCause("a") != pool.CausePolicy || r.engine.Container(id) != nil {
			t.Errorf("released: %q", r.heardCause("a"))
		}
		r.fails(r.req("a", "value 1"), errs.NoCapacity, "", errs.StartedNo)
		r.SetPolicy("a", policy(nil))
		r.must("a", "value 1")
	})
}

func TestRemoveTenant(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		one := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 1, 1 })
		var s served
		for range 3 {
			req := r.req("a", "gate never")
			req.Policy = one
			s.run(r, req)
		}
		other := r.must("b", "value 1").Container
		if n := r.RemoveTenant(r.t.Context(), "a"); n != 1 {
			t.Errorf("%d containers removed", n)
		}
		s.wg.Wait()
		for _, e := range s.errs {
			if e.Kind != errs.Cancelled {
				t.Errorf("%v", e)
			}
		}
		if len(s.errs) != 3 || len(r.Containers("a")) != 0 {
			t.Errorf("%d calls ended, %v left", len(s.errs), r.Containers("a"))
		}
		if r.must("b", "value 1").Container != other {
			t.Error("another tenant was touched")
		}
	})
}

// An engine that fails is asked less and less, and calls are told at once.
func TestRefillBacksOff(t *testing.T) {
	var tries atomic.Int64
	var broken atomic.Bool
	broken.Store(true)
	bubble(t, func(o *fake.Options, c *pool.Config) {
		o.Create = func(context.Context, pool.Spec) error {
			tries.Add(1)
			if broken.Load() {
				return errors.New("the daemon is down")
			}
			return nil
		}
	}, func(r *rig) {
		time.Sleep(10 * time.Minute)
		if n := tries.Load(); n < 10 || n > 80 {
			t.Errorf("%d tries in 10 minutes", n)
		}
		req := r.req("a", "value 1")
		req.Deadline = time.Now().Add(time.Second)
		r.fails(req, errs.NoCapacity, "", errs.StartedNo)
		broken.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.Stats(); s.Ready != 2 || s.Creating != 0 {
			t.Errorf("%+v", s)
		}
		r.must("a", "value 1")
	})
}

// A creation that fails half-way leaves nothing, whatever the engine left.
func TestHalfMadeIsDestroyed(t *testing.T) {
	var n atomic.Int64
	bubble(t, func(o *fake.Options, c *pool.Config) {
		o.Create = func(context.Context, pool.Spec) error {
			if n.Add(1) <= 3 {
				return fake.Half{Err: errors.New("started and not named")}
			}
			return nil
		}
		silent := atomic.Int64{}
		o.Silent = func(pool.Spec) bool { return silent.Add(1) == 1 }
	}, func(r *rig) {
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		s := r.Stats()
		if len(r.engine.Live()) != 2 || s.Ready != 2 || s.UIDs != 2 || s.Failed != 0 || s.CreateFailed != 4 || s.Orphans != 0 {
			t.Errorf("%d live; %+v", len(r.engine.Live()), s)
		}
	})
}

// A container that cannot be destroyed keeps its uids and shows in the gauge until it is gone.
func TestDestroyIsRepeated(t *testing.T) {
	var hangs atomic.Bool
	bubble(t, func(o *fake.Options, c *pool.Config) {
		o.Destroy = func(context.Context, pool.ContainerID) error {
			if hangs.Load() {
				return errors.New("the shim is a zombie")
			}
			return nil
		}
	}, func(r *rig) {
		r.must("a", "value 1")
		hangs.Store(true)
		r.Drain(pool.Selector{Tenant: "a"}, pool.CauseAdmin)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := r.Stats(); s.Leaking != 1 || s.Draining != 1 {
			t.Errorf("%+v", s)
		}
		r.must("a", "value 1")
		hangs.Store(false)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if s := r.Stats(); s.Leaking != 0 || s.Draining != 0 || s.Recycled[pool.CauseAdmin] != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSweep(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		res := r.must("a", "value 1")
		orphan, err := r.engine.Create(r.t.Context(), pool.Spec{ID: "orphan", UID: 7, LinkDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		r.engine.Container(res.Container).Destroy(r.t.Context()) // behind the pool's back
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if r.engine.Container(orphan.ID()) != nil {
			t.Error("the orphan lives")
		}
		s := r.Stats()
		if s.Orphans != 1 || s.Assigned != 0 {
			t.Errorf("%+v", s)
		}
		r.must("a", "value 1")
		time.Sleep(5 * time.Minute)
		if n := r.Stats().Orphans; n != 1 {
			t.Errorf("%d orphans: its own containers were counted", n)
		}
	})
}

// After the end nothing of the pool runs, and after load nothing has grown.
func TestGoroutinesReturnToBaseline(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t, nil)
	r.untilReady(2)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() { r.run(r.req(tenant.ID(fmt.Sprint("t", i%5)), "value 1")) })
	}
	wg.Wait()
	r.stop()
	testenv.AwaitGoroutines(t, before)
}
