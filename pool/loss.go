package pool

import (
	"context"
	"fmt"
	"time"

	"paddock/internal/errs"
)

// Bounds of finding out why a container was lost.
const (
	exitWait   = 200 * time.Millisecond             // after the connection ended, for the process to be gone
	killWait   = 250 * time.Millisecond             // after it was killed for living on without a link
	slowWait   = 2 * time.Second                    // more, on a machine that is overloaded: no other end must be taken for a breach
	countLimit = 20 * time.Millisecond              // for the counters of one that takes longer to end
	lossWait   = exitWait + killWait + 2*countLimit // for a call whose connection ended, until somebody has said why
	lossSlack  = 5 * time.Second                    // more, where the call has time
)

type lossKind uint8

const (
	lossCrashed lossKind = iota
	lossOutOfMemory
	lossPids
	lossProtocol
	lossKilled
	lossRemoved    // its tenant was suspended or deleted
	lossController // this process lets go of it
)

// loss is why the calls of a lost container fail.
type loss struct {
	kind  lossKind
	cause Cause
}

// blames says whether the tenant's code is to be charged with the loss.
func (l loss) blames() bool {
	switch l.cause {
	case CauseCrashed, CauseOutOfMemory, CausePids, CauseProtocol, CauseStuck:
		return true
	}
	return false
}

// fails returns the error of a call that was on the lost container.
func (l loss) fails(started errs.Started, err error) *errs.Error {
	e := &errs.Error{Kind: errs.SandboxLost, Started: started, Op: "pool.Do", Err: err}
	switch l.kind {
	case lossOutOfMemory:
		e.Kind, e.Message = errs.OutOfMemory, "the sandbox ran out of memory"
		if started == errs.StartedMaybe {
			e.Started = "" // it has started: code has used the memory
		}
	case lossPids:
		e.Cause, e.Message = "pids", "the sandbox ended at its limit of processes and threads"
	case lossProtocol:
		e.Cause, e.Message = "protocol", "the sandbox broke the protocol that it is spoken to with and was destroyed"
	case lossKilled:
		e.Cause, e.Message = "killed", "the sandbox was killed: another call of this tenant did not stop at its deadline"
	case lossRemoved:
		e.Kind, e.Message = errs.Cancelled, "the call was ended because its tenant was suspended or removed"
	case lossController:
		e.Cause, e.Fault = "controller", errs.FaultPlatform
		e.Message = "the controller was stopped while the call ran"
	default:
		e.Cause, e.Message = "crashed", "the sandbox ended while the call ran"
	}
	if l.cause == CauseOverdue {
		e.Message = "the sandbox was killed: the call outlived the time that a draining sandbox has"
		e.Fault = errs.FaultPlatform
	}
	return e
}

// fails returns the error of a call that was on c, which is lost.
func (c *container) fails(started errs.Started, err error) *errs.Error {
	e := c.loss.fails(started, err)
	if c.loss.kind == lossOutOfMemory {
		e.Message = fmt.Sprintf("the sandbox ran out of its %d MiB of memory; use less, or ask for a higher limit", c.size>>20)
	}
	return e
}

// classify tells why a container ended from wait status and counters; alive: the link ended, and the process did not by
// itself.
func classify(x Exit, breached, alive bool) loss {
	switch {
	case x.OOMKilled, x.HeapAbort:
		return loss{lossOutOfMemory, CauseOutOfMemory}
	case breached:
		return loss{lossProtocol, CauseProtocol}
	case x.PidsHit:
		return loss{lossPids, CausePids}
	case alive:
		return loss{lossProtocol, CauseProtocol}
	}
	return loss{lossCrashed, CauseCrashed}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// watch follows c from Ready to its end. One goroutine per container, asleep.
func (p *Pool) watch(c *container) {
	tainted := c.conn.Tainted()
	for {
		select {
		case <-c.conn.Stuck():
			p.lose(c, loss{lossKilled, CauseStuck})
			return
		case <-tainted:
			if closed(c.conn.Stuck()) {
				continue
			}
			p.taint(c)
			tainted = nil
			continue
		case <-c.conn.Done():
		case <-c.engine.Exited():
		case <-c.gone:
			return
		case <-p.stopped:
			return
		}
		if p.inService(c) {
			p.lose(c, p.autopsy(c))
		}
		return
	}
}

func (p *Pool) inService(c *container) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase != phaseReleased && !c.tearing
}

// autopsy waits, bounded, until c's end can be told.
func (p *Pool) autopsy(c *container) loss {
	breached := c.conn.Breached()
	exited := !breached && wait(c.engine.Exited(), exitWait)
	if !exited && !breached && SaysHeapIsFull(c.engine.Output()) {
		exited = wait(c.engine.Exited(), slowWait) // it is about to abort; killed, it would be taken for one that lives on
	}
	told := exited
	if !exited {
		if err := c.engine.Kill(); err != nil {
			p.cfg.Logger.Error("a container without a link could not be killed", "container", c.id, "err", err)
		}
		told = wait(c.engine.Exited(), killWait) || !breached && wait(c.engine.Exited(), slowWait)
	}
	x := c.engine.Exit()
	if !told {
		x = c.counted()
	}
	l := classify(x, breached, !exited && !endedByItself(x))
	p.cfg.Logger.Info("a container was lost", "container", c.id, "tenant", c.latch, "cause", l.cause, "code", x.Code, "signal", x.Signal,
		"link", c.conn.Err(), "output", tail(c))
	return l
}

// counted is what the counters say of an end whose wait status is slow to come: from a daemon under load, say, or because
// the first process has many others to wait for.
func (c *container) counted() Exit {
	ctx, cancel := context.WithTimeout(context.Background(), countLimit)
	defer cancel()
	u, err := c.engine.Usage(ctx)
	if err != nil {
		return Exit{Code: -1}
	}
	return Exit{Code: -1, OOMKilled: u.OOMKills > 0, PidsHit: u.PidsRefused > 0}
}

// endedByItself says whether the wait status is another than that of the kill: the end was only slow.
func endedByItself(x Exit) bool {
	const killed = 9
	return x.Known && x.Signal != killed && x.Code != 128+killed // a runtime may report a signal as an exit code
}

func wait(ch <-chan struct{}, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C:
		return false
	}
}

func (p *Pool) taint(c *container) {
	p.mu.Lock()
	defer p.unlock()
	p.taintLocked(c, time.Now())
}

func (p *Pool) taintLocked(c *container, now time.Time) {
	if c.serving() {
		p.strikeLingeringLocked(c, now)
	}
	p.drainLocked(c, CauseTainted, now)
	p.dispatchLocked(now)
}

func (p *Pool) lose(c *container, l loss) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	p.loseLocked(c, l, now)
	p.dispatchLocked(now)
}

// loseLocked fails c and tells its calls why. Whoever is first decides.
func (p *Pool) loseLocked(c *container, l loss, now time.Time) {
	if c.tearing || c.state == Destroyed || c.loss != nil {
		return
	}
	c.loss = &l
	close(c.lost)
	p.counts.lost[l.cause]++
	if c.tenant != nil && l.blames() && !c.spoiled && !c.charged { // once is enough
		p.strikeLocked(c, now)
	}
	p.laterLocked(func() { c.engine.Kill() }) // now, not when a teardown has its turn
	p.failLocked(c, l.cause, now)
}

// lostLocked says whether no call can be begun on c any more.
func (c *container) lostLocked() bool {
	return c.loss != nil || c.tearing || c.state == Failed || c.spoiled
}

// lostBeforeLocked is the error of a call that was to begin on c: it may begin elsewhere, unless its tenant is gone.
func (c *container) lostBeforeLocked() *errs.Error {
	if c.loss != nil && c.loss.kind == lossRemoved {
		return c.loss.fails(errs.StartedNo, nil)
	}
	return unstarted("the sandbox was lost before the call reached it")
}
