package pool_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// TestRenewFailsNoCall replaces everything while tenants call: warm ones first, no call fails, and none waits for a
// container, since its successor is there before the old one goes.
func TestRenewFailsNoCall(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.MinReady, c.MaxReady, c.MaxContainers = 3, 3, 20 }, func(r *rig) {
		r.untilReady(3)
		tenants := []tenant.ID{"a", "b", "c"}
		for _, id := range tenants {
			r.must(id, "value 1")
		}
		r.untilReady(3)
		old := map[pool.ContainerID]bool{}
		for _, i := range r.Containers("") {
			old[i.ID] = true
		}
		done := make(chan struct{})
		var calls sync.WaitGroup
		served := 0
		var mu sync.Mutex
		for _, id := range tenants {
			for range 4 {
				calls.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						res, err := r.run(r.req(id, "value 1"))
						if err != nil {
							t.Errorf("%s: %v", id, err)
							return
						}
						if res.Start != "warm" && res.Start != "pooled" || res.Start == "pooled" && old[res.Container] {
							t.Errorf("%s: a call paid: %s", id, res.Start)
						}
						mu.Lock()
						served++
						mu.Unlock()
						time.Sleep(5 * time.Millisecond)
					}
				})
			}
		}
		var steps []pool.RenewStep
		if err := r.Renew(r.t.Context(), pool.Renewal{}, func(s pool.RenewStep) error {
			steps = append(steps, s)
			return nil
		}); err != nil {
			t.Error(err)
		}
		close(done)
		calls.Wait()
		if len(steps) != len(old)+1 || steps[0].Total != len(old) {
			t.Fatalf("%d steps for %d containers: %+v", len(steps), len(old), steps)
		}
		for i, s := range steps[1:] {
			if s.Done != i+1 || !old[s.Container] || s.Unprepared {
				t.Errorf("step %d: %+v", i, s)
			}
		}
		firstAssigned := slices.IndexFunc(steps, func(s pool.RenewStep) bool { return s.State == pool.Assigned })
		lastReady := len(steps) - 1
		for ; steps[lastReady].State != pool.Ready; lastReady-- {
		}
		if firstAssigned < lastReady {
			t.Errorf("an assigned one went before a warm one: %+v", steps)
		}
		for _, i := range r.Containers("") {
			if old[i.ID] {
				t.Errorf("%s is still there", i.ID)
			}
		}
		if served < 100 {
			t.Errorf("%d calls were served meanwhile", served)
		}
	})
}

// TestRenewOneTenant leaves the others where they are.
func TestRenewOneTenant(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		a, b := r.must("a", "value 1").Container, r.must("b", "value 1").Container
		if err := r.Renew(r.t.Context(), pool.Renewal{Tenant: "a"}, func(pool.RenewStep) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got := r.must("a", "value 1"); got.Container == a {
			t.Error("a has its old container")
		}
		if got := r.must("b", "value 1"); got.Container != b {
			t.Error("b has another container")
		}
	})
}

// TestRenewLetsCallsFinish: a call in flight ends where it is; who asked may go away, and what is under way still ends.
func TestRenewLetsCallsFinish(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		var calls sync.WaitGroup
		calls.Go(func() {
			if _, err := r.run(r.req("a", "sleep 8s")); err != nil {
				t.Error(err)
			}
		})
		r.until("the call runs", func(s pool.Stats) bool { return s.InFlight == 1 })
		ctx, cancel := context.WithTimeout(r.t.Context(), 4*time.Second)
		defer cancel()
		if err := r.Renew(ctx, pool.Renewal{}, func(pool.RenewStep) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before the call has ended: %v", err)
		}
		began := time.Now()
		if err := r.Renew(r.t.Context(), pool.Renewal{}, func(pool.RenewStep) error { return nil }); err != nil {
			t.Error(err)
		}
		calls.Wait()
		synctest.Wait()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRenewWithoutRoom: where no warm container can be made, those in use are drained all the same, and it is said.
func TestRenewWithoutRoom(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.MinReady, c.MaxReady, c.MaxContainers = -1, 1, 1 }, func(r *rig) {
		r.must("a", "value 1")
		unprepared := 0
		if err := r.Renew(r.t.Context(), pool.Renewal{}, func(s pool.RenewStep) error {
			if s.Unprepared {
				unprepared++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if unprepared != 1 {
			t.Errorf("%d without a successor", unprepared)
		}
		r.must("a", "value 1")
	})
}
