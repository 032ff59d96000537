package pool

import (
	"context"
	"slices"
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// tenantState is what the pool knows of one tenant while it has containers, waiting calls or a bad name. Guarded by
// Pool.mu.
type tenantState struct {
	id     tenant.ID
	policy *tenant.Policy
	set    bool   // policy came by SetPolicy; else it is the newest call's
	stock  *stock // of its containers' size

	live    []*container // Assigned and serving; oldest first
	fresh   int          // containers that serve one call
	remains int          // containers that were ever bound and are not destroyed, these two included

	slots    list[*waiter] // calls that wait for a slot
	freshes  list[*waiter] // fresh calls that wait for a container
	claims   int           // containers paid for on behalf of slots
	paid     int           // the same for freshes
	granting int           // containers handed to a waiter that has not bound them yet
	bucket   bucket
	marks    map[string]*record // by code hash; losses and quarantine

	ringNode node[*tenantState]
	timer    timer // the next token
	pace     pace
	yielding bool // it uses more than its share of the CPUs
	seen     time.Time

	atMost int       // containers that it may have here by its newest call; 0: as its policy says
	moved  time.Time // until then it is served elsewhere; see Handover
}

// tenantLocked returns the state of a tenant, made if need be.
func (p *Pool) tenantLocked(id tenant.ID, policy *tenant.Policy, now time.Time) *tenantState {
	t := p.tenants[id]
	if t != nil {
		return t
	}
	if policy == nil {
		d := tenant.DefaultPolicy()
		policy = &d
	}
	t = &tenantState{id: id, policy: policy, stock: p.stockLocked(p.sizeOf(policy)), seen: now}
	t.bucket.fill(policy, now)
	t.ringNode.v = t
	t.timer.fire = func(now time.Time) {
		p.wantLocked(t, now)
		p.dispatchLocked(now)
	}
	p.tenants[id] = t
	return t
}

// forgetTenantsLocked drops what says nothing any more, so that the map does not only grow.
func (p *Pool) forgetTenantsLocked(now time.Time) {
	for id, t := range p.tenants {
		t.forgive(now)
		if t.remains == 0 && t.granting == 0 && t.waiting() == 0 && len(t.marks) == 0 && now.After(t.moved) && t.bucket.full(t.policy, now) {
			t.stock.ring.remove(&t.ringNode)
			p.stopTimerLocked(&t.timer)
			delete(p.tenants, id)
		}
	}
}

func (t *tenantState) waiting() int { return t.slots.len() + t.freshes.len() }

// held is how many containers count against MaxContainers.
func (t *tenantState) held() int { return len(t.live) + t.fresh + t.granting }

// mayHold says whether one more container may be had, with what is paid for. Those that drain do not count, lest a
// replacement wait for them, but not without end.
func (t *tenantState) mayHold() bool {
	n := t.claims + t.paid + t.granting
	return t.held()+t.claims+t.paid < t.most() && t.remains+n < 2*t.policy.MaxContainers
}

// most is how many containers the tenant may have here: elsewhere there may be others.
func (t *tenantState) most() int {
	if t.atMost > 0 {
		return min(t.atMost, t.policy.MaxContainers)
	}
	return t.policy.MaxContainers
}

// full says that every container of the tenant has as many calls as it takes, or takes none.
func (t *tenantState) full() bool {
	for _, c := range t.live {
		if c.inflight < t.policy.CallsPerContainer && c.suspect.stalled.IsZero() {
			return false
		}
	}
	return true
}

// dropLocked takes c off the tenant's containers and says whether it was one.
func (t *tenantState) dropLocked(c *container) bool {
	if c.fresh {
		t.fresh--
		return true
	}
	i := slices.Index(t.live, c)
	if i < 0 {
		return false
	}
	t.live = slices.Delete(t.live, i, i+1)
	return true
}

// pick returns the tenant's container for the next call: the one with the fewest calls in flight among those that are on,
// else one that will be on after a moment, else a frozen one. nil: all are full.
func (t *tenantState) pick() *container {
	var best *container
	most := t.policy.CallsPerContainer
	for _, c := range t.live {
		if c.inflight >= most || c.suspect.open {
			continue
		}
		if best == nil || c.nearer(best) {
			best = c
		}
	}
	return best
}

func (c *container) nearer(than *container) bool {
	if a, b := c.power.distance(), than.power.distance(); a != b {
		return a < b
	}
	return c.inflight < than.inflight
}

// distance orders powers by how soon a call can run.
func (w power) distance() int {
	switch w {
	case powerOn:
		return 0
	case powerBinding, powerThawing:
		return 1
	case powerFreezing, powerFrozen:
		return 2
	}
	return 3
}

// SetPolicy replaces a tenant's policy: limits count from the next call on, egress rules and CPU at once, another isolation
// drains its containers, and another size replaces them. From then on what calls bring as policy is ignored. A tenant without containers is left to its
// first call.
func (p *Pool) SetPolicy(id tenant.ID, policy *tenant.Policy) {
	if policy == nil {
		return
	}
	p.mu.Lock()
	defer p.unlock()
	t := p.tenants[id]
	if t == nil {
		return
	}
	t.set = true
	p.usePolicyLocked(t, policy, time.Now())
}

// usePolicyLocked puts a policy into force.
func (p *Pool) usePolicyLocked(t *tenantState, policy *tenant.Policy, now time.Time) {
	old := t.policy
	t.policy = policy
	p.limitLiveLocked(t)
	if old == policy || samePolicy(old, policy) {
		return
	}
	p.restockLocked(t)
	egress := !sameEgress(old, policy)
	for _, c := range slices.Clone(t.live) {
		if !p.isolates(policy) {
			p.drainLocked(c, CausePolicy, now)
			continue
		}
		c.life = jitter(policy.MaxLife)
		p.soonerLocked(&c.timer, now) // its next visit reckons with the new policy
		if egress && c.power != powerBinding {
			p.laterLocked(func() { p.setRules(c, t.id) })
		}
	}
	p.wantLocked(t, now)
	p.dispatchLocked(now)
}

// restockLocked has the tenant wait for containers of the size that its policy says now.
func (p *Pool) restockLocked(t *tenantState) {
	to := p.stockLocked(p.sizeOf(t.policy))
	if to == t.stock {
		return
	}
	paid := t.claims + t.paid
	t.stock.demand -= paid
	t.stock.ring.remove(&t.ringNode)
	t.stock = to
	t.stock.demand += paid
	if paid > 0 {
		t.stock.ring.pushBack(&t.ringNode)
	}
}

// setRules gives c's door the rules in force now. A rule that cannot be read lets nobody out.
func (p *Pool) setRules(c *container, id tenant.ID) {
	c.rules.Lock()
	defer c.rules.Unlock()
	p.mu.Lock()
	policy := c.tenant.policy
	p.mu.Unlock()
	if err := c.door.SetRules(id, policy); err != nil {
		p.cfg.Logger.Error("some of a tenant's egress rules cannot be read and do not count", "tenant", id, "err", err)
	}
}

func (p *Pool) isolates(policy *tenant.Policy) bool {
	return policy.Isolation == tenant.IsolationAny || policy.Isolation == p.cfg.Engine.Isolation()
}

// samePolicy compares what the pool looks at; policies that came over a wire differ in identity all the time.
func samePolicy(a, b *tenant.Policy) bool {
	return a.Isolation == b.Isolation && a.CallsPerContainer == b.CallsPerContainer && a.MaxContainers == b.MaxContainers &&
		a.MemoryBytes == b.MemoryBytes &&
		a.IdleTTL == b.IdleTTL && a.MaxLife == b.MaxLife && a.MaxCalls == b.MaxCalls && a.DrainTimeout == b.DrainTimeout &&
		a.FreezeAfter == b.FreezeAfter && a.ClaimBurst == b.ClaimBurst && a.ClaimsPerSecond == b.ClaimsPerSecond &&
		sameEgress(a, b)
}

func sameEgress(a, b *tenant.Policy) bool {
	return slices.Equal(a.Egress, b.Egress) && slices.Equal(a.EgressPrivate, b.EgressPrivate) && slices.Equal(a.Inject, b.Inject)
}

// RemoveTenant ends everything of a tenant: waiting calls are answered, calls in flight fail as cancelled, its containers
// are destroyed. It returns how many those were, when they are gone or ctx ends.
func (p *Pool) RemoveTenant(ctx context.Context, id tenant.ID) int {
	p.mu.Lock()
	now := time.Now()
	if t := p.tenants[id]; t != nil {
		p.refuseLocked(t, errs.New(errs.Cancelled, "tenant %s was suspended or removed", id))
	}
	ended := p.selectLocked(Selector{Tenant: id})
	for _, c := range ended {
		p.loseLocked(c, loss{lossRemoved, CauseRemoved}, now)
	}
	p.dispatchLocked(now)
	p.unlock()
	for _, c := range ended {
		select {
		case <-c.gone:
		case <-ctx.Done():
			return len(ended)
		}
	}
	return len(ended)
}
