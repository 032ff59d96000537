package controller

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/placement"
	"paddock/internal/tenant"
	"paddock/pool"
)

// Neighbours is what a controller reads of the others; *catalog.View is one.
type Neighbours interface {
	Fleet() *catalog.Fleet
	Holdings(t tenant.ID) []catalog.Holding
	HeldBy(controller string) []tenant.ID
	Revision() int64
	WaitRevision(ctx context.Context, revision int64) error
	Age() time.Duration
}

// Pacing of what a controller does because of others.
const (
	lookEvery  = time.Second            // at all tenants, whatever the watch says
	lookSoon   = 100 * time.Millisecond // after news
	outOfSight = 3 * time.Second        // the store's view is older: nothing is decided by it
	// silenceProof is how long who shares a tenant is believed to live without a sign of life since the tenant was bound here: a dead
	// controller's record goes before.
	silenceProof = LeaseTTL + 2*time.Second
	yieldWait    = 5 * time.Second // for the view to have seen what stands in the store
	// Who is sent a tenant again within againTime of giving it up keeps it for againKept: a router does not reach who ranks higher.
	againTime = 30 * time.Second
	againKept = 6 * time.Second
)

// others does what follows from which other controllers serve the same tenants:
//
//   - Surplus: a tenant that two controllers have bound, neither because the other was full, is given up by the one on the lower
//     rendezvous rank. It first wants a sign of life of the other that is newer than its own binding, lest it give up what nobody else
//     serves any more; the other, who sees the same, writes its record once more.
//   - Excess: a tenant that has more containers than it may in all, some of them added because others were full, loses those on the
//     lowest ranks (excess.go).
//   - Yielding: who was not registered for a while gives up what others serve by now, before it registers again.
//   - Takeover: what a draining controller holds is bound by the next in rank, before it lets go of it.
//
// All of it is level-triggered by the store's records, so that controllers need no connections to each other. While the store is out
// of sight nothing is decided.
type others struct {
	c    *Controller
	view Neighbours

	mu    sync.Mutex
	bound map[pool.ContainerID]bound

	// Used by run only.
	away    bool      // the store was out of sight
	sight   time.Time // since when it is in sight
	shown   time.Time // last sign of life for one that is to give a tenant up
	waiting map[tenant.ID]time.Time
	warming chan tenant.ID // tenants whose warming is over
	busy    map[tenant.ID]bool
	excess  map[tenant.ID]time.Time // since when a tenant has more than it may
	gave    map[tenant.ID]time.Time // when it was given up as surplus, for againTime
}

// bound is when a container was bound, or adopted: by this process's clock, since a latch's time is the wall clock's, and the revision of
// the store that was seen then.
type bound struct {
	at       time.Time
	revision int64
}

// warmParallel bounds how many tenants of draining controllers are bound at a time.
const warmParallel = 4

func newOthers(c *Controller, view Neighbours) *others {
	return &others{
		c: c, view: view, sight: time.Now(), bound: map[pool.ContainerID]bound{}, waiting: map[tenant.ID]time.Time{},
		warming: make(chan tenant.ID, warmParallel), busy: map[tenant.ID]bool{}, excess: map[tenant.ID]time.Time{}, gave: map[tenant.ID]time.Time{},
	}
}

func (o *others) noteBound(a pool.Assignment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bound[a.Container] = bound{time.Now(), o.view.Revision()}
}

func (o *others) noteReleased(a pool.Assignment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.bound, a.Container)
}

// run looks until ctx ends.
func (o *others) run(ctx context.Context) {
	changes := o.c.cfg.Catalogue.Subscribe()
	defer changes.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			o.c.listen()
		case t := <-o.warming:
			delete(o.busy, t)
			continue
		case <-changes.C():
			if !concernsOthers(changes.Take()) {
				continue
			}
			if !sleep(ctx, lookSoon) { // a burst is one look
				return
			}
		}
		o.look()
	}
}

func concernsOthers(all []catalog.Change) bool {
	return slices.ContainsFunc(all, func(c catalog.Change) bool {
		return c.Kind == catalog.ControllerChanged || c.Kind == catalog.ControllerRemoved || c.Kind == catalog.HoldingChanged
	})
}

func (o *others) look() {
	if o.view.Age() > outOfSight {
		o.away = true
		return
	}
	if o.away {
		o.away, o.sight = false, time.Now()
		o.c.begin(func() { // all of them see the store again at the same time
			if sleep(o.c.ctx, rand.N(lookEvery)) {
				o.c.membership.renew()
			}
		})
	}
	me, registered := o.view.Fleet().Controller(o.c.cfg.ID)
	if !registered || o.c.Draining() {
		return
	}
	held := o.held()
	maps.DeleteFunc(o.excess, func(t tenant.ID, _ time.Time) bool { return held[t] == 0 })
	maps.DeleteFunc(o.gave, func(_ tenant.ID, at time.Time) bool { return time.Since(at) > againTime })
	for t, n := range held {
		lower, awaited := o.surplus(t, me)
		keep, shows := o.keep(t, n, me)
		switch {
		case lower && o.again(t):
		case lower:
			o.gave[t] = time.Now()
			o.c.giveUp(t, 0, pool.CauseSurplus, "it is bound elsewhere as well, where it ranks higher")
		case keep < n:
			o.c.giveUp(t, keep, pool.CauseSurplus, "it has more containers than it may, and those here rank lowest")
		}
		if (awaited || shows) && time.Since(o.shown) > lookEvery {
			o.shown = time.Now()
			o.c.membership.renew()
		}
	}
	o.takeOver(me)
}

// held returns how many containers the tenants have that have some here.
func (o *others) held() map[tenant.ID]int {
	all := map[tenant.ID]int{}
	for _, i := range o.c.pool.Containers("") {
		if i.State == pool.Assigned && !i.Fresh && i.Tenant != "" {
			all[i.Tenant]++
		}
	}
	return all
}

// surplus says whether this controller is the one to give a tenant up, or whether another one is that awaits a sign of life.
func (o *others) surplus(t tenant.ID, me *catalog.ControllerView) (lower, awaited bool) {
	view, ok := o.c.cfg.Catalogue.Tenant(t)
	if !ok {
		return false, false
	}
	holdings := o.view.Holdings(t)
	mine := o.mine(holdings)
	if mine == nil || mine.Extra {
		return false, false
	}
	here := o.boundHere(t)
	for _, h := range holdings {
		other, ok := o.serving(h, view.Policy, me)
		switch {
		case !ok || h.Extra:
		case above(t, view.Policy, other, me):
			lower = lower || o.lives(other, h, here)
		case me.Revision < h.Revision:
			awaited = true
		}
	}
	return lower, awaited && !lower
}

// mine is what of a tenant's this controller's records say that it has; nil: nothing.
func (o *others) mine(holdings []catalog.Holding) *catalog.Holding {
	i := slices.IndexFunc(holdings, func(h catalog.Holding) bool { return h.Controller == o.c.cfg.ID && h.Runtime == o.runtime() })
	if i < 0 {
		return nil
	}
	return &holdings[i]
}

// lives says whether who holds h has shown life since the tenant was bound here, or would have had its record removed if it had died.
func (o *others) lives(other *catalog.ControllerView, h catalog.Holding, here bound) bool {
	return max(other.Revision, h.Revision) > here.revision || time.Since(here.at) > silenceProof && time.Since(o.sight) > silenceProof
}

// boundHere is when the first of the tenant's containers here was bound.
func (o *others) boundHere(t tenant.ID) (first bound) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first = bound{time.Now(), o.view.Revision()}
	for _, i := range o.c.pool.Containers(t) {
		if b, ok := o.bound[i.ID]; ok && i.State == pool.Assigned && b.at.Before(first.at) {
			first = b
		}
	}
	return first
}

// again says whether a tenant that was given up was bound here once more, and shall stay for the moment.
func (o *others) again(t tenant.ID) bool {
	_, gave := o.gave[t]
	return gave && time.Since(o.boundHere(t).at) < againKept
}

func (o *others) runtime() string { return o.c.cfg.Pool.Image.Runtime }

// serving returns the controller that holds h, if it is another one that is registered, stays, and may run the tenant's code where
// me does.
func (o *others) serving(h catalog.Holding, p *tenant.Policy, me *catalog.ControllerView) (*catalog.ControllerView, bool) {
	other, ok := o.view.Fleet().Controller(h.Controller)
	return other, ok && h.Runtime == o.runtime() && o.takes(other, p, me)
}

// takes says whether other could take over a tenant of me's. Whom no router reaches could not.
func (o *others) takes(other *catalog.ControllerView, p *tenant.Policy, me *catalog.ControllerView) bool {
	if other.ID == me.ID || other.Draining || other.Unheard || other.Address == "" || !other.MayRun(p, o.runtime()) {
		return false
	}
	if len(p.Regions) == 0 {
		return other.Region == me.Region
	}
	return slices.Contains(p.Regions, other.Region)
}

// above says whether a comes before b in a tenant's order.
func above(t tenant.ID, p *tenant.Policy, a, b *catalog.ControllerView) bool {
	if ra, rb := slices.Index(p.Regions, a.Region), slices.Index(p.Regions, b.Region); ra != rb {
		return ra < rb
	}
	return placement.Above(t, a.Candidate(), b.Candidate())
}

// servedElsewhere says whether another controller that stays holds a tenant, if only as an extra. me need not be registered.
func (o *others) servedElsewhere(t tenant.ID, me *catalog.ControllerView) bool {
	view, ok := o.c.cfg.Catalogue.Tenant(t)
	if !ok {
		return false
	}
	return slices.ContainsFunc(o.view.Holdings(t), func(h catalog.Holding) bool {
		_, ok := o.serving(h, view.Policy, me)
		return ok
	})
}

// self is this controller as the others would see it.
func (o *others) self() *catalog.ControllerView {
	rec, _ := o.c.membership.current()
	return &catalog.ControllerView{ID: rec.GetId(), Region: rec.GetRegion(), TrustClass: rec.GetTrustClass(), Capacity: int(rec.GetCapacity())}
}

// yield gives up what others serve by now, before this controller registers: what they added because it seemed full counts, since calls
// that it did not answer are what had made it so. While it is not registered, nobody gives anything up in its favour, so that not both
// of two do.
func (o *others) yield(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, yieldWait)
	defer cancel()
	_, rev, err := o.c.cfg.Store.List(ctx, store.ControllersPrefix)
	if err != nil || o.view.WaitRevision(ctx, rev) != nil {
		return
	}
	me, gave := o.self(), false
	for t := range o.held() {
		if o.servedElsewhere(t, me) {
			o.c.giveUp(t, 0, pool.CauseSurplus, "another controller has served it meanwhile")
			gave = true
		}
	}
	if gave {
		_ = o.c.assignments.flush(ctx) // else it is written behind
	}
}
