package pool

import (
	"fmt"
	"math"
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

// refill decides how many warm containers there should be and how fast they are made: enough for what is claimed while one
// is made, never faster than what the engine bears. Guarded by Pool.mu.
type refill struct {
	open       bool    // Start is over
	rate       float64 // claims a second at rateAt
	rateAt     time.Time
	claimedAt  time.Time // of the newest claim
	createTime time.Duration
	failures   int
	notBefore  time.Time
}

func (r *refill) claimed(now time.Time) {
	r.rate = r.rateNow(now) + 1/claimRateMemory.Seconds()
	r.rateAt, r.claimedAt = now, now
}

func (r *refill) rateNow(now time.Time) float64 {
	if r.rateAt.IsZero() {
		return 0
	}
	return r.rate * math.Exp(-now.Sub(r.rateAt).Seconds()/claimRateMemory.Seconds())
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

// targetLocked is how many warm containers there should be.
func (p *Pool) targetLocked(now time.Time) int {
	byDemand := math.Ceil(p.refill.rateNow(now) * p.refill.createTime.Seconds() * readyHeadroom)
	return min(max(p.min, int(byDemand)), max(p.min, p.max), p.maxContainers)
}

// refillLocked starts as many creations as are wanted, allowed and affordable now.
func (p *Pool) refillLocked(now time.Time) {
	if p.phase != phaseOpen || !p.refill.open {
		return
	}
	for p.states[Creating] < p.cfg.CreateParallel {
		missing := p.targetLocked(now) + p.demand - p.ready.len() - p.states[Creating]
		if missing <= 0 || len(p.containers) >= p.maxContainers || p.freeLocked() < p.cfg.limitBytes() {
			return
		}
		if urgent := p.demand > p.ready.len()+p.states[Creating]; !urgent {
			if p.thaws.len() > 0 {
				return // a tenant's own container goes before a warm one
			}
			if calm := p.refill.claimedAt.Add(afterClaim); now.Before(calm) && 2*p.ready.len() >= p.targetLocked(now) {
				p.setTimerLocked(&p.refilling, calm)
				return
			}
		}
		if now.Before(p.refill.notBefore) {
			p.setTimerLocked(&p.refilling, p.refill.notBefore)
			return
		}
		if err := p.launchLocked(now); err != nil {
			return // the next Destroyed gives uids back
		}
	}
}

// hopelessLocked says that creations fail, and that none will be tried before the deadline.
func (p *Pool) hopelessLocked(deadline, now time.Time) bool {
	return p.refill.failures >= giveUpAfter && p.ready.len() == 0 && p.states[Creating] == 0 &&
		!deadline.IsZero() && p.refill.notBefore.After(deadline)
}

// shedSurplusLocked drains the warm containers that the pool must not have any more, and one, the oldest, that demand does
// not ask for.
func (p *Pool) shedSurplusLocked(now time.Time) {
	for p.ready.len() > 0 && (p.ready.len() > p.max || p.states[Ready]+p.states[Assigned] > p.maxContainers) {
		c, _ := p.ready.front()
		p.drainLocked(c, CauseSurplus, now)
	}
	if c, ok := p.ready.front(); ok && p.ready.len() > p.targetLocked(now)+1 {
		p.drainLocked(c, CauseSurplus, now)
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
