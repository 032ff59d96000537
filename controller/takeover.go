package controller

import (
	"context"
	"slices"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool"
)

const (
	// takeOverStep is how long the next in rank waits for the one before it to have bound a draining controller's tenant.
	takeOverStep = 2 * time.Second
	// warmTime bounds the binding of one.
	warmTime = 10 * time.Second
)

// takeOver binds tenants of draining controllers that nobody else has bound, if this one is next in their order, or if those before
// it have had their time. Used by run only.
func (o *others) takeOver(me *catalog.ControllerView) {
	held := false
	for _, from := range o.view.Fleet().All {
		if !from.Draining || from.ID == me.ID {
			continue
		}
		for _, t := range o.view.HeldBy(from.ID) {
			held = true
			if o.turn(t, from, me) && len(o.busy) < warmParallel {
				o.busy[t] = true
				o.c.begin(func() {
					o.warm(t, from.ID)
					o.warming <- t
				})
			}
		}
	}
	if !held {
		clear(o.waiting)
	}
}

// turn says whether it is this controller's turn to bind a tenant of from's.
func (o *others) turn(t tenant.ID, from, me *catalog.ControllerView) bool {
	view, ok := o.c.cfg.Catalogue.Tenant(t)
	if !ok || view.Policy.Suspended || o.busy[t] || !o.takes(me, view.Policy, from) || o.servedElsewhere(t, from) || o.holdsNow(t) {
		delete(o.waiting, t)
		return false
	}
	since, ok := o.waiting[t]
	if !ok {
		since = time.Now()
		o.waiting[t] = since
	}
	before := 0
	for _, c := range o.view.Fleet().All {
		if c.ID != me.ID && o.takes(c, view.Policy, from) && above(t, view.Policy, c, me) {
			before++
		}
	}
	return time.Since(since) >= time.Duration(before)*takeOverStep
}

// holdsNow says whether a tenant has a container here already: its record comes behind.
func (o *others) holdsNow(t tenant.ID) bool {
	return slices.ContainsFunc(o.c.pool.Containers(t), func(i pool.Info) bool { return i.State == pool.Assigned && !i.Fresh })
}

// warm binds a container of a tenant's before calls come for it.
func (o *others) warm(t tenant.ID, from string) {
	view, ok := o.c.cfg.Catalogue.Tenant(t)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(o.c.ctx, warmTime)
	defer cancel()
	began := time.Now()
	err := o.c.pool.Warm(ctx, &call.Request{
		ID: "takeover", Tenant: t, Policy: view.Policy, Runtime: o.runtime(), Deadline: began.Add(warmTime), Spill: true,
	})
	o.c.log.Info("a draining controller's tenant is taken over", "tenant", t, "from", from, "took", time.Since(began), "err", err)
}
