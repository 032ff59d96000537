package controller

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/catalog"
	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/placement"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/fake"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes"
)

// fleetRig is several controllers that share a store, each with a view and an engine of its own.
type fleetRig struct {
	t     *testing.T
	store *memstore.Store
	cat   *catalog.Service
	all   map[string]*peer
	calls int
}

type peer struct {
	*Controller
	view   *catalog.View
	engine *fake.Engine
	cfg    Config
}

func newFleetRig(t *testing.T, ids ...string) *fleetRig {
	t.Helper()
	r := &fleetRig{t: t, store: memstore.New(), all: map[string]*peer{}}
	t.Cleanup(func() { r.store.Close() })
	blobs, err := catalog.OpenBlobs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blobs.Close() })
	kek, err := catalog.LoadKEK(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		p := &peer{engine: fake.New(fake.Options{InMemory: true})}
		if p.view, err = catalog.NewView(catalog.ViewOptions{Store: r.store, Blobs: blobs, KEK: kek}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.view.Close() })
		<-p.view.Ready()
		p.cfg = Config{
			ID: id, Region: "local", Address: id + ":1", Store: r.store, Catalogue: p.view, Neighbours: p.view,
			Pool: pool.Config{
				Engine: p.engine, Listen: p.engine.Listen, Image: runtimes.Image{Runtime: "node", Digest: "image-1"}, RunDir: t.TempDir(),
				MinReady: 2, MaxReady: 2, MaxContainers: 12,
			},
		}
		r.all[id] = p
		r.start(p)
		t.Cleanup(func() {
			if err := p.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			for _, v := range p.engine.Violations() {
				t.Error(v)
			}
		})
	}
	if r.cat, err = catalog.NewService(catalog.Options{Store: r.store, View: r.all[ids[0]].view, Blobs: blobs, KEK: kek}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *fleetRig) start(p *peer) {
	r.t.Helper()
	p.Controller = started(r.t, p.cfg)
	testenv.Await(r.t, "all see it registered", func() bool {
		for _, o := range r.all {
			if _, ok := o.view.Fleet().Controller(p.cfg.ID); !ok {
				return false
			}
		}
		return true
	})
}

func (r *fleetRig) tenants(ids ...tenant.ID) {
	r.t.Helper()
	for _, id := range ids {
		if _, err := r.cat.CreateTenant(r.t.Context(), id, nil); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, p := range r.all {
		for _, id := range ids {
			testenv.Await(r.t, "the tenant is seen", func() bool { _, ok := p.view.Tenant(id); return ok })
		}
	}
}

// run runs a program on one of them.
func (r *fleetRig) run(p *peer, t tenant.ID, program string, change func(*call.Request)) error {
	policy := tenant.DefaultPolicy()
	r.calls++
	req := &call.Request{
		ID: call.ID(fmt.Sprintf("call-%d", r.calls)), Tenant: t, Policy: &policy, Runtime: "node",
		Code: call.Code{Hash: program, Source: []byte(program)}, Body: []byte("{}"), Deadline: time.Now().Add(20 * time.Second),
	}
	if change != nil {
		change(req)
	}
	_, err := p.Invoke(r.t.Context(), req, nil)
	return err
}

func (r *fleetRig) must(p *peer, t tenant.ID, program string, change func(*call.Request)) {
	r.t.Helper()
	if err := r.run(p, t, program, change); err != nil {
		r.t.Fatal(err)
	}
}

func (p *peer) holds(t tenant.ID) int {
	n := 0
	for _, i := range p.pool.Containers(t) {
		if i.State == pool.Assigned {
			n++
		}
	}
	return n
}

func (p *peer) recycled(cause pool.Cause) uint64 { return p.Stats().Recycled[cause] }

// ranked returns two controllers in a tenant's order.
func (r *fleetRig) ranked(t tenant.ID, a, b string) (first, second *peer) {
	c := func(id string) placement.Candidate { return placement.Candidate{ID: id, Weight: 12} }
	if placement.Above(t, c(a), c(b)) {
		return r.all[a], r.all[b]
	}
	return r.all[b], r.all[a]
}

// A tenant that two have bound at once is given up by the lower in rank, whoever was first; one that was added for a full one stays.
func TestSurplus(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	r.tenants("acme", "globex", "wide")
	for i, id := range []tenant.ID{"acme", "globex"} {
		first, second := r.ranked(id, "c1", "c2")
		for _, p := range [][]*peer{{first, second}, {second, first}}[i] {
			r.must(p, id, "value 1", nil)
		}
		testenv.Await(t, "the lower in rank gives it up", func() bool { return second.holds(id) == 0 })
		if first.holds(id) != 1 || first.recycled(pool.CauseSurplus) != 0 {
			t.Errorf("%s: the higher in rank holds %d", id, first.holds(id))
		}
		if err := r.run(second, id, "value 1", func(q *call.Request) { q.Spill = true }); err == nil {
			t.Errorf("%s: a late call is served where the tenant was given up", id)
		}
	}
	first, second := r.ranked("wide", "c1", "c2")
	r.must(first, "wide", "value 1", nil)
	r.must(second, "wide", "value 1", func(q *call.Request) { q.Extra = true })
	testenv.Await(t, "both records are seen", func() bool { return len(second.view.Holdings("wide")) == 2 })
	if h := second.view.Holdings("wide"); h[0].Extra == h[1].Extra {
		t.Errorf("holdings %+v: one of them is extra", h)
	}
	me, _ := second.view.Fleet().Controller(second.cfg.ID)
	if lower, _ := second.others.surplus("wide", me); lower {
		t.Error("an extra one counts as surplus")
	}
}

// record writes what another controller would.
func (r *fleetRig) record(key string, m proto.Message) {
	r.t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	kv, _ := r.store.Get(r.t.Context(), key)
	rev, err := r.store.Commit(r.t.Context(), store.Txn{
		Guards: []store.Guard{{Key: key, ModRevision: kv.ModRevision}}, Puts: []store.Put{{Key: key, Value: value}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range r.all {
		if err := p.view.WaitRevision(r.t.Context(), rev); err != nil {
			r.t.Fatal(err)
		}
	}
}

// The record of one that has died stands for a while: nothing is given up in its favour before it shows life, or for as long as it may
// have been dead.
func TestSurplusWantsASignOfLife(t *testing.T) {
	r := newFleetRig(t, "c1")
	r.tenants("acme")
	dead := &pb.ControllerRecord{Id: "dead", Address: "dead:1", Region: "local", Capacity: 1 << 30}
	r.record(store.Controller("dead"), dead)
	r.record(store.Assignment("dead", "acme", "node", "c"), &pb.AssignmentRecord{})
	p := r.all["c1"]
	r.must(p, "acme", "value 1", nil)
	testenv.Await(t, "its own record is seen", func() bool { return len(p.view.Holdings("acme")) == 2 })
	me, _ := p.view.Fleet().Controller("c1")
	if lower, _ := p.others.surplus("acme", me); lower {
		t.Fatal("given up in favour of one that may be dead")
	}
	p.others.mu.Lock()
	for id, b := range p.others.bound {
		p.others.bound[id] = bound{b.at.Add(-time.Hour), b.revision}
	}
	p.others.mu.Unlock()
	if lower, _ := p.others.surplus("acme", me); lower {
		t.Error("given up although the store has not been seen for long enough")
	}
	dead.Draining = true
	r.record(store.Controller("dead"), dead)
	if lower, _ := p.others.surplus("acme", me); lower {
		t.Error("given up in favour of one that drains")
	}
	dead.Draining, dead.TrustClass = false, "low"
	r.record(store.Controller("dead"), dead)
	if lower, _ := p.others.surplus("acme", me); lower {
		t.Error("given up in favour of one that may not run it")
	}
	dead.TrustClass = ""
	r.record(store.Controller("dead"), dead)
	testenv.Await(t, "given up once the other shows life", func() bool { return p.holds("acme") == 0 })
}

// Whom routers do not reach, though the store does, has no claim: its tenants stay where they were bound meanwhile, until it is heard again.
func TestUnheard(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	r.tenants("acme")
	first, second := r.ranked("acme", "c1", "c2")
	unheard := func() bool {
		c, ok := second.view.Fleet().Controller(first.cfg.ID)
		return ok && c.Unheard
	}
	for range unheardLooks {
		first.listen()
	}
	first.Probed()
	r.must(first, "acme", "value 1", nil)
	for range unheardLooks {
		first.listen()
	}
	testenv.Await(t, "the others know", unheard)
	r.must(second, "acme", "value 1", nil)
	testenv.Await(t, "both records are seen", func() bool { return len(second.view.Holdings("acme")) == 2 })
	c, _ := second.view.Fleet().Controller(first.cfg.ID)
	first.membership.renew()
	testenv.Await(t, "it shows life", func() bool {
		now, ok := second.view.Fleet().Controller(first.cfg.ID)
		return ok && now.Revision > c.Revision
	})
	me, _ := second.view.Fleet().Controller(second.cfg.ID)
	if lower, _ := second.others.surplus("acme", me); lower {
		t.Error("given up in favour of one that no router reaches")
	}
	first.Probed()
	testenv.Await(t, "given up once the other is heard", func() bool { return second.holds("acme") == 0 })
	if unheard() || first.holds("acme") != 1 {
		t.Errorf("unheard: %v, %d containers", unheard(), first.holds("acme"))
	}
}

// A tenant that comes back at once to who gave it up is not given up again at each look: a router does not reach the other.
func TestSurplusComesBack(t *testing.T) {
	r := newFleetRig(t, "c1")
	r.tenants("acme")
	p := r.all["c1"]
	higher := &pb.ControllerRecord{Id: "higher", Address: "higher:1", Region: "local", Capacity: 1 << 30}
	r.record(store.Assignment("higher", "acme", "node", "c"), &pb.AssignmentRecord{})
	r.must(p, "acme", "value 1", nil)
	testenv.Await(t, "its own record is seen", func() bool { return len(p.view.Holdings("acme")) == 2 })
	r.record(store.Controller("higher"), higher)
	testenv.Await(t, "given up", func() bool { return p.holds("acme") == 0 })
	r.must(p, "acme", "value 1", nil)
	testenv.Await(t, "its own record is seen again", func() bool { return len(p.view.Holdings("acme")) == 2 })
	higher.Version = "shows life"
	r.record(store.Controller("higher"), higher)
	time.Sleep(lookEvery + 3*lookSoon) // at least one look at it
	if p.holds("acme") != 1 {
		t.Error("given up at the next look")
	}
	p.others.mu.Lock()
	for id, b := range p.others.bound {
		p.others.bound[id] = bound{b.at.Add(-againKept), b.revision}
	}
	p.others.mu.Unlock()
	testenv.Await(t, "given up in the end", func() bool { return p.holds("acme") == 0 })
}

// Who comes back finds its tenants served elsewhere: it gives those up, whatever the rank, keeps the others, and then registers.
func TestYield(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	for i, id := range []tenant.ID{"acme", "globex"} {
		r.tenants(id, id+"-kept")
		first, second := r.ranked(id, "c1", "c2")
		back, other := first, second
		if i == 1 {
			back, other = second, first
		}
		r.must(back, id, "value 1", nil)
		r.must(back, id+"-kept", "value 1", nil)
		testenv.Await(t, "the records are written", func() bool { return len(other.view.Holdings(id+"-kept")) == 1 })
		if err := back.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.must(other, id, "value 1", func(q *call.Request) { q.Extra = i == 1 })
		testenv.Await(t, "the other's record is written", func() bool { return len(other.view.Holdings(id)) == 2 })
		r.start(back)
		testenv.Await(t, "what is served elsewhere is given up", func() bool { return back.holds(id) == 0 })
		if back.holds(id+"-kept") != 1 || other.holds(id) != 1 {
			t.Errorf("%s: %d of the idle tenant, %d at the other", id, back.holds(id+"-kept"), other.holds(id))
		}
	}
}

// A controller that drains: each of its tenants is warm elsewhere before its containers go, calls in flight end, new tenants are
// refused; and back again.
func TestDrainedController(t *testing.T) {
	r := newFleetRig(t, "c1", "c2", "c3")
	ids := []tenant.ID{"t1", "t2", "t3"}
	r.tenants(append(ids, "new")...)
	p := r.all["c1"]
	for _, id := range ids {
		r.must(p, id, "value 1", nil)
	}
	failed := make(chan error, 1)
	go func() { failed <- r.run(p, "t1", "gate end", nil) }()
	testenv.Await(t, "the long call runs", func() bool { return p.Stats().InFlight == 1 })
	p.Drain()
	p.startHandOver()
	elsewhere := func(id tenant.ID) bool { return r.all["c2"].holds(id)+r.all["c3"].holds(id) > 0 }
	testenv.Await(t, "its tenants are elsewhere", func() bool {
		left := 0
		for _, id := range ids {
			if n := p.holds(id); n > 0 {
				left++
			} else if !elsewhere(id) {
				t.Fatalf("%s is given up and not warm elsewhere", id)
			}
		}
		return left == 0
	})
	if st := p.nodeStatus(); st.GetState() != "draining" || st.GetMoved() != 3 || st.GetUnprepared() != 0 || st.GetInFlight() != 1 {
		t.Errorf("%v", st)
	}
	if err := r.run(p, "new", "value 1", func(q *call.Request) { q.Spill = true }); err == nil {
		t.Error("a new tenant is served")
	}
	p.engine.Open("end")
	if err := <-failed; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	testenv.Await(t, "it is empty", func() bool { return p.nodeStatus().GetState() == "drained" })
	for _, id := range ids {
		if n := r.all["c2"].holds(id) + r.all["c3"].holds(id); n != 1 {
			t.Errorf("%s has %d containers elsewhere", id, n)
		}
	}
	if err := p.Undrain(); err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "it is warm again", func() bool { return p.Stats().Ready == 2 })
	if st := p.nodeStatus(); st.GetState() != "serving" {
		t.Errorf("%v", st)
	}
	r.must(p, "new", "value 1", func(q *call.Request) { q.Spill = true })
}

// A view that has not heard of the store decides nothing, and all that see it again say so.
func TestOutOfSight(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	r.tenants("acme")
	first, second := r.ranked("acme", "c1", "c2")
	r.store.SetAway(true)
	testenv.Await(t, "the store is out of sight", func() bool { return second.view.Age() > outOfSight && first.view.Age() > outOfSight })
	r.must(first, "acme", "value 1", nil)
	r.must(second, "acme", "value 1", nil)
	second.HandOver(t.Context()) // returns at once: nobody would hear of it
	if err := second.Undrain(); err != nil {
		t.Fatal(err)
	}
	if second.holds("acme") != 1 {
		t.Error("given up while the store is away")
	}
	r.store.SetAway(false)
	testenv.Await(t, "the surplus goes", func() bool { return second.holds("acme") == 0 && first.holds("acme") == 1 })
}

// A store in trouble may revoke every lease at once: nobody's containers go, and all are registered again.
func TestAllLeasesLostAtOnce(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	r.tenants("acme", "globex")
	r.must(r.all["c1"], "acme", "value 1", nil)
	r.must(r.all["c2"], "globex", "value 1", nil)
	before := map[string]int64{}
	for id, p := range r.all {
		c, _ := p.view.Fleet().Controller(id)
		before[id] = c.Revision
		testenv.Await(t, "the records are seen", func() bool { return len(p.view.Holdings("acme"))+len(p.view.Holdings("globex")) == 2 })
	}
	r.store.Expire(1)
	r.store.Expire(2)
	for id, p := range r.all {
		testenv.Await(t, "it is registered again", func() bool {
			c, ok := p.view.Fleet().Controller(id)
			return ok && c.Revision > before[id] && p.Registered()
		})
	}
	for _, p := range r.all {
		if n := p.holds("acme") + p.holds("globex"); n != 1 || len(p.Stats().Recycled) != 0 {
			t.Errorf("%s holds %d, recycled %v", p.cfg.ID, n, p.Stats().Recycled)
		}
	}
}
