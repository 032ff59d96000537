package pool_test

import (
	"context"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

func (r *rig) compile(id tenant.ID, source string, timeout time.Duration) (*call.Result, *errs.Error) {
	r.t.Helper()
	req := r.req(id, source)
	req.CompileOnly = true
	req.Deadline = time.Now().Add(timeout)
	res, err := r.Do(r.t.Context(), req, nil)
	return res, errs.From(err)
}

// TestCompile: code is compiled in a container of the tenant's, a new one if it has none, and nothing of it runs.
func TestCompile(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, o)
		defer r.stop()
		r.untilReady(2)
		res, e := r.compile("acme", "crash", 10*time.Second) // it would, if it ran
		if e != nil || res.Start != call.StartPooled || res.Value != nil {
			t.Errorf("%+v, %v", res, e)
		}
		again, e := r.compile("acme", "throw no", 10*time.Second)
		if e != nil || again.Start != call.StartWarm || again.Container != res.Container {
			t.Errorf("%+v, %v", again, e)
		}
		_, e = r.compile("acme", "value 1\n  nonsense here", 10*time.Second)
		if e == nil || e.Kind != errs.LoadError || e.Thrown == nil || e.Thrown.Line != 2 || e.Thrown.Column != 3 ||
			e.Thrown.Excerpt != "  nonsense here" || e.WhetherStarted() != errs.StartedNo {
			t.Errorf("%+v", e)
		}
		_, e = r.compile("acme", "value 1\n  nonsense here", 10*time.Second) // not taken for known
		if e == nil || e.Kind != errs.LoadError {
			t.Errorf("%+v", e)
		}
		if got := r.must("acme", "value 2"); got.Container != res.Container || string(got.Value) != "2" {
			t.Errorf("%+v", got)
		}
		if s := r.Stats(); s.InFlight != 0 || s.Assigned != 1 || s.Lost[pool.CauseCrashed] != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestCompileEnds: whatever becomes of the container, the slot comes back, the tenant's next call is served, and nobody else
// notices.
func TestCompileEnds(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, o)
		defer r.stop()
		r.untilReady(2)
		other := r.must("other", "id").Container
		_, e := r.compile("acme", "compiling oom", 10*time.Second)
		if e == nil || e.Kind != errs.OutOfMemory {
			t.Errorf("out of memory: %v", e)
		}
		_, e = r.compile("acme", "compiling crash", 10*time.Second) // tried again, since nothing had started
		if e == nil || e.Kind != errs.SandboxLost && e.Kind != errs.Limited {
			t.Errorf("crash: %v", e)
		}
		_, e = r.compile("third", "compiling spin", 300*time.Millisecond)
		if e == nil || e.Kind != errs.Timeout || e.WhetherStarted() != errs.StartedNo {
			t.Errorf("spin: %v", e)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		req := r.req("other", "value 1")
		req.CompileOnly = true
		if _, err := r.Do(ctx, req, nil); err == nil {
			t.Error("a caller who had gone")
		}
		if got := r.must("other", "id").Container; got != other {
			t.Error("another tenant's container was touched")
		}
		if s := r.Stats(); s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestCompileCosts: where a container has to be bound, it costs a claim; without one, or without room, that is said.
func TestCompileCosts(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, func(fo *fake.Options, c *pool.Config) {
			o(fo, c)
			c.MaxContainers, c.MaxReady = 2, 2
		})
		defer r.stop()
		r.untilReady(2)
		policy := tenant.DefaultPolicy()
		policy.ClaimBurst, policy.ClaimsPerSecond = 1, 0.001
		ask := func(source string) *errs.Error {
			req := r.req("poor", source)
			req.Policy, req.CompileOnly = &policy, true
			_, err := r.Do(t.Context(), req, nil)
			return errs.From(err)
		}
		if e := ask("value 1"); e != nil {
			t.Error(e)
		}
		if e := ask("compiling oom"); e == nil || e.Kind != errs.OutOfMemory {
			t.Error(e)
		}
		if e := ask("value 2"); e == nil || e.Kind != errs.Limited || e.Cause != "claims" || e.RetryAfter == 0 {
			t.Errorf("without a claim: %v", e)
		}
	})
}
