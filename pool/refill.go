package pool

import (
	"cmp"
	"fmt"
	"time"
)

// Bounds of the pauses between failed creations, and the memory of the two averages.
const (
	createBackoffMin = 200 * time.Millisecond
	createBackoffMax = 30 * time.Second
	claimRateMemory  = 30 * time.Second // of the claim rate, exponential
	createTimeWeight = 0.3              // of the newest creation
	readyHeadroom    = 2.0              // warm containers per container claimed during one creation
	// A container is made some time after the claim that made room for it: making one takes a core for a tenth of a second,
	// which the first call of the tenant that has just come should not have to share. Where fewer than half of the warm
	// ones are left, there is no time to lose.
	afterClaim  = 50 * time.Millisecond
	giveUpAfter = 3 // failures in a row, before calls are refused at once
)

// refill is how fast containers are made: for how many is said by each stock's target, and never faster than what the engine
// bears. Guarded by Pool.mu.
type refill struct {
	open       bool // Start is over
	createTime time.Duration
	failures   int
	notBefore  time.Time
}

func (r *refill) succeeded(took time.Duration) {
	r.failures = 0
	if r.createTime == 0 {
		r.createTime = took
		return
	}
	r.createTime += time.Duration(createTimeWeight * float64(took-r.createTime))
}

func (r *refill) failed(now time.Time) {
	r.notBefore = now.Add(backoff(r.failures, createBackoffMin, createBackoffMax))
	r.failures++
}

// refillLocked starts as many creations as are wanted, allowed and affordable now.
func (p *Pool) refillLocked(now time.Time) {
	if p.phase != phaseOpen || !p.refill.open {
		return
	}
	for p.states[Creating] < p.cfg.CreateParallel && len(p.containers) < p.maxContainers {
		s, again := p.nextStockLocked(now)
		if s != nil && now.Before(p.refill.notBefore) {
			s, again = nil, p.refill.notBefore
		}
		if s == nil {
			if !again.IsZero() {
				p.setTimerLocked(&p.refilling, again)
			}
			return
		}
		p.turn = s.turn
		s.turn += 1 / float64(max(1, s.ring.len()))
		if err := p.launchLocked(s.size, now); err != nil {
			return // the next Destroyed gives uids back
		}
	}
}

// nextStockLocked returns of which size the next container should be made: of what waiting calls lack, before what there
// should be ahead of calls; nil if of none there is room for, and then when to look again. Among sizes that wait each has its
// turn, the more often the more tenants wait for it, so that no tenant gains by a size of its own.
func (p *Pool) nextStockLocked(now time.Time) (next *stock, again time.Time) {
	urgent := p.shortLocked() > 0 // also where there is no room yet: a warm one would take it away again
	for _, s := range p.stocks {
		wanted := urgent && s.short() > 0 || !urgent && p.lacksLocked(s, now, &again)
		if !wanted || p.freeLocked() < p.limitOf(s.size) {
			continue
		}
		if s.turn = max(s.turn, p.turn); next == nil || inTurn(s, next) < 0 {
			next = s
		}
	}
	return next, again
}

// lacksLocked says whether a warm container of a size should be made now that nobody waits for; if only soon, when.
func (p *Pool) lacksLocked(s *stock, now time.Time, again *time.Time) bool {
	target := p.targetLocked(s, now)
	if target+s.demand <= s.ready.len()+s.creating || p.thaws.len() > 0 { // a tenant's own container goes before a warm one
		return false
	}
	if calm := p.calmAtLocked(); now.Before(calm) && 2*s.ready.len() >= target {
		*again = sooner(*again, calm)
		return false
	}
	return true
}

// calmAtLocked is when the newest claim's first call is likely over.
func (p *Pool) calmAtLocked() (at time.Time) {
	for _, s := range p.stocks {
		if t := s.claims.at; t.After(at) {
			at = t
		}
	}
	return at.Add(afterClaim)
}

// inTurn orders stocks by whose turn it is.
func inTurn(a, b *stock) int { return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.size, b.size)) }

// hopelessLocked says that creations fail, and that none will be tried before the deadline.
func (p *Pool) hopelessLocked(s *stock, deadline, now time.Time) bool {
	return p.refill.failures >= giveUpAfter && s.ready.len() == 0 && p.states[Creating] == 0 &&
		!deadline.IsZero() && p.refill.notBefore.After(deadline)
}

// shedSurplusLocked drains the warm containers that the pool must not have any more, and one, the oldest, that demand does
// not ask for.
func (p *Pool) shedSurplusLocked(now time.Time) {
	for _, s := range p.stocks {
		for s.ready.len() > 0 && (s.ready.len() > p.max || p.states[Ready]+p.states[Assigned] > p.maxContainers) {
			c, _ := s.ready.front()
			p.drainLocked(c, CauseSurplus, now)
		}
		most := p.targetLocked(s, now) + 1
		if most == 1 && s != p.usual { // nobody has come for one for long
			most = 0
		}
		if c, ok := s.ready.front(); ok && s.ready.len() > most {
			p.drainLocked(c, CauseSurplus, now)
		}
	}
}

// Resize changes how many containers there should be; nil leaves a number as it is. Warm ones that are too
// many go at once, assigned ones as they come free.
func (p *Pool) Resize(minReady, maxReady, maxContainers *int) error {
	p.mu.Lock()
	defer p.unlock()
	lo, hi, all := p.min, p.max, p.maxContainers
	for _, f := range []struct {
		to   *int
		from *int
	}{{&lo, minReady}, {&hi, maxReady}, {&all, maxContainers}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	most := int(p.cfg.UIDCount / 2)
	switch {
	case lo < 0 || hi < lo:
		return fmt.Errorf("min ready %d, max ready %d: the first must be at least 0 and at most the second", lo, hi)
	case all < 1 || all < lo || all > most:
		return fmt.Errorf("max containers %d: it must be at least 1, at least min ready (%d), and at most %d", all, lo, most)
	}
	p.min, p.max, p.maxContainers = lo, hi, all
	now := time.Now()
	p.shedSurplusLocked(now)
	p.dispatchLocked(now)
	return nil
}
