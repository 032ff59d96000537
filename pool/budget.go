package pool

import (
	"maps"
	"math"
	"slices"
	"time"
)

// The memory budget: limits of containers that can grow (warm ones too) + what frozen ones really use + the reserve. A
// frozen container cannot grow, so thawing one is an admission step.

// chargeLocked sets what c counts for.
func (p *Pool) chargeLocked(c *container, bytes int64) {
	more := bytes - c.charge
	p.committed += more
	if c.tearing {
		p.goingSize += more
	}
	if c.idleNode.in != nil {
		p.idleSize += more
	}
	c.charge = bytes
}

// enterIdleLocked and leaveIdleLocked keep what could be evicted, and what of it could be frozen.
func (p *Pool) enterIdleLocked(c *container) {
	if c.idleNode.in == nil {
		p.idle.pushBack(&c.idleNode)
		p.idleSize += c.charge
	}
	if c.power == powerOn {
		p.awake.pushBack(&c.awakeNode)
	}
}

func (p *Pool) leaveIdleLocked(c *container) {
	if p.idle.remove(&c.idleNode) {
		p.idleSize -= c.charge
	}
	p.awake.remove(&c.awakeNode)
}

// freeLocked is what may still be charged; negative when adopted containers are more than the budget holds.
func (p *Pool) freeLocked() int64 {
	if p.cfg.MemoryBudgetBytes == 0 {
		return math.MaxInt64 / 2
	}
	return p.cfg.MemoryBudgetBytes - p.cfg.ReserveBytes - p.committed
}

// fullLocked says that a container for one more tenant would have to wait until somebody's calls end.
func (p *Pool) fullLocked(s *stock) bool {
	if s.ready.len() > 0 || p.idle.len() > 0 {
		return false
	}
	return len(p.containers)-p.going >= p.maxContainers || p.freeLocked()+p.goingSize+p.freezingSize < p.limitOf(s.size)
}

// fitsLocked says that there is room for one more container of a size, or will be when what is going is gone.
func (p *Pool) fitsLocked(s *stock) bool {
	return len(p.containers)-p.going < p.maxContainers && p.freeLocked()+p.goingSize >= p.limitOf(s.size)
}

// makeRoomLocked makes room for what waits, with the least harm: idle containers are frozen ahead of time, then idle
// assignments are evicted, least recently used first, and then warm containers go of which nobody waits for one. What is on
// its way out counts as gone.
func (p *Pool) makeRoomLocked(now time.Time) {
	for need := p.roomWantedLocked(); p.freeLocked()+p.goingSize+p.freezingSize < need; {
		if c, ok := p.awake.front(); ok {
			p.freezeLocked(c)
		} else if !p.evictLocked(now) && !p.shedReadyLocked(now) {
			break
		}
	}
	for p.crowdedLocked() && (p.evictLocked(now) || p.shedReadyLocked(now)) {
	}
}

func (p *Pool) evictLocked(now time.Time) bool {
	c, ok := p.idle.front()
	if ok {
		p.counts.evicted++
		p.drainLocked(c, CauseEvicted, now)
	}
	return ok
}

// shedReadyLocked gives up a warm container of a size that nobody waits for, unusual ones first.
func (p *Pool) shedReadyLocked(now time.Time) bool {
	if p.thaws.len() == 0 && p.shortLocked() == 0 {
		return false
	}
	var from *stock
	for _, s := range p.stocks {
		if s.ready.len() > 0 && s.demand == 0 && (from == nil || from == p.usual) {
			from = s
		}
	}
	if from == nil {
		return false
	}
	c, _ := from.ready.front()
	p.drainLocked(c, CauseEvicted, now)
	return true
}

// shortLocked is how many containers waiting calls have paid for that are not even being made.
func (p *Pool) shortLocked() (n int) {
	if p.demand == 0 {
		return 0
	}
	for _, s := range p.stocks {
		n += s.short()
	}
	return n
}

// crowdedLocked says whether waiting calls need containers beyond the maximum, those that are going not counted.
func (p *Pool) crowdedLocked() bool {
	short := p.shortLocked()
	return short > 0 && len(p.containers)-p.going+short > p.maxContainers
}

// roomWantedLocked is how many bytes what waits could get, in its order, if all that can go went: nobody is evicted for
// what would not fit even then.
func (p *Pool) roomWantedLocked() int64 {
	most, need := p.freeLocked()+p.goingSize+p.idleSize, int64(0)
	for _, s := range p.stocks {
		if s.demand == 0 {
			most += int64(s.ready.len()) * p.limitOf(s.size)
		}
	}
	for e := p.thaws.head; e != nil; e = e.next {
		one := e.v.limit - e.v.charge
		if need+one > most {
			return need
		}
		need += one
	}
	if p.demand == 0 {
		return need
	}
	for _, s := range slices.SortedFunc(maps.Values(p.stocks), inTurn) {
		one := p.limitOf(s.size)
		fit := max(0, (most-need)/one)
		need += min(fit, int64(s.short())) * one
	}
	return need
}
