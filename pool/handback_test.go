package pool

import (
	"context"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// still is an engine that is never asked.
type stillEngine struct{ Engine }

func (stillEngine) Isolation() tenant.Isolation { return tenant.IsolationRunc }
func (stillEngine) Overhead() int64             { return 0 }

// stillPool is open and starts nothing.
func stillPool(t *testing.T) *Pool {
	p, err := New(Config{Engine: stillEngine{}, RunDir: t.TempDir(), MinReady: -1})
	if err != nil {
		t.Fatal(err)
	}
	p.phase = phaseOpen
	return p
}

func (p *Pool) readyContainer(now time.Time) *container {
	c := p.newContainerLocked(newContainerID(), 0, p.usual.size, 1, "", now)
	p.setStateLocked(c, Ready)
	return c
}

// givenAndGone lets a caller go away after its waiter was served, until the caller loses the race; check looks at the pool
// after each try.
func givenAndGone(t *testing.T, p *Pool, serve func() *waiter, take func(grant), check func()) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	lost := 0
	for range 200 {
		w := serve()
		if !w.given {
			t.Fatal("the waiter was not served")
		}
		if g := p.await(ctx, w); g.err == nil {
			take(g) // the grant won
		} else if lost++; !errs.Is(g.err, errs.Cancelled) || g.err.WhetherStarted() != errs.StartedNo {
			t.Fatalf("the caller that had gone got %v", g.err)
		}
		check()
	}
	if lost == 0 {
		t.Error("nothing was ever handed back")
	}
}

func TestGrantedContainerIsHandedBack(t *testing.T) {
	p := stillPool(t)
	now := time.Now()
	req := &call.Request{Tenant: "a"}
	ts := p.tenantLocked("a", nil, now)
	c := p.readyContainer(now)
	p.usual.ready.pushBack(&c.readyNode)
	givenAndGone(t, p, func() *waiter {
		p.mu.Lock()
		defer p.unlock()
		w := p.enqueueLocked(ts, req, now)
		p.wantLocked(ts, now)
		p.grantLocked(now)
		return w
	}, func(g grant) {
		p.mu.Lock()
		defer p.unlock()
		p.ungrantLocked(ts, g.container)
	}, func() {
		if p.usual.ready.len() != 1 || c.state != Ready || ts.granting != 0 || ts.claims != 0 || p.demand != 0 || p.waiting != 0 {
			t.Fatalf("ready %d, state %s, granting %d, claims %d, demand %d, waiting %d", p.usual.ready.len(), c.state, ts.granting, ts.claims,
				p.demand, p.waiting)
		}
		if !ts.bucket.full(ts.policy, now) {
			t.Fatalf("its token was not given back: %v", ts.bucket.tokens)
		}
	})
}

func TestGrantedSlotIsHandedBack(t *testing.T) {
	p := stillPool(t)
	now := time.Now()
	req := &call.Request{Tenant: "a"}
	ts := p.tenantLocked("a", nil, now)
	c := p.readyContainer(now)
	ts.granting++
	p.assignToLocked(c, ts, false, now)
	c.setPowerLocked(powerOn)
	givenAndGone(t, p, func() *waiter {
		p.mu.Lock()
		defer p.unlock()
		w := p.enqueueLocked(ts, req, now)
		p.serveLocked(ts, now)
		return w
	}, func(g grant) {
		g.slot.settled()
		p.giveBack(g.slot, nil)
	}, func() {
		if c.inflight != 0 || c.running != 0 || len(c.calls) != 0 || p.inflight != 0 || p.idle.len() != 1 {
			t.Fatalf("in flight %d/%d, running %d, calls %d, idle %d", c.inflight, p.inflight, c.running, len(c.calls), p.idle.len())
		}
	})
}
