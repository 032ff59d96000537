package fleet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	lru "github.com/hashicorp/golang-lru/v2"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/router"
	"paddock/router/remote"
)

// Defaults, and what decides who is alive.
const (
	probeEvery   = time.Second
	probeTimeout = 800 * time.Millisecond
	// missedProbes in a row, and a controller gets no new calls.
	missedProbes = 3
	// unlistedTime is how long a controller that answers is kept although its record is gone: losing every lease at once, as a
	// store that is in trouble does to its clients, must not stop calls.
	unlistedTime = time.Minute
	// recentTime is how long it is remembered who served a tenant, until its record has come by the store.
	recentTime      = 10 * time.Second
	rememberedRoute = 100_000 // tenants
	// movedTime is how long a controller that gave a tenant up is not taken for one that has containers of it; its records go
	// before.
	movedTime = 5 * time.Second
)

// Catalogue is what a Fleet reads; *catalog.View is one.
type Catalogue interface {
	Fleet() *catalog.Fleet
	Holdings(t tenant.ID) []catalog.Holding
	Tenant(id tenant.ID) (*catalog.TenantView, bool)
	Subscribe() *catalog.Subscription
}

// Options are what a Fleet is made of. Dial connects to a controller at its address, lazily; the connection must have been made
// with remote.DialOption, and must refuse everybody who is not the controller id.
type Options struct {
	Region    string // the router's own
	Catalogue Catalogue
	Dial      func(id, address string) (grpc.ClientConnInterface, io.Closer, error)
	Logger    *slog.Logger
}

// Fleet implements router.Nodes. Make one with New, end it with Close. Safe for concurrent use.
type Fleet struct {
	o       Options
	log     *slog.Logger
	began   time.Time
	members atomic.Pointer[members]
	routes  *lru.Cache[tenant.ID, *route]

	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup
}

// members are those that could be asked. A change makes another value.
type members struct {
	all     []*member                 // by id
	records []*catalog.ControllerView // of each, as placement goes by it
	byID    map[string]*member

	mu      sync.RWMutex
	classes map[classKey]*class
}

func newMembers() *members {
	return &members{byID: map[string]*member{}, classes: map[classKey]*class{}}
}

// placedLike says whether placement makes no difference between the two.
func (ms *members) placedLike(o *members) bool {
	return slices.Equal(ms.all, o.all) && slices.EqualFunc(ms.records, o.records, samePlace)
}

var _ router.Nodes = (*Fleet)(nil)

// New follows the catalogue from now on. It connects to who is registered, and does not wait for anybody.
func New(o Options) (*Fleet, error) {
	if o.Catalogue == nil || o.Dial == nil {
		return nil, errors.New("fleet: Catalogue and Dial are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{o: o, log: o.Logger, began: time.Now()}
	f.routes, _ = lru.New[tenant.ID, *route](rememberedRoute)
	f.members.Store(newMembers())
	f.ctx, f.cancel = context.WithCancel(context.Background())
	changes := o.Catalogue.Subscribe()
	f.reconcile()
	f.loops.Go(func() { defer changes.Close(); f.follow(changes) })
	return f, nil
}

// Close ends probes and connections. Calls on them fail.
func (f *Fleet) Close() error {
	f.cancel()
	f.loops.Wait()
	var all []error
	for _, m := range f.members.Load().all {
		all = append(all, m.closer.Close())
	}
	return errors.Join(all...)
}

// follow keeps the members in step with what is registered.
func (f *Fleet) follow(changes *catalog.Subscription) {
	tick := time.NewTicker(unlistedTime / 6)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
			f.reconcile()
		case <-changes.C():
			for _, c := range changes.Take() {
				if c.Kind == catalog.ControllerChanged || c.Kind == catalog.ControllerRemoved {
					f.reconcile()
					break
				}
			}
		}
	}
}

// reconcile makes members of who is registered and lets go of who is gone for good. Only New and follow call it.
func (f *Fleet) reconcile() {
	old := f.members.Load()
	next := newMembers()
	now := time.Since(f.began) // not the wall clock: it jumps
	fleet := f.o.Catalogue.Fleet()
	for _, c := range fleet.All {
		if c.Address == "" {
			continue
		}
		m := old.byID[c.ID]
		if m == nil || m.address != c.Address {
			if m = f.join(c); m == nil {
				continue
			}
		}
		m.record.Store(c)
		m.unlisted.Store(0)
		next.byID[c.ID] = m
	}
	for id, m := range old.byID {
		if next.byID[id] != nil {
			continue
		}
		if m.unlisted.CompareAndSwap(0, int64(now)) {
			f.log.Warn("a controller is not registered any more", "controller", id, "answers", m.usable())
		}
		if m.usable() && now-time.Duration(m.unlisted.Load()) < unlistedTime {
			next.byID[id] = m
		}
	}
	next.all = slices.SortedFunc(maps.Values(next.byID), func(a, b *member) int { return compareIDs(a.id, b.id) })
	for _, m := range next.all {
		next.records = append(next.records, m.record.Load())
	}
	if !next.placedLike(old) { // else every tenant's order would be worked out again for nothing
		f.members.Store(next)
	}
	for id, m := range old.byID {
		if next.byID[id] != m {
			m.leave()
		}
	}
}

// join connects to a controller and begins to probe it.
func (f *Fleet) join(c *catalog.ControllerView) *member {
	conn, closer, err := f.o.Dial(c.ID, c.Address)
	if err != nil {
		f.log.Error("a controller's address cannot be used", "controller", c.ID, "address", c.Address, "err", err)
		return nil
	}
	m := &member{id: c.ID, address: c.Address, node: remote.New(c.ID, conn), closer: closer, log: f.log}
	m.node.TenantRevision = func(req *call.Request) int64 {
		if t, ok := f.o.Catalogue.Tenant(req.Tenant); ok {
			return t.Revision
		}
		return 0
	}
	m.record.Store(c)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(f.ctx)
	f.loops.Go(func() { m.probe(ctx) })
	f.log.Info("a controller is known", "controller", c.ID, "address", c.Address, "region", c.Region)
	return m
}

func compareIDs(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Status is a controller as the router sees it.
type Status struct {
	ID, Address, Region, Version string
	Usable, Draining             bool
	InFlight                     int
}

// Status returns what is known of all controllers.
func (f *Fleet) Status() []Status {
	var all []Status
	for _, m := range f.members.Load().all {
		c := m.record.Load()
		all = append(all, Status{
			ID: m.id, Address: m.address, Region: c.Region, Version: c.Version, Usable: m.usable(), Draining: m.drains(),
			InFlight: int(m.inFlight.Load()),
		})
	}
	return all
}

// Clients returns every controller, for requests that concern all of them. Some may not answer.
func (f *Fleet) Clients() map[string]*remote.Node {
	all := map[string]*remote.Node{}
	for _, m := range f.members.Load().all {
		all[m.id] = m.node
	}
	return all
}
