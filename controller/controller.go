package controller

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"paddock/controller/catalog"
	"paddock/controller/logs"
	"paddock/controller/store"
	"paddock/internal/audit"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes"
)

// removeTimeout bounds how long the end of a tenant's containers is waited for.
const removeTimeout = 30 * time.Second

// Catalogue is what the controller reads of tenants; *catalog.View is one. It is in memory and never blocks.
type Catalogue interface {
	Tenant(id tenant.ID) (*catalog.TenantView, bool)
	Subscribe() *catalog.Subscription
	Runtime(name string) (*catalog.RuntimeView, bool)
}

// Config is what a Controller is made of. All fields but Calls, Logger, Audit and Address must be set.
type Config struct {
	ID      string // 8 hex digits, from the data directory
	Address string // where routers on other machines reach it, "" = nowhere
	Region  string
	// DrainFile stands for as long as an operator has this controller drained, so that a restart does not put it back into service;
	// "": nothing is kept.
	DrainFile string
	// TrustClass is the class of tenants that this machine runs; see tenant.Policy.
	TrustClass string
	Version    string
	Pool       pool.Config // its Observer is the controller's to set
	Store      store.Store
	Catalogue  Catalogue // seen once already: containers of tenants that it does not know are destroyed
	// Images returns the runtime images on this machine that may be used, and why others may not, by digest, besides Pool.Image, which is
	// the program's own; nil: none. Asked once a second.
	Images func(ctx context.Context) (usable []runtimes.Image, refused map[string]error, err error)
	// Neighbours is who else serves the same tenants, of the same catalogue; nil: nobody does.
	Neighbours Neighbours
	Logs       *logs.Hub
	Calls      *logs.Calls    // nil: one of its own
	Audit      *audit.Sampler // what sandboxes do that an operator should hear of; nil: nobody
	Logger     *slog.Logger
}

// Controller owns one pool. Make one with New, then Start; end it with Shutdown or Release. Safe for concurrent use.
type Controller struct {
	cfg         Config
	log         *slog.Logger
	pool        *pool.Pool
	logs        *logs.Hub
	calls       *logs.Calls
	assignments *assignments
	membership  *membership
	others      *others // nil where nobody else serves

	drain  drain
	heard  heard
	images imagesInUse

	ctx    context.Context // of what runs beside the calls
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	ending sync.Once
	ended  error

	mu      sync.Mutex
	stopped bool // no task may begin any more
}

// New makes a controller and its pool; nothing runs yet.
func New(cfg Config) (*Controller, error) {
	if cfg.ID == "" || cfg.Store == nil || cfg.Catalogue == nil || cfg.Logs == nil {
		return nil, errors.New("controller: ID, Store, Catalogue and Logs must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if cfg.Calls == nil {
		cfg.Calls = logs.NewCalls(logs.CallOptions{})
	}
	c := &Controller{cfg: cfg, log: cfg.Logger, logs: cfg.Logs, calls: cfg.Calls}
	c.assignments = newAssignments(cfg.ID, cfg.Store, cfg.Logger)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	cfg.Pool.Observer = observer{c}
	p, err := pool.New(cfg.Pool)
	if err != nil {
		c.cancel()
		return nil, err
	}
	c.pool = p
	c.images.have = []runtimes.Image{cfg.Pool.Image}
	c.membership = newMembership(cfg.Store, &pb.ControllerRecord{
		Id: cfg.ID, Address: cfg.Address, Region: cfg.Region, Version: cfg.Version, Runtimes: []string{cfg.Pool.Image.Runtime},
		TrustClass: cfg.TrustClass,
		Capacity:   int32(p.Stats().Limit), Isolation: string(cfg.Pool.Engine.Isolation()),
	}, cfg.Logger)
	if cfg.Neighbours != nil {
		c.others = newOthers(c, cfg.Neighbours)
		c.membership.before = c.others.yield
	}
	return c, nil
}

// Start adopts what a former process left, ends what is no tenant's any more, registers and begins to fill the pool. What an operator
// drained goes on draining.
func (c *Controller) Start(ctx context.Context) error {
	drained, err := c.keptDrain()
	if err != nil {
		return err
	}
	changes := c.cfg.Catalogue.Subscribe()
	if _, ok := c.cfg.Catalogue.Runtime(c.cfg.Pool.Image.Runtime); ok { // or the first containers would be of another image
		c.lookForImages(ctx)
	}
	c.useImages()
	if err := c.pool.Start(ctx); err != nil {
		changes.Close()
		return err
	}
	for _, i := range c.pool.Containers("") {
		if i.Tenant == "" {
			continue
		}
		if !c.serves(i.Tenant) {
			c.log.Info("adopted a container of a tenant that is not served any more: it goes", "tenant", i.Tenant, "container", i.ID)
			c.remove(i.Tenant)
			continue
		}
		if t, ok := c.cfg.Catalogue.Tenant(i.Tenant); ok { // it may have changed meanwhile
			c.pool.SetPolicy(t.ID, t.Policy)
		}
		if i.State == pool.Assigned { // before the first look at the store's records, or they would be deleted and written again
			c.assignments.want(pool.Assignment{
				Container: i.ID, Tenant: i.Tenant, Runtime: c.cfg.Pool.Image.Runtime,
				Isolation: c.cfg.Pool.Engine.Isolation(), Since: i.Assigned,
			})
		}
	}
	c.tasks.Go(func() { defer changes.Close(); c.follow(c.ctx, changes) })
	c.tasks.Go(func() { c.assignments.run(c.ctx) })
	c.tasks.Go(func() { c.membership.run(c.ctx) })
	c.tasks.Go(func() { c.sweepKept(c.ctx) })
	c.tasks.Go(func() { c.followImages(c.ctx) })
	if c.others != nil {
		c.tasks.Go(func() { c.others.run(c.ctx) })
	}
	if drained {
		c.startHandOver()
	}
	return nil
}

// Ready is closed when the first container is warm.
func (c *Controller) Ready() <-chan struct{} { return c.pool.Ready() }

// Stats returns the pool's.
func (c *Controller) Stats() pool.Stats { return c.pool.Stats() }

// Registered says whether the controller's record stands in the store as far as it knows.
func (c *Controller) Registered() bool { return c.membership.isJoined() }

// Invoke runs one call on a container of its tenant's. It returns a Result or an *errs.Error; the sink is not used
// afterwards. The call has been admitted; that its tenant is gone or suspended by now is seen here once more, since calls
// and changes race.
func (c *Controller) Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	if t, ok := c.cfg.Catalogue.Tenant(req.Tenant); !ok {
		return nil, errs.New(errs.NotFound, "there is no tenant %s", req.Tenant)
	} else if t.Policy.Suspended {
		return nil, errs.New(errs.Denied, "tenant %s is suspended", req.Tenant)
	}
	return c.do(ctx, req, sink)
}

// serves says whether a tenant's calls may run.
func (c *Controller) serves(t tenant.ID) bool {
	view, ok := c.cfg.Catalogue.Tenant(t)
	return ok && !view.Policy.Suspended
}

// follow puts changes of tenants into force until ctx ends: a policy's limits count at once, another isolation drains the
// tenant's containers, a suspension cancels its calls and ends its containers, a removal forgets its logs as well.
func (c *Controller) follow(ctx context.Context, changes *catalog.Subscription) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes.C():
		}
		for _, change := range changes.Take() {
			if change.Kind != catalog.TenantChanged && change.Kind != catalog.TenantRemoved {
				continue
			}
			if t, ok := c.cfg.Catalogue.Tenant(change.Tenant); ok {
				c.pool.SetPolicy(t.ID, t.Policy)
			} else {
				c.forget(change.Tenant)
			}
			if !c.serves(change.Tenant) {
				c.remove(change.Tenant)
			}
		}
	}
}

// RemoveTenant ends all that a tenant has here: calls in flight are cancelled, containers destroyed, logs forgotten. It
// returns how many containers there were, when they are gone; an error says that ctx ended before. Whoever deletes a tenant
// calls it once the catalogue says that the tenant is not served any more.
func (c *Controller) RemoveTenant(ctx context.Context, t tenant.ID) (int, error) {
	c.mu.Lock()
	stopped := c.stopped
	c.mu.Unlock()
	if stopped {
		return 0, errs.New(errs.NoCapacity, "the controller has stopped: try again once it runs")
	}
	n := c.pool.RemoveTenant(ctx, t)
	c.forget(t)
	if err := ctx.Err(); err != nil {
		return n, errs.Wrap(errs.Timeout, "remove tenant", err, "the containers of tenant %s are not gone yet: try again", t)
	}
	return n, nil
}

// forget drops what is kept of a tenant that is gone.
func (c *Controller) forget(t tenant.ID) {
	c.logs.Remove(t)
	c.calls.Remove(t)
}

func (c *Controller) remove(t tenant.ID) {
	c.begin(func() {
		ctx, cancel := context.WithTimeout(c.ctx, removeTimeout)
		defer cancel()
		if n := c.pool.RemoveTenant(ctx, t); n > 0 {
			c.log.Info("ended a tenant's containers", "tenant", t, "containers", n)
		}
	})
}

// begin runs f beside everything else, unless the controller is stopping: then there is nothing left to do.
func (c *Controller) begin(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped {
		c.tasks.Go(f)
	}
}

// Shutdown refuses new calls, lets those in flight finish until ctx ends, destroys every container and takes the
// controller's records away. The error names what is left.
func (c *Controller) Shutdown(ctx context.Context) error {
	return c.end(func() error {
		err := c.pool.Shutdown(ctx)
		c.stop()
		for _, i := range c.pool.Containers("") {
			c.log.Error("a container is left", "container", i.ID, "state", i.State)
		}
		return errors.Join(err, c.settle(ctx))
	})
}

// Release stops like Shutdown but leaves the containers, and their records, to the next process.
func (c *Controller) Release(ctx context.Context) error {
	return c.end(func() error {
		err := c.pool.Release(ctx)
		c.stop()
		return err
	})
}

// settle writes the last state of the records. The store may be away: the next start writes what is missing.
func (c *Controller) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), store.CallTimeout)
	defer cancel()
	if err := c.assignments.flush(ctx); err != nil {
		c.log.Warn("assignment records are left in the store; the next start removes them", "err", err)
	}
	return nil
}

func (c *Controller) stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.cancel()
	c.tasks.Wait()
	c.logs.Close()
	c.calls.Close()
}

func (c *Controller) end(how func() error) error {
	c.ending.Do(func() { c.ended = how() })
	return c.ended
}

// observer hears from the pool what happens to containers.
type observer struct{ c *Controller }

// Assigned notes the record. A tenant that was removed while the call was on its way has a container again: it goes.
func (o observer) Assigned(a pool.Assignment) {
	if !o.c.serves(a.Tenant) {
		o.c.remove(a.Tenant)
		return
	}
	if o.c.others != nil {
		o.c.others.noteBound(a)
	}
	o.c.assignments.want(a)
}

// Released notes that the record may go.
func (o observer) Released(a pool.Assignment, cause pool.Cause) {
	o.c.assignments.drop(a)
	if o.c.others != nil {
		o.c.others.noteReleased(a)
	}
	o.c.log.Debug("container leaves service", "container", a.Container, "tenant", a.Tenant, "cause", cause)
}

// Recycled logs the end of a container.
func (o observer) Recycled(r pool.Recycled) {
	o.c.log.Info("container recycled", "container", r.Container, "tenant", r.Tenant, "cause", r.Cause, "age", r.Age, "calls", r.Calls)
	if suspicious[r.Cause] {
		o.c.event(audit.Event{Action: "container.tainted", Tenant: string(r.Tenant), Object: string(r.Container), Detail: map[string]string{
			"cause": string(r.Cause), "calls": strconv.FormatInt(r.Calls, 10),
		}})
	}
}

// suspicious are the ends of containers whose code may have tried more than to run.
var suspicious = map[pool.Cause]bool{
	pool.CauseTainted: true, pool.CauseProtocol: true, pool.CauseStuck: true, pool.CausePids: true,
}

// Quarantined writes it down: it is what an attack on the pool looks like.
func (o observer) Quarantined(t tenant.ID, hash string, until time.Time) {
	o.c.log.Warn("code is quarantined: it has ended its sandbox again and again", "tenant", t, "code", hash, "until", until)
	o.c.event(audit.Event{Action: "code.quarantined", Tenant: string(t), Object: hash, Detail: map[string]string{
		"until": until.UTC().Format(time.RFC3339),
	}})
}

// event hands what happened to the audit log, if there is one.
func (c *Controller) event(e audit.Event) {
	if c.cfg.Audit != nil {
		c.cfg.Audit.Note(e.Action+" "+e.Tenant, e)
	}
}

// LogLine keeps and spreads a line of a tenant's code, unless the tenant is gone.
func (o observer) LogLine(l call.LogLine) {
	if limits, ok := o.c.limits(l.Tenant); ok {
		o.c.logs.Publish(l, limits)
	}
}
