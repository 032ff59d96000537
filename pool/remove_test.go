package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// Every call of a removed tenant is answered in the same moment, wherever it stands: running, in a container of its own, in
// the queue; its containers' ends may take their time.
func TestRemovalAnswersAtOnce(t *testing.T) {
	bubble(t, func(o *fake.Options, _ *pool.Config) {
		o.Destroy = func(context.Context, pool.ContainerID) error { time.Sleep(5 * time.Second); return nil }
	}, func(r *rig) {
		r.untilReady(2)
		narrow := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 2, 2 })
		var s served
		for i := range 6 { // two run, one is fresh, three wait
			req := r.req("a", "gate never")
			req.Policy, req.Fresh = narrow, i == 2
			s.run(r, req)
		}
		if st := r.Stats(); st.InFlight != 3 || st.Waiting != 3 {
			t.Fatalf("%+v", st)
		}
		began := time.Now()
		removed := make(chan int)
		go func() { removed <- r.RemoveTenant(r.t.Context(), "a") }()
		synctest.Wait()
		if st := r.Stats(); st.Waiting != 0 || st.InFlight > 1 { // the fresh one's answer waits for its container's end
			t.Errorf("%+v", st)
		}
		s.mu.Lock()
		answered := len(s.errs)
		s.mu.Unlock()
		if answered < 5 {
			t.Errorf("only %d calls are answered at once", answered)
		}
		if n := <-removed; n != 2 || len(r.Containers("a")) != 0 || time.Since(began) > 6*time.Second {
			t.Errorf("%d containers removed after %s, left: %v", n, time.Since(began), r.Containers("a"))
		}
		s.wg.Wait()
		if len(s.order) != 0 || r.Stats().InFlight != 0 {
			t.Errorf("%d calls were answered well, %+v", len(s.order), r.Stats())
		}
		for _, e := range s.errs {
			if e.Kind != errs.Cancelled {
				t.Errorf("%v", e)
			}
		}
	})
}

// A call that waits for its frozen container when the tenant goes is not tried in another one.
func TestRemovalDuringThaw(t *testing.T) {
	bubble(t, func(o *fake.Options, _ *pool.Config) {
		o.Thaw = func(context.Context, pool.ContainerID) error { time.Sleep(time.Second); return nil }
	}, func(r *rig) {
		r.must("a", "value 1")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if r.Stats().Frozen != 1 {
			t.Fatalf("%+v", r.Stats())
		}
		var s served
		req := r.req("a", "value 2")
		s.run(r, req)
		r.RemoveTenant(r.t.Context(), "a")
		s.wg.Wait()
		if len(s.errs) != 1 || s.errs[0].Kind != errs.Cancelled || s.errs[0].WhetherStarted() != errs.StartedNo {
			t.Errorf("%v", s.errs)
		}
		if n := r.engine.Starts(req.ID); n != 0 || len(r.Containers("a")) != 0 {
			t.Errorf("it began %d times; containers: %v", n, r.Containers("a"))
		}
	})
}
