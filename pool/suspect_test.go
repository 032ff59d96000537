package pool_test

import (
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
)

// TestAnswersAndSpins: calls go round a container whose loop stands still after an answer, and it is given up.
func TestAnswersAndSpins(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		stuck := r.must("acme", "id; then spin").Container
		began := time.Now()
		for range 3 {
			if res := r.must("acme", "id"); res.Container == stuck {
				r.t.Error("a call went into the stuck container")
			}
		}
		if d := time.Since(began); d > time.Second {
			r.t.Errorf("the next calls took %s", d)
		}
		r.until("the stuck one is gone", func(s pool.Stats) bool { return s.Assigned == 1 && s.Draining == 0 })
		if d := time.Since(began); d > 4*time.Second {
			r.t.Errorf("it was kept for %s", d)
		}
		r.heard.mu.Lock()
		defer r.heard.mu.Unlock()
		if got := r.heard.recycled[stuck].Cause; got != pool.CauseTainted {
			r.t.Errorf("it ended as %q", got)
		}
	})
}

// TestSpinsLater: code that goes on in good order and begins to spin then is noticed as well.
func TestSpinsLater(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		id := r.must("acme", "id; then sleep 10s").Container
		if res := r.must("acme", "id"); res.Container != id {
			r.t.Error("a container whose loop turns was left")
		}
		time.Sleep(time.Second)
		r.must("acme", "value 1; then spin") // whatever was answered then
		if res := r.must("acme", "id"); res.Container == id {
			r.t.Error("a call went into the stuck container")
		}
	})
}

// TestAnswersAndSpinsAlone: a tenant of one container waits until that is given up, and no longer.
func TestAnswersAndSpinsAlone(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		one := policy(func(p *tenant.Policy) { p.MaxContainers = 1 })
		run := func(source string) (*call.Result, error) {
			req := r.req("acme", source)
			req.Policy = one
			return r.Do(r.t.Context(), req, nil)
		}
		first, err := run("id; then spin")
		if err != nil {
			r.t.Fatal(err)
		}
		began := time.Now()
		if res, err := run("id"); err != nil || res.Container == first.Container {
			r.t.Errorf("%+v, %v", res, err)
		}
		if d := time.Since(began); d > 3*time.Second {
			r.t.Errorf("the next call took %s", d)
		}
	})
}

// TestStallIsForgiven: a loop that turns again keeps its container.
func TestStallIsForgiven(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		id := r.must("acme", "id; then stall 1s").Container
		if res := r.must("acme", "id"); res.Container == id {
			r.t.Error("a call went into the stalled container")
		}
		time.Sleep(5 * time.Second)
		kept := false
		for _, c := range r.Containers("acme") {
			kept = kept || c.ID == id && c.State == pool.Assigned
		}
		if !kept {
			r.t.Error("it was given up")
		}
	})
}

// TestLoopLeftBehind: what a call has left behind loops with no call in the container. Who is next when that has been frozen is served
// elsewhere.
func TestLoopLeftBehind(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		id := r.must("acme", "id; loop").Container
		r.until("it is frozen", func(s pool.Stats) bool { return s.Frozen == 1 })
		if res := r.must("acme", "id"); res.Container == id {
			r.t.Error("a call was served in the stuck container")
		}
		r.until("it is gone", func(s pool.Stats) bool { return s.Assigned == 1 && s.Failed == 0 })
		id = r.must("burns", "id; burn").Container
		r.until("the other is frozen", func(s pool.Stats) bool { return s.Frozen == 1 })
		if res := r.must("burns", "id"); res.Container != id {
			r.t.Error("one that answers lost its container")
		}
	})
}

// TestRefusalIsNotSkippedAtRest: code that refuses and ends its containers rests like other code; nothing goes on without it, whatever
// its policy.
func TestRefusalIsNotSkippedAtRest(t *testing.T) {
	for _, after := range []string{"spin", "crash"} {
		t.Run(after, func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				ask := func(of tenant.ID, program string) *errs.Error {
					req := r.req(of, "")
					req.Policy = policy(func(p *tenant.Policy) { p.ClaimBurst, p.ClaimsPerSecond = 100, 100 })
					req.Pipeline, req.Body = "login", []byte(`{}`)
					req.Steps = []call.Step{
						{Function: "rule", Version: 1, Code: codeOf(program), OnFailure: call.OnFailureSkip, Timeout: 5 * time.Second},
						{Function: "next", Version: 1, Code: codeOf("value {}"), OnFailure: call.OnFailureSkip},
					}
					_, err := r.Do(r.t.Context(), req, nil)
					return errs.From(err)
				}
				rests := false
				for i := 0; i < 10 && !rests; i++ {
					e := ask("acme", "deny no; then "+after)
					if rests = e != nil && e.Kind == errs.Limited && e.Cause == "quarantine"; !rests && (e == nil || e.Kind != errs.Refused) {
						r.t.Fatalf("%d: %v", i, e)
					}
					r.until("its container is gone", func(s pool.Stats) bool { return s.Assigned == 0 && s.Draining == 0 })
				}
				if !rests {
					r.t.Error("it never rests")
				}
				for range 4 { // what has never refused is skipped, resting or not
					if e := ask("other", "crash"); e != nil {
						r.t.Errorf("one that only fails: %v", e)
					}
				}
			})
		})
	}
}
