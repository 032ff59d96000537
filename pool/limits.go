package pool

import (
	"context"
	"fmt"
	"strings"
	"time"

	"paddock/internal/errs"
)

// A container that ran into a limit of processes or memory and lived on is spoiled: it gets no new call and is destroyed
// when those in flight are over. They are not ended for it, since honest code may bear a refused fork or a dead child. The
// counters are read after every abnormal end of a call, when an idle container's CPU is looked at, when it is frozen, and
// now and then while it is busy; never on the way of a call that succeeds.

const (
	lookPause = 100 * time.Millisecond // between looks at a container whose calls keep failing
	lookLimit = 100 * time.Millisecond // of a look that a caller waits for
)

// hitLimit says whether the kernel refused a fork or killed a process for want of memory. Both counters are zero in a new
// container.
func (u Usage) hitLimit() bool { return u.PidsRefused > 0 || u.OOMKills > 0 }

// limitText says the same to the tenant.
func (u Usage) limitText() string {
	var all []string
	if u.PidsRefused > 0 {
		all = append(all, fmt.Sprintf("the sandbox was at its limit of processes and threads (%d refused)", u.PidsRefused))
	}
	if u.OOMKills > 0 {
		all = append(all, fmt.Sprintf("the sandbox was out of memory (%d processes killed)", u.OOMKills))
	}
	return strings.Join(all, "; ")
}

// lookLocked has c's counters read soon, in the background; at most every lookPause, however many calls fail.
func (p *Pool) lookLocked(c *container, now time.Time) {
	if c.state != Assigned || c.fresh {
		return
	}
	if !c.sampling && now.Sub(c.looked) >= lookPause {
		c.looked = now
		p.sampleLocked(c)
		return
	}
	p.soonerLocked(&c.timer, now.Add(lookPause)) // the look under way may have been too early
}

// inspect reads c's counters now.
func (p *Pool) inspect(ctx context.Context, c *container) Usage {
	u, err := c.engine.Usage(ctx)
	if err != nil || !u.hitLimit() {
		return Usage{} // of one that has ended others tell why
	}
	p.mu.Lock()
	defer p.unlock()
	p.spoilLocked(c, u, time.Now())
	return u
}

// spoilLocked takes a container that ran into a limit out of service for good.
func (p *Pool) spoilLocked(c *container, u Usage, now time.Time) {
	if c.state != Assigned || c.fresh {
		return // on its way out
	}
	select {
	case <-c.conn.Done(): // it has ended, and the autopsy says of what
		return
	default:
	}
	c.spoiled = true
	p.cfg.Logger.Warn("a container is destroyed because it ran into a limit", "container", c.id, "tenant", c.latch,
		"reason", "limit", "forks_refused", u.PidsRefused, "oom_kills", u.OOMKills, "calls", c.inflight)
	p.strikeLocked(c, now)
	p.drainLocked(c, CauseTainted, now)
	p.dispatchLocked(now)
}

// explainTimeout looks at the counters before a call that ran out of time gives its slot back: no other follows it into a
// spoiled container, and its caller hears of the limit.
func (p *Pool) explainTimeout(c *container, e *errs.Error) *errs.Error {
	if e.Kind != errs.Timeout || e.WhetherStarted() == errs.StartedNo {
		return e
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookLimit) // the caller's has ended
	defer cancel()
	u := p.inspect(ctx, c)
	if !u.hitLimit() {
		return e
	}
	told := *e
	told.Message += "; " + u.limitText()
	return &told
}
