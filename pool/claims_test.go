package pool_test

import (
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// A tenant that dies all the time gets its burst, then one container a second; the pool stays for the others.
func TestClaimBudget(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.MinReady, c.MaxReady = 8, 8 }, func(r *rig) {
		r.untilReady(8)
		for i := range tenant.DefaultClaimBurst {
			req := r.req("dies", "crash")
			req.Code.Hash = string(rune('a' + i)) // other code each time: no quarantine
			r.fails(req, errs.SandboxLost, "crashed", errs.StartedMaybe)
		}
		began := time.Now()
		req := r.req("dies", "value 1")
		if _, err := r.run(req); err != nil {
			t.Fatalf("the next token is a second away and worth waiting for: %v", err)
		}
		if d := time.Since(began); d < 500*time.Millisecond || d > claimPause {
			t.Errorf("waited %s for a token", d)
		}
		r.must("other", "value 1")
	})
}

const claimPause = 1100 * time.Millisecond

func TestFreshCallsCostTokens(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.MinReady, c.MaxReady = 8, 8 }, func(r *rig) {
		r.untilReady(8)
		var s served
		for range 10 {
			req := r.req("a", "sleep 10ms")
			req.Fresh = true
			req.Policy = policy(func(p *tenant.Policy) { p.MaxContainers = 20 })
			s.run(r, req)
		}
		s.wg.Wait()
		if len(s.order) != 6 { // 4 at once, 2 within the wait that a token is worth
			t.Errorf("%d fresh calls served, want 6", len(s.order))
		}
		for _, e := range s.errs {
			if e.Kind != errs.Limited || e.Cause != "claims" || e.RetryAfter <= 0 || e.WhetherStarted() != errs.StartedNo {
				t.Errorf("%v", e)
			}
		}
		if n := r.Stats().OverBudget; n != 4 {
			t.Errorf("%d counted, want 4", n)
		}
	})
}

func TestQuarantine(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		bad := func() *call.Request {
			req := r.req("a", "crash")
			req.Policy = policy(func(p *tenant.Policy) { p.ClaimBurst, p.ClaimsPerSecond = 100, 100 })
			return req
		}
		for range 3 {
			r.fails(bad(), errs.SandboxLost, "crashed", "")
		}
		e := r.fails(bad(), errs.Limited, "quarantine", errs.StartedNo)
		if e.RetryAfter <= 0 || e.WhoseFault() != errs.FaultTenant {
			t.Errorf("%+v", e)
		}
		good := r.req("a", "value 1")
		good.Policy = bad().Policy
		if _, err := r.run(good); err != nil {
			t.Errorf("other code of the tenant: %v", err)
		}
		r.must("b", "value 1")
		same := r.req("b", "crash")
		r.fails(same, errs.SandboxLost, "crashed", "") // the same code of another tenant is another matter
		time.Sleep(e.RetryAfter)
		r.fails(bad(), errs.SandboxLost, "crashed", "") // it may try again
		again := r.fails(bad(), errs.Limited, "quarantine", "")
		if again.RetryAfter < e.RetryAfter {
			t.Errorf("rests %s after %s: no backoff", again.RetryAfter, e.RetryAfter)
		}
		time.Sleep(20 * time.Minute)
		r.fails(bad(), errs.SandboxLost, "crashed", "")
		r.fails(bad(), errs.SandboxLost, "crashed", "") // forgiven: it takes three again
	})
}

// TestCodeThatNeverEndsIsQuarantined: a container that is full of code which goes on after its calls were given up is replaced, and
// that code is not given one after the other.
func TestCodeThatNeverEndsIsQuarantined(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		generous := policy(func(p *tenant.Policy) { p.MaxContainers, p.ClaimBurst, p.ClaimsPerSecond = 1, 100, 100 })
		ask := func(source string) *errs.Error {
			req := r.req("a", source)
			req.Policy, req.Deadline = generous, time.Now().Add(100*time.Millisecond)
			_, e := r.run(req)
			return e
		}
		timeouts := 0
		for ; timeouts < 1000; timeouts++ {
			e := ask("hang")
			if e == nil {
				t.Fatal("it ended")
			}
			if e.Kind == errs.Limited && e.Cause == "quarantine" {
				break
			}
			if e.Kind != errs.Timeout {
				t.Fatal(e)
			}
		}
		if most := 3 * 65; timeouts < most || timeouts > most+3 {
			t.Errorf("quarantined after %d calls that never ended, want some %d: three containers full", timeouts, most)
		}
		if e := ask("value 1"); e != nil {
			t.Errorf("other code of the tenant: %v", e)
		}
	})
}
