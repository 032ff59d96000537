package pool_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// naps counts what is done to the warm containers of a pool over gVisor.
type naps struct {
	mu              sync.Mutex
	stopped, woken  int
	stopping        time.Duration // of each stop
	stopErr, wakeOf func() error
}

func (n *naps) edit(o *fake.Options, _ *pool.Config) {
	o.Isolation = tenant.IsolationGVisor
	o.Freeze = func(context.Context, pool.ContainerID) error {
		time.Sleep(n.stopping)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.stopped++
		if n.stopErr != nil {
			return n.stopErr()
		}
		return nil
	}
	o.Thaw = func(context.Context, pool.ContainerID) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.woken++
		if n.wakeOf != nil {
			return n.wakeOf()
		}
		return nil
	}
}

func (n *naps) want(t *testing.T, stopped, woken int) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped != stopped || n.woken != woken {
		t.Errorf("%d stops, %d wakings; want %d, %d", n.stopped, n.woken, stopped, woken)
	}
}

func TestWarmOnesNap(t *testing.T) {
	var n naps
	bubble(t, n.edit, func(r *rig) {
		r.untilReady(2)
		time.Sleep(pool.DefaultNapAfter - time.Second)
		n.want(t, 0, 0)
		time.Sleep(2 * time.Second)
		n.want(t, 2, 0)
		if s := r.Stats(); s.Ready != 2 || s.Frozen != 0 {
			t.Errorf("%+v", s)
		}
		r.must("a", "value 1")
		n.want(t, 2, 2) // it and the next one
		r.untilReady(2)
		r.must("b", "value 1")
		n.want(t, 2, 2)
		r.untilReady(2)
		time.Sleep(pool.DefaultNapAfter + time.Second)
		if s := r.Stats(); s.Ready != 2 || s.Frozen != 2 {
			t.Errorf("%+v", s)
		}
		n.want(t, 6, 2) // two warm ones, two tenants'
	})
}

func TestOnlyGVisorNaps(t *testing.T) {
	var n naps
	bubble(t, func(o *fake.Options, c *pool.Config) {
		n.edit(o, c)
		o.Isolation = tenant.IsolationRunc
	}, func(r *rig) {
		r.untilReady(2)
		time.Sleep(time.Minute)
		n.want(t, 0, 0)
	})
}

// A claim that comes while the container is being stopped waits until it can be woken.
func TestClaimOfOneFallingAsleep(t *testing.T) {
	n := naps{stopping: time.Second}
	bubble(t, n.edit, func(r *rig) {
		r.untilReady(2)
		time.Sleep(pool.DefaultNapAfter + time.Second/2)
		began := time.Now()
		r.must("a", "value 1")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the call took %s", took)
		}
		n.want(t, 2, 1)
	})
}

func TestOneThatCannotBeStoppedStaysAwake(t *testing.T) {
	n := naps{stopErr: func() error { return errors.New("no") }}
	bubble(t, n.edit, func(r *rig) {
		r.untilReady(2)
		time.Sleep(time.Minute)
		n.want(t, 2, 2)
		if s := r.Stats(); s.Ready != 2 || s.Created != 2 || s.FreezeFailures != 2 {
			t.Errorf("%+v", s)
		}
		r.must("a", "value 1")
	})
}

// One that does not wake is lost before the call reaches it, which goes on in another.
func TestOneThatCannotBeWoken(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	n := naps{wakeOf: func() error {
		if broken.CompareAndSwap(true, false) {
			return errors.New("no")
		}
		return nil
	}}
	bubble(t, n.edit, func(r *rig) {
		r.untilReady(2)
		time.Sleep(pool.DefaultNapAfter + time.Second)
		r.must("a", "value 1")
		synctest.Wait()
		if s := r.Stats(); s.ThawFailures != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// The next process wakes what the last one has left asleep.
func TestSleepersAreAdopted(t *testing.T) {
	var n naps
	bubble(t, n.edit, func(r *rig) {
		r.untilReady(2)
		time.Sleep(pool.DefaultNapAfter + time.Second)
		n.want(t, 2, 0)
		if err := r.Release(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		r.start()
		if s := r.Stats(); s.Adopted != 2 || s.Ready != 2 {
			t.Errorf("%+v", s)
		}
		r.must("a", "value 1")
	})
}
