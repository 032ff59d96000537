package pool

import (
	"context"
	"time"
)

// burning is the share of one CPU above which a container with no call is frozen at once.
const burning = 0.05

// lookAgain is how soon a container that was just used is looked at; the pauses double while it stays idle.
const (
	lookAgain     = time.Second
	lookAgainMost = 30 * time.Second
)

// freezeLocked begins to switch an idle container off.
func (p *Pool) freezeLocked(c *container) {
	p.awake.remove(&c.awakeNode)
	p.freezingSize += c.limit
	c.setPowerLocked(powerFreezing)
	p.laterLocked(func() { p.freeze(c) })
}

func (p *Pool) freeze(c *container) {
	c.door.CloseTunnels()
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.EngineTimeout)
	defer cancel()
	err := c.engine.Freeze(ctx)
	charge, used := c.limit, Usage{}
	if err == nil {
		if u, err := c.engine.Usage(ctx); err == nil {
			charge, used = min(max(u.MemoryBytes, 0), c.limit), u
		}
	}
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	p.freezingSize -= c.limit
	if err != nil {
		if !c.tearing {
			p.counts.freezeFailed++
			p.cfg.Logger.Warn("a container could not be frozen and is destroyed", "container", c.id, "err", err)
			p.failLocked(c, CauseFreeze, now)
			p.dispatchLocked(now)
		}
		return
	}
	p.counts.frozen++
	c.setPowerLocked(powerFrozen) // a call that came meanwhile asks for the thaw
	if c.tearing {
		return
	}
	if used.hitLimit() {
		p.spoilLocked(c, used, now)
		return
	}
	p.chargeLocked(c, charge)
	p.visitLocked(c, now)
	p.dispatchLocked(now)
}

// requestThawLocked begins to switch a frozen container on, or queues it until there is memory for it.
func (p *Pool) requestThawLocked(c *container) {
	need := c.limit - c.charge
	if p.thaws.len() > 0 || p.freeLocked() < need {
		c.setPowerLocked(powerQueued)
		p.thaws.pushBack(&c.thawNode)
		p.makeRoomLocked(time.Now())
		return
	}
	p.thawLocked(c)
}

func (p *Pool) thawLocked(c *container) {
	p.chargeLocked(c, c.limit)
	c.setPowerLocked(powerThawing)
	p.laterLocked(func() { p.thaw(c) })
}

// admitThawsLocked switches on what has waited for memory, in the order of asking.
func (p *Pool) admitThawsLocked() {
	for {
		c, ok := p.thaws.front()
		if !ok || p.freeLocked() < c.limit-c.charge {
			return
		}
		p.unqueueThawLocked(c)
		p.thawLocked(c)
	}
}

// unqueueThawLocked makes c plainly frozen again if it waits for memory; calls that still want it ask anew.
func (p *Pool) unqueueThawLocked(c *container) {
	if p.thaws.remove(&c.thawNode) {
		c.setPowerLocked(powerFrozen)
	}
}

func (p *Pool) thaw(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.EngineTimeout)
	defer cancel()
	err := c.engine.Thaw(ctx)
	if err == nil && !p.turnsAgain(ctx, c) {
		p.lose(c, loss{lossKilled, CauseTainted}) // held against no code: what is in it now has not begun
		return
	}
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if err != nil {
		if !c.tearing {
			p.counts.thawFailed++
			p.cfg.Logger.Warn("a container could not be thawed and is destroyed", "container", c.id, "err", err)
			p.failLocked(c, CauseThaw, now)
			p.dispatchLocked(now)
		}
		return
	}
	p.counts.thawed++
	c.sampled = time.Time{}
	c.setPowerLocked(powerOn)
	if c.idleNode.in != nil {
		p.enterIdleLocked(c) // nobody wants it any more
	}
	if !c.tearing && c.state == Assigned {
		p.setTimerLocked(&c.timer, now.Add(lookAgain))
	}
}

// sampleLocked looks in the background at the CPU that an idle container burns, and whether it ran into a limit.
func (p *Pool) sampleLocked(c *container) {
	if c.sampling || c.fresh {
		return
	}
	c.sampling = true
	p.laterLocked(func() { p.sample(c) })
}

func (p *Pool) sample(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.EngineTimeout)
	defer cancel()
	u, err := c.engine.Usage(ctx)
	p.mu.Lock()
	defer p.unlock()
	c.sampling = false
	now := time.Now()
	if err == nil && u.hitLimit() {
		p.spoilLocked(c, u, now)
		return
	}
	before, cpu := c.sampled, c.sampledCPU
	if err != nil || c.state != Assigned || c.power != powerOn || !c.quiet() || now.Sub(before) < lookAgain/2 {
		return
	}
	c.sampled, c.sampledCPU = now, u.CPU
	if !before.After(c.idleSince) {
		return // the first look since it became idle
	}
	if share := float64(u.CPU-cpu) / float64(now.Sub(before)); share > burning {
		p.counts.burning++
		c.suspect.burned = true
		p.freezeLocked(c)
	}
}
