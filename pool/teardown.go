package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// Bounds of one attempt to destroy a container, and of the pauses between attempts.
const (
	destroyTimeout  = 30 * time.Second
	destroyRetryMin = 200 * time.Millisecond
	destroyRetryMax = 30 * time.Second
)

// teardownLocked begins the destruction of c, once. It is repeated until nothing is left: a container that cannot be
// destroyed keeps its uids, its charge and its place in the leak gauge.
func (p *Pool) teardownLocked(c *container, now time.Time) {
	if c.tearing {
		return
	}
	c.tearing = true
	p.going++
	p.goingSize += c.charge
	p.unqueueThawLocked(c)
	c.setPowerLocked(c.power)
	p.stopTimerLocked(&c.timer)
	if c.cause == CauseTainted {
		p.laterLocked(func() { c.engine.Kill() }) // what it does must end now, not when a teardown has its turn
	}
	p.laterLocked(func() { p.teardown(c) })
}

func (p *Pool) teardown(c *container) {
	if !c.fresh { // a caller waits for a fresh one
		p.tearing <- struct{}{}
		defer func() { <-p.tearing }()
	}
	err := p.undo(c)
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if err != nil {
		c.failures++
		if c.failures == 1 {
			p.counts.leaking++
		}
		p.cfg.Logger.Error("a container could not be destroyed", "container", c.id, "cause", c.cause, "tries", c.failures, "err", err)
		if p.phase == phaseReleased {
			return // the next process finds it
		}
		p.setTimerLocked(&c.timer, now.Add(backoff(c.failures-1, destroyRetryMin, destroyRetryMax)))
		return
	}
	p.buryLocked(c, now)
}

// undo removes everything that make has made, in the opposite order. Idempotent.
func (p *Pool) undo(c *container) error {
	if c.conn != nil {
		p.hearOut(c)
		c.conn.Close()
	}
	if c.listener != nil {
		c.listener.Close()
	}
	c.door.Close()
	if err := p.destroy(c); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(p.cfg.linkDir(c.id)), os.RemoveAll(p.cfg.secretDir(c.id)))
}

// hearOut lets the link read what a lost container had still said: a refusal may be among it.
func (p *Pool) hearOut(c *container) {
	const limit = time.Second
	p.mu.Lock()
	lost := c.loss != nil
	p.mu.Unlock()
	if lost {
		wait(c.conn.Done(), limit)
	}
}

func (p *Pool) destroy(c *container) error {
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout) // must go on when the pool closes
	defer cancel()
	if c.engine == nil && c.attempts {
		// Create failed: nothing of it remains, or List shows what does. Its uids must not be used again before that is known.
		found, err := p.cfg.Engine.List(ctx)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		for _, e := range found {
			if e.ID() == c.id {
				c.engine = e
			}
		}
	}
	if c.engine == nil {
		return nil
	}
	return c.engine.Destroy(ctx)
}

// buryLocked forgets a container of which nothing is left.
func (p *Pool) buryLocked(c *container, now time.Time) {
	p.setStateLocked(c, Destroyed)
	if c.failures > 0 {
		p.counts.leaking--
	}
	p.going--
	p.chargeLocked(c, 0)
	delete(p.containers, c.id)
	if p.destroyed != nil {
		p.destroyed[c.id] = struct{}{}
	}
	p.uids.release(c.uid, c.id)
	p.counts.recycled[c.cause]++
	if !c.readyAt.IsZero() {
		r := Recycled{Container: c.id, Tenant: c.latch, Cause: c.cause, Age: now.Sub(c.created), Calls: c.served}
		p.noteLocked(func(o Observer) { o.Recycled(r) })
		p.cfg.Logger.Debug("a container was recycled", "container", c.id, "tenant", c.latch, "cause", c.cause, "calls", c.served)
	}
	close(c.gone)
	if c.tenant != nil {
		c.tenant.remains--
		p.wantLocked(c.tenant, now)
	}
	if p.phase == phaseClosing && len(p.containers) == 0 {
		close(p.empty)
	}
	p.dispatchLocked(now)
}

// backoff is the pause before try n (from 0): exponential, with jitter so that many do not come back together.
func backoff(n int, least, most time.Duration) time.Duration {
	d := most
	if n < 20 {
		d = min(least<<n, most)
	}
	return d/2 + rand.N(d/2+1)
}
