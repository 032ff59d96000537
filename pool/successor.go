package pool

import (
	"context"
	"time"

	"paddock/internal/call"
)

// A container that has reached max_life, or is not of its tenant's size any more, is replaced before it drains while its
// tenant is active: its successor is bound and loaded first, so that no call pays for the change.

const (
	successorActive = time.Minute      // no call for so long: the next one may as well pay
	successorWait   = 30 * time.Second // for a warm container to become free
	successorLoad   = 5 * time.Second  // for each of its codes
)

// awaitSuccessorLocked says whether c's draining waits for a successor, and sees to it that there is one.
func (p *Pool) awaitSuccessorLocked(c *container, cause Cause, now time.Time) bool {
	if c.successor {
		return true // succeed drains it
	}
	if c.dueAt.IsZero() {
		c.dueAt = now
	}
	if c.quiet() && now.Sub(c.idleSince) > successorActive || len(c.tenant.live) > 1 {
		return false
	}
	if s := c.tenant.stock; !s.free() || cause == CauseRollout && p.oldFirstLocked(s) {
		if now.Sub(c.dueAt) > successorWait {
			return false
		}
		s.expectLocked(now)
		p.refillLocked(now)
		p.setTimerLocked(&c.timer, now.Add(lookAgain))
		return true
	}
	p.replaceLocked(c, cause, now)
	return true
}

// replaceLocked takes a Ready container of the tenant's size to be c's successor. There must be one.
func (p *Pool) replaceLocked(c *container, cause Cause, now time.Time) {
	c.successor = true
	s := p.popReadyLocked(c.tenant.stock)
	c.tenant.granting++
	p.assignToLocked(s, c.tenant, false, now)
	s.extra = c.extra
	s.setPowerLocked(powerBinding)
	codes := append([]call.Code(nil), c.recent...)
	p.laterLocked(func() { p.succeed(c, s, cause, codes) })
	p.refillLocked(now)
}

// succeed binds and loads s, then drains c.
func (p *Pool) succeed(c, s *container, cause Cause, codes []call.Code) {
	err := p.latch(s)
	if l, ok := s.conn.(Loader); ok && err == nil {
		for _, code := range codes {
			ctx, cancel := context.WithTimeout(context.Background(), successorLoad)
			err := l.Load(ctx, code)
			cancel()
			if err != nil {
				break // the calls will say
			}
		}
	}
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if err != nil {
		p.cfg.Logger.Error("a successor could not be bound", "container", s.id, "err", err)
		p.failLocked(s, CauseBind, now)
	}
	p.drainLocked(c, cause, now)
	p.dispatchLocked(now)
}
