package router

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
)

// pace is how often something may come, and how long what comes more often is made to wait at most.
type pace struct {
	perSecond rate.Limit
	burst     int
	patience  time.Duration
}

// What costs the router about as much as a call and is bounded by no tenant's limits has a pace of its own. Whatever comes more
// often waits, so that a flood is slowed to what others do not feel; nobody who uses the service as it is meant comes to it.
var (
	// refusalPace is that of a tenant's refusals: they are given at once, unless it goes on all the same.
	refusalPace = pace{perSecond: 500, burst: 100, patience: 4 * time.Second}
	// managementPace is that of a tenant's requests that are no calls. Operators have none.
	managementPace = pace{perSecond: 50, burst: 200, patience: 2 * time.Second}
	// strangerPace is that of requests without a good credential, by address: health checks, and all that is refused for it.
	strangerPace = pace{perSecond: 100, burst: 200, patience: 2 * time.Second}
)

// metricsCost is what a look at the metrics counts for: thousands of lines are gathered for it.
const metricsCost = 8

// pacedKeys bounds whom a turnstile remembers; the least recently seen are forgotten.
const pacedKeys = 4096

// turnstile holds everybody to a pace. Safe for concurrent use.
type turnstile[K comparable] struct {
	pace
	seen *lru.Cache[K, *rate.Limiter]
}

func newTurnstile[K comparable](p pace) (*turnstile[K], error) {
	seen, err := lru.New[K, *rate.Limiter](pacedKeys)
	return &turnstile[K]{pace: p, seen: seen}, err
}

// turn returns how long to wait until it is key's turn. ok is false where that is beyond all patience; wait is then long, too,
// and not the same for all who hear so, or they would all come back at once.
func (p *turnstile[K]) turn(key K, cost int, now time.Time) (wait time.Duration, ok bool) {
	l, found := p.seen.Get(key)
	if !found {
		l = rate.NewLimiter(p.perSecond, p.burst)
		if before, existed, _ := p.seen.PeekOrAdd(key, l); existed {
			l = before
		}
	}
	r := l.ReserveN(now, cost)
	if wait = r.DelayFrom(now); wait <= p.patience {
		return wait, true
	}
	r.CancelAt(now)
	return p.patience/2 + rand.N(p.patience/2), false
}

// turnstiles are those of a router.
type turnstiles struct {
	refusals, management *turnstile[tenant.ID]
	strangers            *turnstile[netip.Prefix]
}

func newTurnstiles() (p turnstiles, err error) {
	if p.refusals, err = newTurnstile[tenant.ID](refusalPace); err != nil {
		return p, err
	}
	if p.management, err = newTurnstile[tenant.ID](managementPace); err != nil {
		return p, err
	}
	p.strangers, err = newTurnstile[netip.Prefix](strangerPace)
	return p, err
}

// pause waits, at most until the caller goes or the router ends.
func (r *Router) pause(ctx context.Context, wait time.Duration) {
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-r.lifetime.Done():
	}
}

// refuse counts a refusal of a tenant that is over its limits, and holds it back where there are too many of them.
func (r *Router) refuse(ctx context.Context, t tenant.ID, e *errs.Error) error {
	r.metrics.Refused(e.Cause)
	r.slowDown(ctx, t)
	return e
}

// slowDown waits where a tenant is refused too often.
func (r *Router) slowDown(ctx context.Context, t tenant.ID) {
	wait, _ := r.turnstiles.refusals.turn(t, 1, time.Now())
	r.pause(ctx, wait)
}

// turnAway holds back what the choke point answers to a request that it does not let pass, where there are too many of them from
// that tenant or that address ("ip:port").
func (r *Router) turnAway(ctx context.Context, who *identity.Identity, from string, err error) error {
	var wait time.Duration
	if errs.Is(err, errs.Denied) && who.Tenant != "" {
		wait, _ = r.turnstiles.refusals.turn(who.Tenant, 1, time.Now())
	} else if who.Role != identity.RoleOperator {
		wait, _ = r.turnstiles.strangers.turn(origin(from), 1, time.Now())
	}
	r.pause(ctx, wait)
	return err
}

// takeTurn waits for the turn of a request that is no call: the tenant's, or the address's where no credential is needed.
func (r *Router) takeTurn(ctx context.Context, ru *rule, who *identity.Identity, from string) error {
	var wait time.Duration
	ok := true
	switch {
	case ru.call || who.Role == identity.RoleOperator:
		return nil
	case ru.role != public:
		wait, ok = r.turnstiles.management.turn(who.Tenant, 1, time.Now())
	case ru.resource == "metrics":
		wait, ok = r.turnstiles.strangers.turn(origin(from), metricsCost, time.Now())
	default:
		wait, ok = r.turnstiles.strangers.turn(origin(from), 1, time.Now())
	}
	r.pause(ctx, wait)
	if ok {
		return nil
	}
	r.metrics.Refused("pace")
	e := errs.New(errs.Limited, "too many requests besides calls, from this tenant or this address: wait for as long as Retry-After says")
	e.Cause, e.RetryAfter = "rate", time.Second
	return e
}
