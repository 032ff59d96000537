package pool

import (
	"context"
	"sync/atomic"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// flight is one call on one container. Its caller leaves and its code ends independently; marks says what has happened
// and who therefore gives back what.
type flight struct {
	p     *Pool
	c     *container
	id    call.ID
	hash  string
	pos   int // in c.calls; guarded by Pool.mu
	marks atomic.Uint32

	start         call.StartKind
	queue, assign time.Duration
	since         time.Time          // when it took its slot
	inject        []tenant.Injection // of the policy in force then
	gaveUp        bool               // its caller went away, or its deadline passed
	refused       bool               // it has denied access
	steps         []call.Step        // of a pipeline
	running       *atomic.Int32      // and the one that runs; see call.Request
}

const (
	flightReturned = 1 << iota
	flightSettled
)

// settled is told by the link that the call's code has ended. In the usual case the caller is still there and gives back
// slot and running count in one go.
func (f *flight) settled() {
	if f.marks.Or(flightSettled)&flightReturned == 0 {
		return
	}
	p := f.p
	p.mu.Lock()
	defer p.unlock()
	p.leaveLocked(f, false, true, time.Now())
}

// giveBack returns the caller's slot, and the running count if the code has ended. e is why the call failed, nil if it
// did not.
func (p *Pool) giveBack(f *flight, e *errs.Error) {
	p.mu.Lock()
	defer p.unlock()
	ended, now := f.marks.Or(flightReturned)&flightSettled != 0, time.Now()
	f.c.tally.ended(e)
	if e != nil {
		f.gaveUp = e.Kind == errs.Timeout || e.Kind == errs.Cancelled
		if e.Kind == errs.Refused {
			f.refuseLocked()
		}
	}
	if !ended {
		p.suspectLocked(f.c, f.gaveUp)
	}
	if e != nil && (ended || !f.gaveUp) && e.WhetherStarted() != errs.StartedNo {
		p.lookLocked(f.c, now)
	}
	p.leaveLocked(f, true, ended, now)
}

// takeLocked takes a slot of c for one call.
func (p *Pool) takeLocked(c *container, req *call.Request, now time.Time) *flight {
	f := &flight{inject: c.tenant.policy.Inject, p: p, c: c, id: req.ID, hash: req.Code.Hash, pos: len(c.calls), start: call.StartWarm, since: now}
	f.steps, f.running = req.Steps, req.Running
	if c.quiet() {
		p.leaveIdleLocked(c)
	}
	p.shareLaterLocked(now)
	c.inflight++
	c.running++
	c.served++
	p.inflight++
	c.calls = append(c.calls, f)
	c.remember(req)
	if most := c.tenant.policy.MaxCalls; most > 0 && c.served >= most && !c.fresh {
		p.drainLocked(c, CauseMaxCalls, now)
	}
	return f
}

// onlyCall names the call that runs in c, if there is exactly one: what the container does then is that call's doing.
func (p *Pool) onlyCall(c *container) call.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(c.calls) != 1 {
		return ""
	}
	return c.calls[0].id
}

// leaveLocked gives back a call's slot, its running count, or both. What follows from it: a waiting call is served, a
// draining container with nothing left is destroyed, an idle one starts to age.
func (p *Pool) leaveLocked(f *flight, slot, ended bool, now time.Time) {
	c := f.c
	if slot {
		c.inflight--
		p.inflight--
	}
	if ended {
		c.running--
		last := len(c.calls) - 1
		c.calls[f.pos] = c.calls[last]
		c.calls[f.pos].pos = f.pos
		c.calls[last] = nil
		c.calls = c.calls[:last]
	}
	switch {
	case c.state == Assigned:
		if slot && !c.fresh {
			c.tenant.pace.free(f.hash, now.Sub(f.since), !f.gaveUp, now)
			p.serveLocked(c.tenant, now)
		}
		if c.quiet() && !c.fresh {
			p.idleLocked(c, now)
		}
	case c.state == Draining && p.drainedLocked(c):
		p.teardownLocked(c, now)
	case c.state == Draining && slot && !ended:
		p.lingerLocked(c, now)
	}
	if p.phase == phaseReleased && p.inflight == 0 {
		p.stillLocked()
	}
}

// idleLocked begins c's idle time.
func (p *Pool) idleLocked(c *container, now time.Time) {
	c.idleSince = now
	p.unqueueThawLocked(c) // whoever wanted it has gone
	p.enterIdleLocked(c)
	p.soonerLocked(&c.timer, now.Add(lookAgain))
	if p.demand > 0 || p.thaws.len() > 0 { // somebody may be waiting for an idle one to evict
		p.dispatchLocked(now)
	}
}

// Tries of one call inside the pool.
const (
	maxUnstarted = 3 // tries of a call that has not started
	maxRepeats   = 1 // repeats of an idempotent call that may have
)

// Do runs one call on a container of its tenant's, assigning one if need be. What has not started is tried again, what may
// have started only if the call says idempotent. Errors are *errs.Error. With an error the Result says where the time
// went, and in which container if one took the call; it has no value.
//
// Of a pipeline the Result says what became of its steps, also with an error. It goes on in another container if its own is lost
// in a step that may fail.
func (p *Pool) Do(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	if req.Pipeline != "" {
		return p.doPipeline(ctx, req, sink)
	}
	return p.doTries(ctx, req, sink)
}

// doTries runs a call, or what is left of a pipeline, as often as may be until a container has taken it.
func (p *Pool) doTries(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	var tr tries
	req, sink = tr.watch(req, sink)
	for {
		res, err := p.try(ctx, req, sink)
		if err == nil {
			return res, nil
		}
		e := errs.From(err)
		if res.Resume != nil || len(res.Steps) > 0 || !tr.again(ctx, req, e) {
			return res, e
		}
		p.mu.Lock()
		p.counts.retries++
		p.mu.Unlock()
	}
}

// try runs the call once.
func (p *Pool) try(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	asked := time.Now()
	if req.Pipeline != "" {
		rested, refusal := p.rested(req)
		if refusal != nil {
			return &call.Result{}, refusal
		}
		req = rested
	}
	f, refusal := p.acquire(ctx, req)
	if refusal != nil {
		return &call.Result{Stages: call.Stages{Queue: time.Since(asked)}}, refusal
	}
	if f.c.fresh {
		return p.doFresh(ctx, f, req, sink)
	}
	if req.CompileOnly {
		return p.compile(ctx, f, req)
	}
	began := time.Now()
	res, err := f.c.conn.Do(ctx, f.outside(req), sink, f.settled)
	if err == nil {
		p.giveBack(f, nil)
	} else {
		err = p.failed(f, req, errs.From(err))
	}
	return p.finish(f, res, err, began)
}

// failed says why a call has failed and gives its slot back; in this order, since a container that is on its way out goes
// with its last slot, and with it what can be told of its end.
func (p *Pool) failed(f *flight, req *call.Request, e *errs.Error) *errs.Error {
	e = p.explainLoss(f.c, p.explainTimeout(f.c, e), req.Deadline)
	p.giveBack(f, e)
	return e
}

// finish completes the result, or says of a failed call where it ran. began is when the container got the call.
func (p *Pool) finish(f *flight, res *call.Result, err error, began time.Time) (*call.Result, error) {
	if err != nil {
		failed := &call.Result{Stages: call.Stages{Run: time.Since(began)}}
		if res != nil {
			failed.Steps, failed.Resume = res.Steps, res.Resume
		}
		res = failed
	}
	res.Container, res.Start, res.Isolation = f.c.id, f.start, p.cfg.Engine.Isolation()
	res.Stages.Queue, res.Stages.Assign = f.queue, f.assign
	return res, err
}

// explainLoss replaces a sandbox_lost of the link by what the wait status and the counters say. That is known after lossWait
// at most, unless the machine is overloaded: the truth is worth waiting for while the call still has time.
func (p *Pool) explainLoss(c *container, e *errs.Error, deadline time.Time) *errs.Error {
	if e.Kind != errs.SandboxLost {
		return e
	}
	left := time.Duration(0)
	if !deadline.IsZero() {
		left = min(max(time.Until(deadline), 0), lossSlack)
	}
	limit := time.NewTimer(left + lossWait)
	defer limit.Stop()
	select {
	case <-c.lost:
		return c.fails(e.WhetherStarted(), e)
	case <-p.released:
		return loss{kind: lossController}.fails(e.WhetherStarted(), e)
	case <-limit.C:
		return e
	}
}
