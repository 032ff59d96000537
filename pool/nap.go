package pool

import (
	"context"
	"errors"
	"time"

	"paddock/internal/tenant"
)

// An idle sandbox of gVisor is not idle: its sentry judges its own latencies every 0.4 ms, which takes 3.4 % of a core
// (runsc of February 2026), and four warm ones more than all else of an idle service. So warm containers that nobody has
// claimed for NapAfter are stopped as frozen ones are. They stay Ready, and charged in full, so that waking one (0.3 to 1 ms,
// beside the writing of the latch) needs nobody's leave; a claim wakes the next one ahead of time.

// DefaultNapAfter is how long nobody has claimed a container when the warm ones take a nap.
const DefaultNapAfter = 10 * time.Second

// rest says whether a Ready container is stopped.
type rest uint8

const (
	awake   rest = iota
	falling      // an engine call is under way
	asleep
	waking // an engine call is under way
)

// naps says whether warm containers of this pool's engine are stopped while nobody wants them.
func (p *Pool) naps() bool {
	return p.cfg.NapAfter > 0 && p.cfg.Engine.Isolation() == tenant.IsolationGVisor
}

// setRestLocked wakes whoever waits for the change.
func (c *container) setRestLocked(to rest) {
	c.rest = to
	c.setPowerLocked(c.power)
}

// dozeLocked stops c if it has been warm and unclaimed for long enough, and returns when to look at it again; zero if
// never.
func (p *Pool) dozeLocked(c *container, now time.Time) time.Time {
	if !p.naps() || c.rest != awake || c.sleepless || p.phase != phaseOpen {
		return time.Time{}
	}
	since := c.readyAt
	if at := p.stockLocked(c.size).claims.at; at.After(since) {
		since = at
	}
	if due := since.Add(p.cfg.NapAfter); now.Before(due) {
		return due
	}
	c.setRestLocked(falling)
	p.laterLocked(func() { p.fallAsleep(c) })
	return time.Time{}
}

func (p *Pool) fallAsleep(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.EngineTimeout)
	defer cancel()
	err := c.engine.Freeze(ctx)
	p.mu.Lock()
	defer p.unlock()
	c.setRestLocked(asleep)
	if err == nil || c.tearing {
		return
	}
	p.counts.freezeFailed++
	p.cfg.Logger.Warn("a warm container could not be stopped and stays awake", "container", c.id, "err", err)
	c.sleepless = true // it may be half stopped
	p.rouseLocked(c)
}

// popReadyLocked takes the warm container that has waited longest, waking it and the one after it.
func (p *Pool) popReadyLocked(s *stock) *container {
	c, ok := s.ready.popFront()
	if !ok {
		return nil
	}
	p.rouseLocked(c)
	if next, ok := s.ready.front(); ok {
		p.rouseLocked(next)
	}
	return c
}

func (p *Pool) rouseLocked(c *container) {
	if c.rest == asleep {
		c.setRestLocked(waking)
		p.laterLocked(func() { p.wakeUp(c) })
	}
}

func (p *Pool) wakeUp(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.EngineTimeout)
	defer cancel()
	err := c.engine.Thaw(ctx)
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if err != nil && !c.tearing {
		p.counts.thawFailed++
		p.cfg.Logger.Warn("a warm container could not be woken and is destroyed", "container", c.id, "err", err)
		p.failLocked(c, CauseThaw, now)
		p.dispatchLocked(now)
	}
	c.setRestLocked(awake)
	if c.state == Ready {
		p.visitLocked(c, now)
	}
}

// awaitAwake returns when c runs, or is lost. Once the pool has stopped nobody wakes it any more: that is an error.
func (p *Pool) awaitAwake(c *container) error {
	for {
		p.mu.Lock()
		p.rouseLocked(c) // it may have been falling asleep when it was claimed
		if c.rest == awake || c.lostLocked() {
			p.unlock()
			return nil
		}
		changed := c.changeLocked()
		p.unlock()
		select {
		case <-changed:
		case <-p.stopped:
			return errStopped
		}
	}
}

var errStopped = errors.New("the pool has stopped")
