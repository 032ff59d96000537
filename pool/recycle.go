package pool

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"paddock/internal/tenant"
)

// view is what the recycling rules see of a container.
type view struct {
	state     State
	quiet     bool
	created   time.Time
	assigned  time.Time
	idleSince time.Time
	life      time.Duration
	served    int64
	maxAge    time.Duration
	old       bool // made from another image than those of now
	drains    bool // such ones are replaced, rather than left until they go idle
	foreign   bool // the tenant must run under another isolation
	resized   bool // the tenant's containers are of another size
	policy    *tenant.Policy
}

// rule is one reason to recycle: when it applies (the zero time: never, as things are) and what to tell the operator.
type rule struct {
	cause Cause
	due   func(v *view) time.Time
	why   func(v *view) string
}

// rules is the whole recycling policy that looks at a container by itself. Eviction, surplus, draining by hand and losses
// come from outside of it. The values are the tenant's, over defaults.
var rules = []rule{
	{CauseRollout, rolloutDue, func(v *view) string { return "it was made from another runtime image than the current one" }},
	{CausePolicy, func(v *view) time.Time { return onlyIf(v.state == Assigned && v.foreign, v.assigned) },
		func(v *view) string { return fmt.Sprintf("its tenant must run under %s now", v.policy.Isolation) }},
	{CausePolicy, func(v *view) time.Time { return onlyIf(v.state == Assigned && v.resized, v.assigned) },
		func(v *view) string {
			return fmt.Sprintf("its tenant's containers have %d MiB of memory now", v.policy.MemoryBytes>>20)
		}},
	{CauseMaxAge, func(v *view) time.Time { return onlyIf(v.state == Ready, v.created.Add(v.maxAge)) },
		func(v *view) string { return fmt.Sprintf("warm ones are replaced after %s", v.maxAge) }},
	{CauseMaxCalls, func(v *view) time.Time {
		return onlyIf(v.state == Assigned && v.policy.MaxCalls > 0 && v.served >= v.policy.MaxCalls, v.assigned)
	}, func(v *view) string { return fmt.Sprintf("it has served %d of %d calls", v.served, v.policy.MaxCalls) }},
	{CauseIdle, func(v *view) time.Time {
		return onlyIf(v.state == Assigned && v.quiet && v.policy.IdleTTL > 0, v.idleSince.Add(v.policy.IdleTTL))
	}, func(v *view) string {
		return fmt.Sprintf("idle ones are kept for %s after the last call", v.policy.IdleTTL)
	}},
	{CauseMaxLife, func(v *view) time.Time { return onlyIf(v.state == Assigned && v.life > 0, v.assigned.Add(v.life)) },
		func(v *view) string {
			return fmt.Sprintf("assigned ones live for %s ± 10 %%, this one %s", v.policy.MaxLife, v.life.Round(time.Second))
		}},
}

func onlyIf(applies bool, at time.Time) time.Time {
	if applies {
		return at
	}
	return time.Time{}
}

func (p *Pool) viewLocked(c *container) view {
	v := view{
		state: c.state, quiet: c.quiet(), created: c.created, assigned: c.assigned, idleSince: c.idleSince, life: c.life,
		served: c.served, maxAge: p.cfg.MaxAge, old: p.images.old(c.digest), drains: p.images.drains(),
		policy: &p.noPolicy,
	}
	if c.tenant != nil {
		v.policy = c.tenant.policy
		v.foreign = !p.isolates(v.policy)
		v.resized = c.size != p.sizeOf(v.policy)
	}
	return v
}

// nextRule returns which rule is due first, and when; a zero time if none ever is as things are.
func nextRule(v *view) (cause Cause, at time.Time) {
	for i := range rules {
		if t := rules[i].due(v); !t.IsZero() && (at.IsZero() || t.Before(at)) {
			cause, at = rules[i].cause, t
		}
	}
	return cause, at
}

// Explanation is what one rule says of one container.
type Explanation struct {
	Container ContainerID
	Tenant    tenant.ID
	State     State
	Frozen    bool
	Cause     Cause
	At        time.Time // when it applies, if nothing happens before
	Due       bool      // it applies now
	Why       string
}

// Explain says what the recycling policy would do, soonest first: to one container, to a tenant's, or, with neither, to
// all. It does nothing.
func (p *Pool) Explain(t tenant.ID, id ContainerID) []Explanation {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	var all []Explanation
	for _, c := range p.selectLocked(Selector{Container: id, Tenant: t, All: true}) {
		v := p.viewLocked(c)
		if c.state == Draining || c.state == Failed {
			all = append(all, Explanation{Container: c.id, Tenant: c.latch, State: c.state, Cause: c.cause, At: now, Due: true,
				Why: fmt.Sprintf("it is on its way out; %d calls are in flight", c.inflight)})
			continue
		}
		for _, r := range rules {
			if at := r.due(&v); !at.IsZero() {
				all = append(all, Explanation{Container: c.id, Tenant: c.latch, State: c.state, Frozen: c.power == powerFrozen,
					Cause: r.cause, At: at, Due: !now.Before(at), Why: r.why(&v)})
			}
		}
	}
	slices.SortFunc(all, func(a, b Explanation) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Container, b.Container))
	})
	return all
}

// visitLocked is called when c's timer fires and when something about c has changed: it does what is due and sets the timer
// to what comes next. Between calls nobody touches the timer, so it may fire early; that costs one look.
func (p *Pool) visitLocked(c *container, now time.Time) {
	if c.tearing {
		p.laterLocked(func() { p.teardown(c) }) // the last attempt failed
		return
	}
	switch c.state {
	case Draining:
		p.visitDrainingLocked(c, now)
		return
	case Ready, Assigned:
	default:
		return
	}
	v := p.viewLocked(c)
	cause, at := nextRule(&v)
	if !at.IsZero() && !now.Before(at) {
		if cause == CauseRollout && c.state == Ready {
			p.replaceWarmLocked(now) // it goes when its turn comes
			return
		}
		if (cause == CauseMaxLife || cause == CauseRollout && !v.quietFor(now, rolloutIdle) || cause == CausePolicy && !v.foreign) && p.awaitSuccessorLocked(c, cause, now) {
			return
		}
		p.drainLocked(c, cause, now)
		p.dispatchLocked(now)
		return
	}
	next := at
	if c.state == Ready {
		next = sooner(next, p.dozeLocked(c, now))
	} else if c.power != powerFrozen {
		next = sooner(next, p.powerDownLocked(c, now))
	}
	if !next.IsZero() && c.timer.pos == 0 {
		p.setTimerLocked(&c.timer, next)
	} else if !next.IsZero() {
		p.soonerLocked(&c.timer, next)
	}
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// powerDownLocked freezes c if it has been idle for long enough, and returns when to look at it again.
func (p *Pool) powerDownLocked(c *container, now time.Time) time.Time {
	if !c.quiet() || c.power != powerOn {
		if c.power == powerOn {
			p.sampleLocked(c)
		}
		return now.Add(lookAgain)
	}
	idle := now.Sub(c.idleSince)
	after := c.tenant.policy.FreezeAfter
	if after > 0 && idle >= after {
		p.freezeLocked(c)
		return time.Time{} // freeze visits again
	}
	p.sampleLocked(c)
	next := now.Add(min(max(lookAgain, idle), lookAgainMost))
	if after > 0 {
		next = sooner(next, c.idleSince.Add(after))
	}
	return next
}
