package pool

import (
	"context"
	"time"
)

// A call that was given up, or was answered while its code goes on, may have left its container's event loop standing still: a rule
// that refuses and then never comes to an end, say. The link knows only of a CANCEL that stays unanswered. Meanwhile the tenant's
// next calls would go down with the container. So it gets none until it has answered a PING, which a healthy one does at once.
// One that does not stalls: its tenant's calls go to another container, and it is given up if that lasts. While code goes on that
// nobody waits for, the question is repeated.

const (
	suspicion   = 300 * time.Millisecond // for PONG; longer than the link takes to find a CANCEL unanswered by an agent that is silent
	stallMost   = 2 * time.Second        // without PONG from then on, and a container is given up
	lingerAgain = 500 * time.Millisecond // between questions while code goes on whose call is over
)

// suspicions is what is thought of a container's event loop. Guarded by Pool.mu.
type suspicions struct {
	doubts  int       // how often there was reason
	open    bool      // no PONG has come since the last one: no calls
	stalled time.Time // since when a PONG is overdue
	asking  bool      // a goroutine asks
	inspect bool      // counters are to be read first: a call was given up
	again   timer
	burned  bool // it was frozen because it used the CPU with no call in it
}

func (p *Pool) suspectLocked(c *container, gaveUp bool) {
	if c.state != Assigned || c.fresh {
		return
	}
	c.suspect.doubts++
	c.suspect.open = true
	c.suspect.inspect = c.suspect.inspect || gaveUp
	p.askLocked(c)
}

func (p *Pool) askLocked(c *container) {
	if c.suspect.asking || c.state != Assigned {
		return
	}
	c.suspect.asking = true
	p.laterLocked(func() { p.ask(c) })
}

func (p *Pool) askAgainLocked(c *container) {
	if c.running > c.inflight && c.power == powerOn {
		p.askLocked(c)
	}
}

// ask sends PING until one that was sent after the last doubt has been answered, or c is given up.
func (p *Pool) ask(c *container) {
	for {
		p.mu.Lock()
		doubts, inspect := c.suspect.doubts, c.suspect.inspect
		c.suspect.inspect = false
		p.mu.Unlock()
		ctx, cancel := context.WithTimeout(p.ctx, suspicion)
		if inspect {
			p.inspect(ctx, c)
		}
		err := c.conn.Ping(ctx)
		lives := !closed(c.conn.Done())
		if err != nil && lives {
			<-ctx.Done() // it may have been refused at once, for too many without an answer
		}
		overdue := err != nil && lives && p.ctx.Err() == nil
		cancel()
		if p.heard(c, doubts, err == nil, overdue) {
			return
		}
	}
}

// heard takes in whether c has answered a PING that was sent after so many doubts, and says whether that is all for now.
func (p *Pool) heard(c *container, doubts int, turns, overdue bool) bool {
	p.mu.Lock()
	defer p.unlock()
	s, now := &c.suspect, time.Now()
	switch {
	case c.state != Assigned, !turns && !overdue: // others say what became of it
		s.asking = false
		return true
	case turns && s.doubts != doubts:
		return false
	case turns, c.power != powerOn: // what is switched off answers nothing
		s.asking, s.open, s.stalled = false, false, time.Time{}
		if c.running > c.inflight {
			s.again.fire = func(time.Time) { p.askAgainLocked(c) }
			p.setTimerLocked(&s.again, now.Add(lingerAgain))
		}
		p.serveLocked(c.tenant, now)
	case s.stalled.IsZero():
		s.open, s.stalled = true, now
	case now.Sub(s.stalled) >= stallMost:
		s.asking = false
		p.cfg.Logger.Warn("a container is destroyed because its event loop stands still after its calls have ended", "container", c.id,
			"tenant", c.latch, "calls", c.inflight)
		p.taintLocked(c, now)
		return true
	default:
		return false
	}
	p.wantLocked(c.tenant, now)
	p.dispatchLocked(now)
	return !s.asking
}

// turnsAgain says whether the event loop of a container that was just thawed turns. It is asked only of one that was frozen because it
// used the CPU with no call in it: that may have been a loop without end, in what the last call has left behind.
func (p *Pool) turnsAgain(ctx context.Context, c *container) bool {
	p.mu.Lock()
	burned := c.suspect.burned
	c.suspect.burned = false
	p.mu.Unlock()
	if !burned {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, suspicion)
	defer cancel()
	return c.conn.Ping(ctx) == nil
}

// suspects says whether a container that has room is under suspicion: waiting calls wait for that to clear up before they
// cost another container.
func (t *tenantState) suspects() bool {
	for _, c := range t.live {
		if c.suspect.open && c.suspect.stalled.IsZero() && c.inflight < t.policy.CallsPerContainer {
			return true
		}
	}
	return false
}
