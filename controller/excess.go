package controller

import (
	"time"

	"paddock/controller/catalog"
	"paddock/internal/tenant"
)

// excessFor is how long a tenant must have had more containers than it may before one goes: the record of one that has ended lingers,
// and a replacement, on this machine or another one, does not wait for it.
const excessFor = releaseLinger + time.Second

// keep says how many of a tenant's n containers stay here, and whether a controller that gives some up awaits a sign of life. The
// tenant's maximum is filled in its order, so that where all see the same records just the excess goes, from the lowest ranks, and
// whoever ranks first keeps what it may have. What may be dead is not counted, or nobody might be left.
func (o *others) keep(t tenant.ID, n int, me *catalog.ControllerView) (keep int, awaited bool) {
	view, ok := o.c.cfg.Catalogue.Tenant(t)
	if !ok {
		return n, false
	}
	here, room, all, below := o.boundHere(t), view.Policy.MaxContainers, n, false
	for _, h := range o.view.Holdings(t) {
		other, ok := o.serving(h, view.Policy, me)
		if !ok {
			continue
		}
		all += h.Containers
		if !above(t, view.Policy, other, me) {
			below = below || me.Revision < h.Revision
		} else if o.lives(other, h, here) {
			room -= h.Containers
		}
	}
	if all <= view.Policy.MaxContainers {
		delete(o.excess, t)
		return n, false
	}
	if !o.lasts(t) {
		return n, below
	}
	return max(0, min(n, room)), below
}

// lasts says whether a tenant's excess has been seen for long enough.
func (o *others) lasts(t tenant.ID) bool {
	since, ok := o.excess[t]
	if !ok {
		since = time.Now()
		o.excess[t] = since
	}
	return time.Since(since) >= excessFor
}
