package pool

import (
	"context"
	"fmt"
	"time"

	"paddock/internal/tenant"
)

// Warm containers have the usual share of a CPU. Binding gives a container its tenant's before the first byte of the tenant
// goes in, and a changed policy changes it while calls run: unlike memory it is nothing but a number of the control group.

// cpuOf is what a tenant's containers may use of a CPU, each.
func (p *Pool) cpuOf(policy *tenant.Policy) int64 {
	if policy.CPUMillis > 0 {
		return int64(policy.CPUMillis)
	}
	return p.cfg.CPUMillis
}

// setCPU gives c what its tenant's policy says, unless it has that.
func (p *Pool) setCPU(c *container) error {
	c.rules.Lock()
	defer c.rules.Unlock()
	p.mu.Lock()
	want, have := p.cpuOf(c.tenant.policy), c.cpu
	p.mu.Unlock()
	if want == have {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.EngineTimeout)
	defer cancel()
	if err := c.engine.SetCPU(ctx, want); err != nil {
		p.mu.Lock()
		c.cpu = 0
		p.mu.Unlock()
		return fmt.Errorf("limit CPU to %d thousandths: %w", want, err)
	}
	p.mu.Lock()
	c.cpu = want
	p.mu.Unlock()
	return nil
}

// limitLiveLocked gives the tenant's containers what its policy says. What a found one has is not known: it is told anew.
func (p *Pool) limitLiveLocked(t *tenantState) {
	for _, c := range t.live {
		if c.cpu != p.cpuOf(t.policy) && c.power != powerBinding { // binding does it by itself
			p.laterLocked(func() { p.limitCPU(c) })
		}
	}
}

// limitCPU puts a changed policy into force; where that fails, the container goes.
func (p *Pool) limitCPU(c *container) {
	err := p.setCPU(c)
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if !c.serving() {
		return
	}
	p.cfg.Logger.Error("a container does not take its tenant's new limits and is replaced", "container", c.id, "err", err)
	p.drainLocked(c, CausePolicy, now)
	p.dispatchLocked(now)
}
