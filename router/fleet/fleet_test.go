package fleet

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"paddock/controller/catalog"
	"paddock/controller/noderpc"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/nodewire"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
	"paddock/router"
	"paddock/router/remote"
)

// machine is a controller that answers with its id, or as the test says.
type machine struct {
	id       string
	view     *catalog.ControllerView
	server   *grpc.Server
	draining atomic.Bool
	gone     atomic.Bool // it hangs
	full     atomic.Bool // the tenant's containers are
	moved    atomic.Bool // it has given the tenant up, if others can be asked
	retired  atomic.Bool // it makes no containers for who has none, if others can
	mu       sync.Mutex
	refuse   *errs.Error
	calls    []*call.Request
	hold     chan struct{} // calls wait for it, if set
}

func (m *machine) Invoke(ctx context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
	m.mu.Lock()
	m.calls = append(m.calls, req)
	refuse, hold := m.refuse, m.hold
	m.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, errs.New(errs.Cancelled, "gone")
		}
	}
	if m.full.Load() && req.Spill {
		refuse = &errs.Error{Kind: errs.NoCapacity, Cause: errs.CauseFull, Message: "full", Started: errs.StartedNo}
	}
	if m.moved.Load() && req.Spill {
		refuse = &errs.Error{Kind: errs.NoCapacity, Cause: errs.CauseMoved, Message: "moved", Started: errs.StartedNo}
	}
	if m.retired.Load() && req.Spill {
		refuse = &errs.Error{Kind: errs.NoCapacity, Cause: errs.CauseDraining, Message: "draining", Started: errs.StartedNo}
	}
	if refuse != nil {
		return nil, refuse
	}
	return &call.Result{Value: []byte(m.id), Container: call.ContainerID("c-" + m.id)}, nil
}

func (m *machine) RemoveTenant(context.Context, tenant.ID) (int, error) { return 1, nil }

func (m *machine) served() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.calls)
}

// Probe is the real one, unless the machine hangs.
type probed struct {
	*noderpc.Server
	m *machine
}

func (p probed) Probe(ctx context.Context, req *pb.ProbeRequest) (*pb.ProbeResponse, error) {
	if p.m.gone.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.Server.Probe(ctx, req)
}

// world is what the store says.
type world struct {
	mu       sync.Mutex
	fleet    *catalog.Fleet
	holdings map[tenant.ID][]catalog.Holding
	subs     *catalog.View // for its Subscription only
	policy   tenant.Policy
}

func (w *world) Fleet() *catalog.Fleet {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fleet
}

func (w *world) Holdings(t tenant.ID) []catalog.Holding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holdings[t]
}

func (w *world) hold(t tenant.ID, all ...catalog.Holding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holdings[t] = all
}

func (w *world) Tenant(id tenant.ID) (*catalog.TenantView, bool) {
	return &catalog.TenantView{ID: id, Policy: &w.policy}, true
}

func (w *world) Subscribe() *catalog.Subscription          { return catalog.NeverChanges() }
func (w *world) WaitRevision(context.Context, int64) error { return nil }
func (w *world) Revision() int64                           { return 1 }
func (w *world) Age() time.Duration                        { return 0 }

type rig struct {
	*world
	t        testing.TB
	fleet    *Fleet
	machines map[string]*machine
}

func (r *rig) start(m *machine, addr string) {
	r.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	m.view.Address = l.Addr().String()
	m.server = grpc.NewServer(nodewire.ServerOptions()...)
	pb.RegisterPoolsServer(m.server, fakePools{m: m})
	pb.RegisterNodeServer(m.server, probed{noderpc.New(noderpc.Options{ID: m.id, Controller: m, Catalogue: r.world, State: func() noderpc.State {
		return noderpc.State{Draining: m.draining.Load(), Ready: true}
	}}), m})
	go func() { _ = m.server.Serve(l) }()
	r.t.Cleanup(m.server.Stop)
}

func newRig(t testing.TB, change func(*catalog.ControllerView)) *rig {
	r := &rig{world: &world{holdings: map[tenant.ID][]catalog.Holding{}, policy: tenant.DefaultPolicy()}, t: t, machines: map[string]*machine{}}
	var all []*catalog.ControllerView
	for _, id := range []string{"c1", "c2", "c3"} {
		v := &catalog.ControllerView{ID: id, Region: "r", Capacity: 100, Runtimes: []string{"node"}, Isolation: tenant.IsolationRunc}
		if change != nil {
			change(v)
		}
		m := &machine{id: id, view: v}
		r.machines[id] = m
		r.start(m, "127.0.0.1:0")
		all = append(all, v)
	}
	r.world.fleet = &catalog.Fleet{All: all}
	var err error
	r.fleet, err = New(Options{Region: "r", Catalogue: r.world, Dial: func(_, address string) (grpc.ClientConnInterface, io.Closer, error) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), remote.DialOption(),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second, Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond}}))
		return conn, conn, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.fleet.Close() })
	return r
}

func (r *rig) request(id tenant.ID) *call.Request {
	code := call.Code{Hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Source: []byte{}} // of no text
	return &call.Request{ID: "1", Code: code, Tenant: id, Policy: &r.world.policy, Runtime: "node", Deadline: time.Now().Add(20 * time.Second)}
}

// invoke runs a call as the router would: the next one is asked where nothing has started.
func (r *rig) invoke(req *call.Request) (string, error) {
	next := r.fleet.Route(req)
	var last error = errs.New(errs.NoCapacity, "nobody")
	for range 4 {
		node, ok := next()
		if !ok {
			break
		}
		res, err := node.Invoke(context.Background(), req, nil)
		if err == nil {
			return string(res.Value), nil
		}
		if last = err; errs.From(err).WhetherStarted() != errs.StartedNo {
			break
		}
	}
	return "", last
}

func (r *rig) order(id tenant.ID) []string {
	var ids []string
	for _, m := range r.fleet.classOf(r.request(id)).first(id, 3) {
		ids = append(ids, m.id)
	}
	return ids
}

func (r *rig) must(req *call.Request, want string) {
	r.t.Helper()
	if got, err := r.invoke(req); err != nil || got != want {
		r.t.Fatalf("served by %q (%v), want %q", got, err, want)
	}
}

// elsewhere waits for a call to be served by another controller than the one that has just gone: one that was on its way there may
// have started.
func (r *rig) elsewhere(id tenant.ID, want string) {
	r.t.Helper()
	testenv.Await(r.t, "served by "+want, func() bool {
		got, err := r.invoke(r.request(id))
		if e := errs.From(err); e != nil && (e.Kind != errs.SandboxLost || e.WhetherStarted() != errs.StartedMaybe) {
			r.t.Fatal(err)
		}
		return got == want
	})
}

// A tenant goes home, and stays where its containers are.
func TestHomeThenWhereItsContainersAre(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	for range 3 {
		r.must(r.request("acme"), order[0])
	}
	r.hold("globex", catalog.Holding{Controller: r.order("globex")[2], Runtime: "node", Containers: 1})
	r.must(r.request("globex"), r.order("globex")[2])
}

// A controller whose process died is not asked again until it answers.
func TestLostControllers(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	r.must(r.request("acme"), order[0])
	home := r.machines[order[0]]
	home.server.Stop()
	began := time.Now()
	r.elsewhere("acme", order[1])
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s to be served elsewhere", took)
	}
	r.must(r.request("acme"), order[1])
	r.start(home, home.view.Address)
	m := r.fleet.members.Load().byID[home.id]
	testenv.Await(t, "it answers again", m.usable)
	r.must(r.request("elsewhere"), r.order("elsewhere")[0])
}

// One that is silent gets no new calls after three probes.
func TestSilentControllers(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	home := r.machines[order[0]]
	r.must(r.request("acme"), order[0])
	home.gone.Store(true)
	m := r.fleet.members.Load().byID[home.id]
	began := time.Now()
	testenv.Await(t, "it is given up", func() bool { return !m.usable() })
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	r.must(r.request("acme"), order[1])
}

// Who drains gets no new tenants, and those whose containers it has until another controller has some, or until it says that it has
// none any more.
func TestDrainingControllers(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	home := r.machines[order[0]]
	r.must(r.request("acme"), home.id)
	home.draining.Store(true)
	testenv.Await(t, "its draining is seen", func() bool { return r.fleet.members.Load().byID[home.id].drains() })
	r.must(r.request("acme"), home.id)
	for _, id := range []tenant.ID{"t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8"} {
		if got, err := r.invoke(r.request(id)); err != nil || got == home.id {
			t.Errorf("a new tenant is served by %q (%v), which drains", got, err)
		}
	}
	r.hold("acme", catalog.Holding{Controller: home.id, Runtime: "node", Containers: 1}, catalog.Holding{Controller: order[2], Runtime: "node", Containers: 1})
	r.must(r.request("acme"), order[2])
	r.hold("acme", catalog.Holding{Controller: home.id, Runtime: "node", Containers: 1})
	home.mu.Lock()
	home.refuse = &errs.Error{Kind: errs.NoCapacity, Cause: errs.CauseMoved, Started: errs.StartedNo}
	home.mu.Unlock()
	r.fleet.routes.Purge()
	before := home.served()
	r.must(r.request("acme"), order[1])
	r.must(r.request("acme"), order[1])
	if n := home.served() - before; n != 1 {
		t.Errorf("who had given the tenant up was asked %d times", n)
	}
	home.mu.Lock()
	home.refuse = nil
	home.mu.Unlock()
	for _, id := range order[1:] {
		r.machines[id].draining.Store(true)
		testenv.Await(t, "its draining is seen", func() bool { return r.fleet.members.Load().byID[id].drains() })
	}
	if _, err := r.invoke(r.request("acme")); err != nil {
		t.Errorf("when all drain, nobody serves: %v", err)
	}
}

// Cordons and regions are kept, whoever is full or gone.
func TestTrustClassesAndRegions(t *testing.T) {
	r := newRig(t, func(c *catalog.ControllerView) {
		switch c.ID {
		case "c1":
			c.TrustClass = "low"
		case "c2":
			c.Region = "far"
		}
	})
	r.must(r.request("acme"), "c3")
	r.machines["c3"].refuse = &errs.Error{Kind: errs.NoCapacity, Started: errs.StartedNo}
	if got, err := r.invoke(r.request("acme")); err == nil {
		t.Errorf("served by %s", got)
	}
	low := r.request("acme")
	p := tenant.DefaultPolicy()
	p.TrustClass, low.Policy = "low", &p
	r.must(low, "c1")
	far := r.request("acme")
	q := tenant.DefaultPolicy()
	q.Regions, far.Policy = []string{"far", "r"}, &q
	r.must(far, "c2")
	r.machines["c2"].server.Stop()
	r.machines["c3"].refuse = nil
	testenv.Await(t, "served by c3", func() bool { got, _ := r.invoke(far); return got == "c3" })
	strict := r.request("acme")
	s := tenant.DefaultPolicy()
	s.Isolation, strict.Policy = tenant.IsolationGVisor, &s
	if got, err := r.invoke(strict); !errs.Is(err, errs.NoCapacity) {
		t.Errorf("served by %s under runc: %v", got, err)
	}
}

// That every record is gone at once does not stop calls while controllers answer.
func TestRecordsAreNoLease(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	all := r.world.fleet
	r.world.mu.Lock()
	r.world.fleet = &catalog.Fleet{}
	r.world.mu.Unlock()
	r.fleet.reconcile()
	r.must(r.request("acme"), order[0])
	r.world.mu.Lock()
	r.world.fleet = &catalog.Fleet{All: slices.Clone(all.All)}
	r.world.mu.Unlock()
	r.fleet.reconcile()
	r.must(r.request("acme"), order[0])
	r.machines[order[0]].server.Stop()
	m := r.fleet.members.Load().byID[order[0]]
	r.elsewhere("acme", order[1])
	r.world.mu.Lock()
	r.world.fleet = &catalog.Fleet{}
	r.world.mu.Unlock()
	if !m.usable() {
		r.fleet.reconcile()
		if r.fleet.members.Load().byID[order[0]] != nil {
			t.Error("one that neither answers nor is registered is kept")
		}
	}
}

// What is asked of the pool is asked of every machine, on behalf of who asks.
func TestPoolsOfAllMachines(t *testing.T) {
	r := newRig(t, nil)
	ctx := identity.With(t.Context(), identity.Identity{Role: identity.RoleOperator})
	all, err := r.fleet.Pools().ListContainers(ctx, &pb.ListContainersRequest{})
	if err != nil || len(all.GetContainers()) != 3 || all.GetContainers()[0].GetId() != "operator of c1" {
		t.Errorf("%v, %v", all, err)
	}
	sum, err := r.fleet.Pools().GetPool(ctx, &pb.GetPoolRequest{})
	if err != nil || sum.GetReady() != 6 || sum.GetController() != "c1, c2, c3" || sum.GetEngine() != "fake" {
		t.Errorf("%v, %v", sum, err)
	}
	if n, err := r.fleet.RemoveTenant(ctx, "acme"); err != nil || n != 3 {
		t.Errorf("%d containers, %v", n, err)
	}
	r.machines["c2"].server.Stop()
	all, err = r.fleet.Pools().ListContainers(ctx, &pb.ListContainersRequest{})
	if err != nil || len(all.GetContainers()) != 2 || !slices.Equal(all.GetMissing(), []string{"c2"}) {
		t.Errorf("with a machine gone: %v, %v", all, err)
	}
	sum, err = r.fleet.Pools().GetPool(ctx, &pb.GetPoolRequest{})
	if err != nil || sum.GetReady() != 4 || !slices.Equal(sum.GetMissing(), []string{"c2"}) {
		t.Errorf("with a machine gone: %v, %v", sum, err)
	}
	if _, err := r.fleet.Pools().Drain(ctx, &pb.DrainRequest{All: true}); !errs.Is(err, errs.NoCapacity) || !strings.Contains(err.Error(), "c2") {
		t.Errorf("draining with a machine gone: %v", err)
	}
	if n, err := r.fleet.RemoveTenant(ctx, "acme"); err != nil || n != 2 {
		t.Errorf("with a machine gone: %d containers, %v", n, err)
	}
}

// fakePools is a machine's pool: two sandboxes, one of which is named after who asks.
type fakePools struct {
	pb.UnimplementedPoolsServer
	m *machine
}

func (p fakePools) ListContainers(ctx context.Context, _ *pb.ListContainersRequest) (*pb.ListContainersResponse, error) {
	who, _ := identity.From(ctx)
	return &pb.ListContainersResponse{Containers: []*pb.Container{{Id: string(who.Role) + " of " + p.m.id}}}, nil
}

func (p fakePools) Drain(context.Context, *pb.DrainRequest) (*pb.DrainResponse, error) {
	return &pb.DrainResponse{Containers: 1}, nil
}

func (p fakePools) GetPool(context.Context, *pb.GetPoolRequest) (*pb.PoolStatus, error) {
	return &pb.PoolStatus{Controller: p.m.id, Engine: "fake", Ready: 2}, nil
}

var _ router.Nodes = (*Fleet)(nil)
