package pool_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// bubble runs a test with a fake clock and links in memory.
func bubble(t *testing.T, edit func(*fake.Options, *pool.Config), f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *fake.Options, c *pool.Config) {
			o.InMemory = true
			if edit != nil {
				edit(o, c)
			}
		})
		defer r.stop()
		f(r)
	})
}

// slowly makes every creation take d.
func slowly(d time.Duration) func(context.Context, pool.Spec) error {
	return func(ctx context.Context, _ pool.Spec) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// served runs calls of many tenants in the background and records in which order they were answered.
type served struct {
	mu    sync.Mutex
	order []tenant.ID
	errs  []*errs.Error
	wg    sync.WaitGroup
}

func (s *served) run(r *rig, req *call.Request) {
	s.wg.Go(func() {
		_, err := r.run(req)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.errs = append(s.errs, err)
			return
		}
		s.order = append(s.order, req.Tenant)
	})
	synctest.Wait() // they come in this order
}

// One tenant asks for many containers before others ask for one each: nobody waits for more than its turn.
func TestContainersGoRound(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.CreateParallel = -1, 1, 1
		o.Create = slowly(time.Second)
	}, func(r *rig) {
		var s served
		greedy := policy(func(p *tenant.Policy) { p.ClaimBurst, p.MaxContainers, p.CallsPerContainer = 10, 10, 1 })
		for range 5 {
			req := r.req("greedy", "value 1; gate end")
			req.Policy, req.Deadline = greedy, time.Now().Add(time.Minute)
			s.run(r, req)
		}
		for _, id := range []tenant.ID{"b", "c", "d"} {
			s.run(r, r.req(id, "value 1"))
		}
		time.Sleep(4*time.Second + 100*time.Millisecond)
		synctest.Wait()
		s.mu.Lock()
		got := fmt.Sprint(s.order)
		s.mu.Unlock()
		if got != "[b c d]" {
			t.Errorf("after 4 containers: %s were served, want b, c and d", got)
		}
		if n := r.Stats().InFlight; n != 1 {
			t.Errorf("greedy has %d calls running, want its 1 turn", n)
		}
		r.engine.Open("end")
		s.wg.Wait()
		if len(s.errs) != 0 {
			t.Error(s.errs)
		}
	})
}

// Alone, the same tenant gets whatever there is.
func TestAloneGetsEverything(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.CreateParallel = -1, 1, 1
		o.Create = slowly(time.Second)
	}, func(r *rig) {
		var s served
		for range 5 {
			req := r.req("greedy", "gate end")
			req.Policy = policy(func(p *tenant.Policy) { p.ClaimBurst, p.MaxContainers, p.CallsPerContainer = 10, 10, 1 })
			s.run(r, req)
		}
		time.Sleep(5*time.Second + 100*time.Millisecond)
		if n := r.Stats().InFlight; n != 5 {
			t.Errorf("%d of 5 run after 5 containers", n)
		}
		r.engine.Open("end")
		s.wg.Wait()
	})
}

// Within a tenant: first in, first out.
func TestCallsWaitInOrder(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		one := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 1, 1 })
		var s served
		first := r.req("a", "gate go")
		first.Policy = one
		s.run(r, first)
		var mu sync.Mutex
		var order []int
		for i := range 5 {
			req := r.req("a", "sleep 10ms")
			req.Policy = one
			s.wg.Go(func() {
				if _, err := r.run(req); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait()
		}
		if n := r.Stats().Waiting; n != 5 {
			t.Errorf("%d calls wait, want 5", n)
		}
		r.engine.Open("go")
		s.wg.Wait()
		if got := fmt.Sprint(order); got != "[0 1 2 3 4]" {
			t.Errorf("order %s", got)
		}
	})
}

// A waiter whose caller goes away hands back what it was given, and the next one gets it.
func TestHandBack(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.MaxContainers, c.CreateParallel = -1, 1, 1, 1
		o.Create = slowly(time.Second)
	}, func(r *rig) {
		for range 20 { // the cancel and the grant come at the same instant; either may win
			ctx, cancel := context.WithCancel(r.t.Context())
			time.AfterFunc(time.Second, cancel)
			done := make(chan error, 1)
			go func() {
				_, err := r.Do(ctx, r.req("gone", "value 1"), nil)
				done <- err
			}()
			synctest.Wait()
			var s served
			s.run(r, r.req("stays", "value 1"))
			if err := <-done; err != nil && !errs.Is(err, errs.Cancelled) {
				t.Fatal(err)
			}
			s.wg.Wait()
			if len(s.errs) != 0 {
				t.Fatal(s.errs)
			}
			r.Drain(pool.Selector{All: true}, pool.CauseAdmin)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if st := r.Stats(); st.Waiting+st.InFlight+st.Demand != 0 {
				t.Fatalf("%+v", st)
			}
		}
	})
}

func TestDeadlineInTheQueue(t *testing.T) {
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.MaxContainers = -1, 1, 1
		o.Create = slowly(3 * time.Second)
	}, func(r *rig) {
		req := r.req("a", "value 1")
		req.Deadline = time.Now().Add(time.Second)
		began := time.Now()
		if e := r.fails(req, errs.NoCapacity, "", errs.StartedNo); e.RetryAfter <= 0 {
			t.Error("no Retry-After")
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("answered after %s", d)
		}
		busy := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 1, 1 })
		hold := r.req("a", "gate go")
		hold.Policy = busy
		var s served
		s.run(r, hold)
		time.Sleep(4 * time.Second)
		req = r.req("a", "value 1")
		req.Policy, req.Deadline = busy, time.Now().Add(time.Second)
		r.fails(req, errs.Timeout, "", errs.StartedNo)
		r.engine.Open("go")
		s.wg.Wait()
		past := r.req("a", "value 1")
		past.Deadline = time.Now()
		r.fails(past, errs.Timeout, "", errs.StartedNo)
		if n := r.engine.Starts(past.ID) + r.engine.Starts(req.ID); n != 0 {
			t.Errorf("expired calls began %d times", n)
		}
	})
}

// A busy tenant gets more containers, up to its maximum.
func TestMoreContainersForABusyTenant(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.MinReady = 4 }, func(r *rig) {
		p := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 2, 3 })
		var s served
		for range 7 {
			req := r.req("a", "gate go")
			req.Policy = p
			s.run(r, req)
		}
		if st := r.Stats(); st.InFlight != 6 || st.Waiting != 1 || st.Assigned != 3 {
			t.Errorf("%d in flight, %d waiting on %d containers; want 6, 1, 3", st.InFlight, st.Waiting, st.Assigned)
		}
		for _, c := range r.Containers("a") {
			if c.InFlight != 2 {
				t.Errorf("container with %d calls, want 2", c.InFlight)
			}
		}
		r.engine.Open("go")
		s.wg.Wait()
		if len(s.errs) != 0 {
			t.Error(s.errs)
		}
	})
}

func TestShutdownAnswersAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *fake.Options, c *pool.Config) {
			o.InMemory = true
			c.MinReady, c.MaxReady, c.MaxContainers = -1, 1, 1
		})
		var running, waiting served
		running.run(r, r.req("a", "sleep 5s"))
		for i := range 10 {
			waiting.run(r, r.req(tenant.ID(fmt.Sprint("t", i)), "value 1"))
		}
		if n := r.Stats().Waiting; n != 10 {
			t.Fatalf("%d calls wait, want 10", n)
		}
		stopped := make(chan struct{})
		go func() {
			r.stop()
			close(stopped)
		}()
		waiting.wg.Wait()
		for _, e := range waiting.errs {
			if e.Kind != errs.NoCapacity || e.WhetherStarted() != errs.StartedNo || e.RetryAfter <= 0 {
				t.Errorf("a waiting call got %v", e)
			}
		}
		r.fails(r.req("b", "value 1"), errs.NoCapacity, "", errs.StartedNo)
		running.wg.Wait()
		<-stopped
		if len(waiting.errs) != 10 || len(running.errs) != 0 || len(running.order) != 1 {
			t.Errorf("%d waiting calls refused, running: %v %v", len(waiting.errs), running.order, running.errs)
		}
		if err := r.Shutdown(t.Context()); err != nil {
			t.Error("a second Shutdown:", err)
		}
	})
}

func TestShutdownKillsAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inMemory)
		var s served
		s.run(r, r.req("a", "gate never"))
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		began := time.Now()
		if err := r.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("took %s", d)
		}
		s.wg.Wait()
		if len(s.errs) != 1 || s.errs[0].Kind != errs.SandboxLost || s.errs[0].Cause != "killed" {
			t.Errorf("%v", s.errs)
		}
		r.stop()
	})
}
