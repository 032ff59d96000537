package pool_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// sized is a policy of containers of so many MiB.
func sized(mib int64) *tenant.Policy {
	return policy(func(p *tenant.Policy) { p.MemoryBytes = mib << 20 })
}

// of runs a call under a policy.
func (r *rig) of(t tenant.ID, p *tenant.Policy) (*call.Result, *errs.Error) {
	req := r.req(t, "value 1")
	req.Policy = p
	return r.run(req)
}

// mustOf runs a call that has to succeed in a container of its policy's size, and says how it began.
func (r *rig) mustOf(t tenant.ID, p *tenant.Policy) call.StartKind {
	r.t.Helper()
	res, err := r.of(t, p)
	if err != nil {
		r.t.Fatalf("%s: %v", t, err)
	}
	if has := r.engine.Container(res.Container).Spec().MemoryBytes; has != p.MemoryBytes {
		r.t.Errorf("%s runs in %d MiB, want %d", t, has>>20, p.MemoryBytes>>20)
	}
	return res.Start
}

// The first container of an unusual size is made to order; then one is kept warm for as long as tenants of that size come.
func TestUnusualSizes(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) { o.Create = slowly(100 * time.Millisecond) }, func(r *rig) {
		r.untilReady(2)
		if how := r.mustOf("usual", sized(128)); how != call.StartPooled {
			t.Errorf("the usual size: %s", how)
		}
		for i, want := range []call.StartKind{call.StartCold, call.StartPooled, call.StartPooled} {
			if how := r.mustOf(tenant.ID(rune('a'+i)), sized(256)); how != want {
				t.Errorf("tenant %d of 256 MiB: %s, want %s", i, how, want)
			}
			time.Sleep(time.Second)
		}
		warm := func() (n int) {
			for _, c := range r.Containers("") {
				if c.State == pool.Ready && c.MemoryBytes == 256<<20 {
					n++
				}
			}
			return n
		}
		if n := warm(); n != 1 {
			t.Errorf("%d of 256 MiB are warm, want 1", n)
		}
		time.Sleep(11 * time.Minute)
		if n := warm(); n != 0 {
			t.Errorf("%d of 256 MiB are warm long after the last claim", n)
		}
		if s := r.Stats(); s.Ready < 2 {
			t.Errorf("%d of the usual size are warm, want 2", s.Ready)
		}
	})
}

// The budget is charged with each tenant's own size; for a large one smaller idle ones go, and warm ones last of all.
func TestBudgetCountsSizes(t *testing.T) {
	const mib = 1 << 20
	bubble(t, func(o *fake.Options, c *pool.Config) {
		o.UsageBytes = 120 * mib // freezing alone does not make room
		c.MinReady, c.MaxReady, c.MemoryBudgetBytes = 1, 1, 600*mib
	}, func(r *rig) {
		r.untilReady(1)
		for _, id := range []tenant.ID{"a", "b", "c"} {
			r.mustOf(id, sized(128))
			time.Sleep(time.Second)
		}
		r.untilReady(1)
		if got := r.Stats().MemoryCommittedBytes; got != 4*128*mib {
			t.Errorf("%d MiB are committed, want 512", got/mib)
		}
		r.mustOf("large", sized(400))
		synctest.Wait()
		for id, want := range map[tenant.ID]pool.Cause{"a": pool.CauseEvicted, "b": pool.CauseEvicted, "c": pool.CauseEvicted} {
			if got := r.heardCause(id); got != want {
				t.Errorf("%s: %q, want %q", id, got, want)
			}
		}
		if got := r.Stats().MemoryCommittedBytes; got != 528*mib {
			t.Errorf("%d MiB are committed, want 400 and a warm one's 128", got/mib)
		}
		r.mustOf("larger", sized(550))
		if got := r.Stats().MemoryCommittedBytes; got != 550*mib {
			t.Errorf("%d MiB are committed, want 550", got/mib)
		}
		_, err := r.of("largest", sized(601))
		if err == nil || err.Kind != errs.NoCapacity || !strings.Contains(err.Message, "601 MiB") || !strings.Contains(err.Message, "600 MiB") {
			t.Errorf("more than the whole budget: %v", err)
		}
	})
}

// Tenants of one size do not wait longer because somebody has a size of its own.
func TestSizesTakeTurns(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.CreateParallel, c.MaxContainers = -1, 1, 32
		o.Create = slowly(time.Second)
	}, func(r *rig) {
		odd := sized(256)
		odd.CallsPerContainer, odd.MaxContainers, odd.ClaimBurst = 1, 10, 10
		var s served
		for range 8 { // one tenant that wants eight
			req := r.req("odd", "gate go")
			req.Policy = odd
			s.run(r, req)
		}
		synctest.Wait()
		began := time.Now()
		var wg sync.WaitGroup
		var slowest atomic.Int64
		for i := range 4 {
			wg.Go(func() {
				r.must(tenant.ID(rune('a'+i)), "value 1")
				slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			})
		}
		wg.Wait()
		if d := time.Duration(slowest.Load()); d > 7*time.Second { // of 12 s of creations
			t.Errorf("the last of four tenants waited %v", d)
		}
		r.engine.Open("go")
		s.wg.Wait()
	})
}

// A tenant's containers follow its size; a busy tenant's successor is there before the old one drains.
func TestSizeChanges(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) { o.Create = slowly(100 * time.Millisecond) }, func(r *rig) {
		r.mustOf("a", sized(128))
		r.SetPolicy("a", sized(256))
		for range 100 {
			if how := r.mustAny("a").Start; how != call.StartWarm {
				t.Errorf("a call began %s", how)
			}
			time.Sleep(100 * time.Millisecond)
		}
		all := r.Containers("a")
		if len(all) != 1 || all[0].MemoryBytes != 256<<20 || r.heardCause("a") != pool.CausePolicy {
			t.Errorf("after the change: %+v; %q", all, r.heardCause("a"))
		}
	})
}

func (r *rig) mustAny(t tenant.ID) *call.Result {
	r.t.Helper()
	return r.must(t, "value 1")
}

// No byte of a tenant goes into a container that has not its tenant's CPU limit.
func TestBindingSetsCPU(t *testing.T) {
	var refused atomic.Int64
	bubble(t, func(o *fake.Options, c *pool.Config) {
		o.SetCPU = func(context.Context, pool.ContainerID, int64) error {
			if refused.Add(1) == 1 {
				return errors.New("read-only")
			}
			return nil
		}
	}, func(r *rig) {
		half := policy(func(p *tenant.Policy) { p.CPUMillis = 500 })
		res, err := r.of("a", half)
		if err != nil {
			t.Fatal(err)
		}
		if c := r.engine.Container(res.Container).Spec(); c.CPUMillis != 500 {
			t.Errorf("it has %d thousandths", c.CPUMillis)
		}
		synctest.Wait()
		if s := r.Stats(); s.Recycled[pool.CauseBind] != 1 {
			t.Errorf("the container that did not take the limit: %v", s.Recycled)
		}
		usual := r.must("b", "value 1")
		if n := refused.Load(); n != 2 {
			t.Errorf("%d settings; a container of the usual CPU needs none", n)
		}
		r.SetPolicy("b", half)
		synctest.Wait()
		if c := r.engine.Container(usual.Container).Spec(); c.CPUMillis != 500 {
			t.Errorf("the policy changed, and it has %d thousandths", c.CPUMillis)
		}
		refused.Store(0)
		r.SetPolicy("b", policy(nil))
		synctest.Wait()
		if r.heardCause("b") != pool.CausePolicy {
			t.Errorf("a container that does not take a new limit: %q", r.heardCause("b"))
		}
	})
}

// What a former process has left keeps its size, and gets the limits that its tenant has by now.
func TestAdoptedLimits(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		large := sized(256)
		large.CPUMillis = 500
		res, err := r.of("a", large)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Release(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		r.start()
		time.Sleep(time.Minute) // its policy is not known yet: nothing is done to it
		synctest.Wait()
		now := sized(256)
		now.CPUMillis = 250
		r.SetPolicy("a", now)
		synctest.Wait()
		c := r.engine.Container(res.Container)
		if c == nil {
			t.Fatalf("it is gone: %q", r.heardCause("a"))
		}
		if s := c.Spec(); s.MemoryBytes != 256<<20 || s.CPUMillis != 250 {
			t.Errorf("it has %d MiB and %d thousandths", s.MemoryBytes>>20, s.CPUMillis)
		}
		if got := r.Stats().MemoryCommittedBytes; got < 10<<20 || r.mustAny("a").Container != res.Container {
			t.Errorf("%d bytes charged", got)
		}
	})
}
