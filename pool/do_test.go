package pool_test

import (
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/pool"
	"paddock/pool/fake"
)

// both runs a test over real sockets and over links in memory in a bubble.
func both(t *testing.T, f func(*testing.T, func(*fake.Options, *pool.Config))) {
	t.Run("socket", func(t *testing.T) { f(t, func(*fake.Options, *pool.Config) {}) })
	t.Run("memory", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, inMemory) }) })
}

func TestCalls(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, o)
		defer r.stop()
		r.untilReady(2)
		first := r.must("acme", "value 1")
		if string(first.Value) != "1" || first.Start != call.StartPooled || first.Isolation != "runc" || first.Container == "" {
			t.Errorf("first call: %+v", first)
		}
		second := r.must("acme", "value 2")
		if string(second.Value) != "2" || second.Start != call.StartWarm || second.Container != first.Container {
			t.Errorf("second call: %+v", second)
		}
		other := r.must("other", "id")
		if other.Container == first.Container {
			t.Errorf("two tenants in container %s", other.Container)
		}
		r.fails(r.req("acme", "throw no"), errs.UserError, "", errs.StartedYes)
		for _, fresh := range []bool{false, true} {
			req := r.req("acme", "throw no")
			req.Fresh = fresh
			res, err := r.Do(t.Context(), req, nil)
			if err == nil || res == nil || res.Container == "" || res.Start == "" || res.Stages.Run < 0 || res.Value != nil {
				t.Errorf("a failure says of where it ran: %+v", res)
			}
		}
		if s := r.Stats(); s.InFlight != 0 || s.Assigned != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestLosses(t *testing.T) {
	for _, c := range []struct {
		source string
		kind   errs.Kind
		cause  string
		counts pool.Cause
	}{
		{"crash", errs.SandboxLost, "crashed", pool.CauseCrashed},
		{"oom", errs.OutOfMemory, "", pool.CauseOutOfMemory},
		{"heap", errs.OutOfMemory, "", pool.CauseOutOfMemory},
		{"pids", errs.SandboxLost, "pids", pool.CausePids},
		{"breach", errs.SandboxLost, "protocol", pool.CauseProtocol},
	} {
		t.Run(c.source, func(t *testing.T) {
			both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
				r := newRig(t, o)
				defer r.stop()
				r.untilReady(2)
				id := r.must("acme", "id").Container
				other := r.must("other", "id").Container
				r.fails(r.req("acme", c.source), c.kind, c.cause, "")
				if after := r.must("acme", "id").Container; after == id {
					t.Error("the lost container served another call")
				}
				if after := r.must("other", "id").Container; after != other {
					t.Error("another tenant's container was touched")
				}
				if n := r.Stats().Lost[c.counts]; n != 1 {
					t.Errorf("counted %d losses as %s: %+v", n, c.counts, r.Stats().Lost)
				}
			})
		})
	}
}

func TestStuckLoopIsKilledAndReplaced(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, o)
		defer r.stop()
		r.untilReady(2)
		id := r.must("acme", "id").Container
		beside := make(chan *errs.Error, 1)
		go func() {
			_, err := r.run(r.req("acme", "gate never"))
			beside <- err
		}()
		r.until("the other call runs", func(s pool.Stats) bool { return s.InFlight == 1 })
		spin := r.req("acme", "spin")
		spin.Deadline = time.Now().Add(200 * time.Millisecond)
		began := time.Now()
		r.fails(spin, errs.Timeout, "", errs.StartedMaybe)
		if d := time.Since(began); d > r.about(250*time.Millisecond) {
			t.Errorf("the timeout came after %s", d)
		}
		if after := r.must("acme", "id").Container; after == id { // it does not go down with the stuck one
			t.Error("a new call went into the stuck container")
		}
		if err := <-beside; err == nil || err.Kind != errs.SandboxLost || err.Cause != "killed" {
			t.Errorf("the call beside it: %v", err)
		}
		if d := time.Since(began); d > r.about(time.Second) {
			t.Errorf("the call beside it was told after %s", d)
		}
		if after := r.must("acme", "id").Container; after == id {
			t.Error("the stuck container lives")
		}
	})
}

func TestHangKeepsItsContainer(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, o)
		defer r.stop()
		id := r.must("acme", "id").Container
		hang := r.req("acme", "hang")
		hang.Deadline = time.Now().Add(200 * time.Millisecond)
		r.fails(hang, errs.Timeout, "", errs.StartedMaybe)
		if after := r.must("acme", "id").Container; after != id {
			t.Error("an agent that answers CANCEL lost its container")
		}
		for _, c := range r.Containers("acme") {
			if c.InFlight != 0 || c.Running != 1 || !c.IdleSince.IsZero() {
				t.Errorf("slot or running count is wrong: %+v", c)
			}
		}
	})
}
