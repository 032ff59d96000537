package pool

import (
	"math"
	"time"
)

// The memory budget: limits of containers that can grow (warm ones too) + what frozen ones really use + the reserve. A
// frozen container cannot grow, so thawing one is an admission step.

// chargeLocked sets what c counts for.
func (p *Pool) chargeLocked(c *container, bytes int64) {
	p.committed += bytes - c.charge
	if c.tearing {
		p.goingSize += bytes - c.charge
	}
	c.charge = bytes
}

// freeLocked is what may still be charged; negative when adopted containers are more than the budget holds.
func (p *Pool) freeLocked() int64 {
	if p.cfg.MemoryBudgetBytes == 0 {
		return math.MaxInt64 / 2
	}
	return p.cfg.MemoryBudgetBytes - p.cfg.ReserveBytes - p.committed
}

// makeRoomLocked evicts assignments that nobody uses, least recently used first, until what waits fits, counting what is
// on its way out already. If there are none, thaws also push out warm containers: a tenant's state is worth more.
func (p *Pool) makeRoomLocked(now time.Time) {
	for p.crampedLocked() {
		if c, ok := p.idle.front(); ok {
			p.counts.evicted++
			p.drainLocked(c, CauseEvicted, now)
			continue
		}
		c, ok := p.ready.front()
		if !ok || p.thawNeed == 0 {
			return
		}
		p.drainLocked(c, CauseEvicted, now)
	}
}

// crampedLocked says whether what waits does not fit, even when what is being destroyed is gone.
func (p *Pool) crampedLocked() bool {
	short := max(0, p.demand-p.ready.len()-p.states[Creating])
	need := p.thawNeed + int64(short)*p.cfg.limitBytes()
	if need > 0 && p.freeLocked()+p.goingSize < need {
		return true
	}
	return short > 0 && len(p.containers)-p.going+short > p.maxContainers
}
