package controller

import (
	"strings"
	"sync"
	"testing"
	"time"

	"paddock/controller/logs"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
)

// Whoever ends a tenant ends its calls: each is answered soon and says why, every slot and container comes back, and nobody
// else notices.
func TestEndOfATenantEndsItsCalls(t *testing.T) {
	for _, how := range []struct {
		name string
		end  func(*rig) error
	}{
		{"suspended", func(r *rig) error { _, err := r.cat.SuspendTenant(r.t.Context(), "acme", false); return err }},
		{"deleted", func(r *rig) error { _, err := r.cat.DeleteTenant(r.t.Context(), "acme"); return err }},
	} {
		t.Run(how.name, func(t *testing.T) {
			r := newRig(t)
			r.tenant("acme")
			r.tenant("other")
			if _, err := r.run("other", "value 1"); err != nil {
				t.Fatal(err)
			}
			spared := r.pool.Containers("other")[0].ID
			const calls = 2 * tenant.DefaultCallsPerContainer // more than one container takes
			var all sync.WaitGroup
			failed := make(chan error, calls)
			for range calls {
				all.Go(func() {
					_, err := r.run("acme", "log begun;gate never")
					failed <- err
				})
			}
			testenv.Await(t, "most calls run", func() bool {
				return len(r.logs.Kept("acme", logs.Filter{}, calls, time.Now())) >= tenant.DefaultCallsPerContainer
			})
			began := time.Now()
			if err := how.end(r); err != nil {
				t.Fatal(err)
			}
			all.Wait()
			if took := time.Since(began); took > 5*time.Second { // their own deadline is 20 s away
				t.Errorf("answered after %s", took)
			}
			close(failed)
			for err := range failed {
				switch e := errs.From(err); {
				case e == nil:
					t.Error("a call that never ends was answered")
				case e.Kind == errs.Cancelled && strings.Contains(e.Message, "suspended or removed"):
				case e.Kind == errs.Denied || e.Kind == errs.NotFound: // it came too late
				default:
					t.Errorf("%v", e)
				}
			}
			testenv.Await(t, "its containers go", func() bool { return len(r.pool.Containers("acme")) == 0 })
			if s := r.Stats(); s.InFlight != 0 || s.Waiting != 0 || s.Demand != 0 {
				t.Errorf("slots are missing: %+v", s)
			}
			if got, err := r.run("other", "value 2"); err != nil || got != "2" || r.pool.Containers("other")[0].ID != spared {
				t.Errorf("another tenant: %q, %v", got, err)
			}
		})
	}
}
