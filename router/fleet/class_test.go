package fleet

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"paddock/controller/catalog"
	"paddock/internal/placement"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// alive is a connection to a controller that answers probes and nothing else.
type alive string

func (a alive) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	reply.(*pb.ProbeResponse).Controller = string(a)
	return nil
}

func (a alive) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, io.ErrClosedPipe
}

func (a alive) Close() error { return nil }

// many is a fleet of n controllers in region r.
func many(t *testing.T, n int) *rig {
	r := &rig{world: &world{holdings: map[tenant.ID][]catalog.Holding{}, fleet: &catalog.Fleet{}, policy: tenant.DefaultPolicy()}, t: t}
	for i := range n {
		id := fmt.Sprintf("%08x", i)
		r.world.fleet.All = append(r.world.fleet.All, &catalog.ControllerView{ID: id, Address: "of " + id, Region: "r", Capacity: 100})
	}
	var err error
	r.fleet, err = New(Options{Region: "r", Catalogue: r.world, Dial: func(id, _ string) (grpc.ClientConnInterface, io.Closer, error) {
		return alive(id), alive(id), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.fleet.Close() })
	return r
}

// asked is who would be asked next.
func (r *rig) asked(id tenant.ID, tried ...*member) *member {
	var picks []*pick
	for _, m := range tried {
		picks = append(picks, &pick{member: m})
	}
	return r.fleet.pick(r.request(id), r.fleet.routeOf(id), picks).member
}

// In a large fleet only the beginning of an order is kept; who has the containers is found wherever he ranks, and so is whoever
// comes next when all of the beginning are gone.
func TestLargeFleets(t *testing.T) {
	r := many(t, 60)
	c := r.fleet.classOf(r.request("acme"))
	order := c.first("acme", 60)
	var candidates []placement.Candidate
	for _, v := range r.world.fleet.All {
		candidates = append(candidates, v.Candidate())
	}
	for i, at := range placement.Rank("acme", candidates) {
		if order[i].id != candidates[at].ID || i < firstFew && c.first("acme", firstFew)[i] != order[i] {
			t.Fatalf("place %d is %s's, want %s", i, order[i].id, candidates[at].ID)
		}
	}
	if got := r.asked("acme"); got != order[0] {
		t.Errorf("%s is asked, not home", got.id)
	}
	if got := r.asked("acme", order[0], order[1]); got != order[2] {
		t.Errorf("%s is asked third", got.id)
	}
	r.hold("acme", catalog.Holding{Controller: order[40].id, Runtime: "node", Containers: 1})
	if got := r.asked("acme"); got != order[40] {
		t.Errorf("%s is asked, not the one with the container", got.id)
	}
	if got := r.asked("acme", order[40]); got != order[0] {
		t.Errorf("%s is asked after it", got.id)
	}
	r.hold("acme")
	for _, m := range order[:30] {
		m.stop() // no probe takes it back
		m.missed.Store(missedProbes)
	}
	testenv.Await(t, "with 30 gone the next in order is asked", func() bool {
		for _, m := range order[:30] { // one probe may have been on its way
			m.missed.Store(missedProbes)
		}
		return r.asked("acme") == order[30]
	})
}

// A tenant that has containers on every machine of the beginning gets the next one on a machine without.
func TestTheWidestTenants(t *testing.T) {
	r := many(t, 60)
	r.world.policy.MaxContainers, r.world.policy.CallsPerContainer = 50, 1
	order := r.fleet.classOf(r.request("acme")).first("acme", 60)
	for i := range 30 {
		if got := r.asked("acme"); got != order[i] {
			t.Fatalf("call %d goes to %s, want %s", i, got.id, order[i].id)
		}
		p := r.fleet.pick(r.request("acme"), r.fleet.routeOf("acme"), nil)
		p.begin()
		defer p.end(true, false)
	}
}

// What says nothing of places moves nobody; what does is seen.
func TestChangesWithoutPlaces(t *testing.T) {
	r := many(t, 3)
	change := func(f func(*catalog.ControllerView)) {
		next := &catalog.Fleet{}
		for _, v := range r.world.fleet.All {
			w := *v
			next.All = append(next.All, &w)
		}
		f(next.All[0])
		r.world.mu.Lock()
		r.world.fleet = next
		r.world.mu.Unlock()
		r.fleet.reconcile()
	}
	before := r.fleet.classOf(r.request("acme"))
	change(func(c *catalog.ControllerView) { c.Draining, c.Version = true, strings.Repeat("v", 3) })
	if r.fleet.classOf(r.request("acme")) != before {
		t.Error("a controller that drains has changed every tenant's order")
	}
	if !before.may[0][0].drains() {
		t.Error("that it drains is not seen")
	}
	for what, f := range map[string]func(*catalog.ControllerView){
		"capacity": func(c *catalog.ControllerView) { c.Capacity++ }, "region": func(c *catalog.ControllerView) { c.Region = "far" },
		"trust": func(c *catalog.ControllerView) { c.TrustClass = "low" }, "isolation": func(c *catalog.ControllerView) { c.Isolation = "runc" },
		"runtimes": func(c *catalog.ControllerView) { c.Runtimes = []string{"other"} },
		"address":  func(c *catalog.ControllerView) { c.Address += "!" },
	} {
		before = r.fleet.classOf(r.request("acme"))
		if change(f); r.fleet.classOf(r.request("acme")) == before {
			t.Errorf("%s: nothing has changed", what)
		}
	}
}
