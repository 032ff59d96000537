package pool_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// A container that ran into a limit is gone soon after the call that did it, however that ended, and serves nobody else.
func TestSpoiledIsDestroyed(t *testing.T) {
	for _, c := range []struct {
		name, program string
		kind          errs.Kind // of the call's failure
		says          string
		soon          time.Duration
	}{
		{"a refused fork, then a timeout", "refuse; hang", errs.Timeout, "limit of processes", 0},
		{"a dead child, then a timeout", "child; hang", errs.Timeout, "out of memory", 0},
		{"a refused fork, then an error", "refuse; throw x", errs.UserError, "", 0},
		{"a dead child, then an error", "child; throw x", errs.UserError, "", 0},
		{"a refused fork that the code bore", "refuse; value 1", "", "", 1100 * time.Millisecond},
		{"a refused fork, and it burns on", "refuse; burn; value 1", "", "", 1100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				id := r.must("a", "value 1").Container
				req := r.req("a", c.program)
				req.Deadline = time.Now().Add(time.Second)
				res, err := r.run(req)
				switch {
				case c.kind == "" && (err != nil || res.Container != id):
					t.Fatalf("%+v, %v", res, err)
				case c.kind != "" && (err == nil || err.Kind != c.kind || !strings.Contains(err.Message, c.says)):
					t.Fatalf("%v, want %s that says %q", err, c.kind, c.says)
				}
				time.Sleep(c.soon)
				synctest.Wait()
				if r.engine.Container(id) != nil || r.heardCause("a") != pool.CauseTainted {
					t.Errorf("it lives; released: %q", r.heardCause("a"))
				}
				if again := r.must("a", "value 1"); again.Container == id {
					t.Error("it was used again")
				}
			})
		})
	}
}

// Not even a call that comes in the moment of the answer gets into it.
func TestNoCallFollowsIntoASpoiledOne(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		id := r.must("a", "value 1").Container
		req := r.req("a", "refuse; hang")
		req.Deadline = time.Now().Add(time.Second)
		r.fails(req, errs.Timeout, "", errs.StartedMaybe)
		if next := r.must("a", "value 1"); next.Container == id {
			t.Error("after a timeout: it was used again")
		}
		id = r.must("a", "value 1").Container
		ctx, cancel := context.WithCancel(r.t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := r.Do(ctx, r.req("a", "refuse; hang"), nil); !errs.Is(err, errs.Cancelled) {
			t.Fatalf("%v", err)
		}
		if next := r.must("a", "value 1"); next.Container == id {
			t.Error("after the caller went away: it was used again")
		}
	})
}

// What runs in a spoiled container may finish, code that bears a refused fork among it; what comes runs elsewhere.
func TestSpoiledLetsCallsFinish(t *testing.T) {
	for _, step := range []string{"refuse", "child"} {
		bubble(t, nil, func(r *rig) {
			r.untilReady(2)
			var s served
			s.run(r, r.req("a", step+"; gate g; value 1"))
			id := r.Containers("a")[0].ID
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if i := r.Containers("a"); len(i) != 1 || i[0].State != pool.Draining || i[0].Cause != pool.CauseTainted {
				t.Fatalf("%s: not noticed while the call runs: %+v", step, i)
			}
			if next := r.must("a", "value 1"); next.Container == id {
				t.Errorf("%s: it got another call", step)
			}
			r.engine.Open("g")
			s.wg.Wait()
			if len(s.errs) != 0 {
				t.Errorf("%s: the call that ran: %v", step, s.errs)
			}
			synctest.Wait()
			if r.engine.Container(id) != nil {
				t.Errorf("%s: it lives", step)
			}
		})
	}
}

// What goes on in a spoiled container is killed at once, even if its destruction takes its time.
func TestSpoiledIsKilledAtOnce(t *testing.T) {
	slow := make(chan struct{})
	bubble(t, func(o *fake.Options, _ *pool.Config) {
		o.Destroy = func(context.Context, pool.ContainerID) error { <-slow; return nil }
	}, func(r *rig) {
		slow = make(chan struct{}) // of the bubble
		c := r.engine.Container(r.must("a", "value 1").Container)
		r.fails(r.req("a", "refuse; burn; throw x"), errs.UserError, "", errs.StartedYes)
		synctest.Wait()
		select {
		case <-c.Exited():
		default:
			t.Error("it burns on")
		}
		close(slow)
	})
}

// The decision to freeze looks, too: nothing that ran into a limit is kept for later. A call that waits for it meanwhile runs
// elsewhere.
func TestSpoiledIsNotKeptFrozen(t *testing.T) {
	bubble(t, func(o *fake.Options, _ *pool.Config) {
		o.Freeze = func(context.Context, pool.ContainerID) error { time.Sleep(time.Second); return nil }
	}, func(r *rig) {
		quick := policy(func(p *tenant.Policy) { p.FreezeAfter = 100 * time.Millisecond })
		req := r.req("a", "refuse; value 1")
		req.Policy = quick
		res, err := r.run(req)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond) // it is being frozen
		waits := r.req("a", "value 2")
		waits.Policy = quick
		other, err := r.run(waits)
		if err != nil || other.Container == res.Container || r.engine.Starts(waits.ID) != 1 {
			t.Errorf("%+v, %v", other, err)
		}
		synctest.Wait()
		if r.engine.Container(res.Container) != nil || r.heardCause("a") != pool.CauseTainted {
			t.Errorf("it lives; released: %q", r.heardCause("a"))
		}
	})
}

// Calls that succeed cost no look, calls that fail few.
func TestLooksAreFew(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		c := r.engine.Container(r.must("a", "value 1").Container)
		for range 1000 {
			r.must("a", "value 1")
		}
		if n := c.Looks(); n != 0 {
			t.Errorf("%d looks for calls that succeed", n)
		}
		for range 1000 {
			r.fails(r.req("a", "throw x"), errs.UserError, "", "")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := c.Looks(); n == 0 || n > 4 {
			t.Errorf("%d looks for 1000 failures at once", n)
		}
		if r.engine.Container(c.ID()) == nil || c.Frozen() {
			t.Error("an innocent container was ended, or frozen too early")
		}
	})
}

// Code that spoils its containers again and again rests like code that kills them.
func TestSpoilingIsHeldAgainstTheCode(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		for range 3 {
			r.fails(r.req("a", "refuse; throw x"), errs.UserError, "", "")
			synctest.Wait()
			time.Sleep(2 * time.Second)
		}
		r.fails(r.req("a", "refuse; throw x"), errs.Limited, "quarantine", errs.StartedNo)
		r.must("a", "value 1")
	})
}

// A fresh container is destroyed after its call anyway.
func TestSpoiledFresh(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		req := r.req("a", "refuse; value 1")
		req.Fresh = true
		if _, err := r.run(req); err != nil {
			t.Error(err)
		}
		req = r.req("a", "refuse; hang")
		req.Fresh, req.Deadline = true, time.Now().Add(2*time.Second)
		if err := r.fails(req, errs.Timeout, "", errs.StartedMaybe); !strings.Contains(err.Message, "limit of processes") {
			t.Errorf("%v", err)
		}
	})
}

// What ended by itself is told as that, though its counters say that it ran into a limit, and though it is on its way out.
func TestTheEndIsToldBeforeTheLimit(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		for _, before := range []string{"", "refuse; sleep 1200ms; "} { // the second drains by then
			r.must("a", "value 1")
			lost := r.Stats().Lost[pool.CauseOutOfMemory]
			r.fails(r.req("a", before+"dying"), errs.OutOfMemory, "", errs.StartedYes)
			synctest.Wait()
			if n := r.Stats().Lost[pool.CauseOutOfMemory] - lost; n != 1 {
				t.Errorf("%q: %d losses", before, n)
			}
		}
		r.fails(r.req("a", "dying"), errs.OutOfMemory, "", errs.StartedYes) // the third, of another code: no quarantine yet
		r.fails(r.req("a", "dying"), errs.OutOfMemory, "", errs.StartedYes)
	})
}

// The next process sees what the former one did not.
func TestSpoiledIsNotAdopted(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.AdoptTimeout = time.Second }, func(r *rig) {
		c := r.engine.Container(r.must("a", "value 1").Container)
		if err := r.Release(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		c.KillChild()
		r.start()
		synctest.Wait()
		if r.engine.Container(c.ID()) != nil {
			t.Error("it lives")
		}
		if res := r.must("a", "value 1"); res.Start == call.StartWarm {
			t.Errorf("%+v", res)
		}
	})
}
