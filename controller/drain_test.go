package controller

import (
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
)

// What an operator drained drains after a restart as well, with its sandboxes or without, until he takes it back.
func TestDrainOutlivesRestarts(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	r.tenants("t1", "t2")
	p, other := r.all["c1"], r.all["c2"]
	p.cfg.DrainFile = filepath.Join(t.TempDir(), "draining")
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.start(p)
	operator := as(t, identity.RoleOperator, "")
	ask := &pb.DrainNodeRequest{Node: "c1"}
	if st := p.nodeStatus(); st.GetState() != "serving" {
		t.Fatalf("nobody has drained it: %v", st)
	}
	r.must(p, "t1", "value 1", nil)
	if _, err := p.Pools().DrainNode(operator, ask); err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "it is drained", func() bool { return p.nodeStatus().GetState() == "drained" && other.holds("t1") == 1 })
	for _, end := range []func(*peer) error{
		func(p *peer) error { return p.Release(t.Context()) },
		func(p *peer) error { return p.Shutdown(t.Context()) },
	} {
		if err := end(p); err != nil {
			t.Fatal(err)
		}
		r.start(p)
		c, _ := other.view.Fleet().Controller("c1")
		if st := p.nodeStatus(); !c.Draining || st.GetState() != "drained" {
			t.Fatalf("after a restart: its record says %v, it says %v", c.Draining, st)
		}
		if err := r.run(p, "t2", "value 1", func(q *call.Request) { q.Spill = true }); !errs.Is(err, errs.NoCapacity) {
			t.Errorf("a new tenant after a restart: %v", err)
		}
	}
	if _, err := p.Pools().UndrainNode(operator, &pb.UndrainNodeRequest{Node: "c1"}); err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "it is warm again", func() bool { return p.Stats().Ready >= p.cfg.Pool.MinReady })
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.start(p)
	if st := p.nodeStatus(); st.GetState() != "serving" {
		t.Errorf("after it was taken back: %v", st)
	}
}

// Who takes a drain back at once has it taken back, however late the handing over begins.
func TestUndrainAtOnce(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	p, operator := r.all["c1"], as(t, identity.RoleOperator, "")
	for range 100 {
		if _, err := p.Pools().DrainNode(operator, &pb.DrainNodeRequest{Node: "c1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Pools().UndrainNode(operator, &pb.UndrainNodeRequest{Node: "c1"}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Await(t, "it is warm again", func() bool { return p.Stats().Ready >= p.cfg.Pool.MinReady })
	if st := p.nodeStatus(); st.GetState() != "serving" {
		t.Errorf("taken back, it is %s", st.GetState())
	}
}

// A controller that an operator drains while the store is out of sight hands its tenants over once it is in sight.
func TestDrainWithoutTheStore(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	r.tenants("acme")
	p, other := r.all["c1"], r.all["c2"]
	r.must(p, "acme", "value 1", nil)
	testenv.Await(t, "its record is seen", func() bool { return len(other.view.Holdings("acme")) == 1 })
	r.store.SetAway(true)
	testenv.Await(t, "the store is out of sight", func() bool { return p.view.Age() > outOfSight })
	if _, err := p.Pools().DrainNode(as(t, identity.RoleOperator, ""), &pb.DrainNodeRequest{Node: "c1"}); err != nil {
		t.Fatal(err)
	}
	r.store.SetAway(false)
	testenv.Await(t, "it is drained", func() bool { return p.nodeStatus().GetState() == "drained" && other.holds("acme") == 1 })
}

// A controller that is started again in the middle of a drain goes on with it.
func TestDrainGoesOnAfterARestart(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	r.tenants("t1")
	p, other := r.all["c1"], r.all["c2"]
	p.cfg.DrainFile = filepath.Join(t.TempDir(), "draining")
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.start(p)
	r.must(p, "t1", "value 1", nil)
	p.keepDrain() // as DrainNode does; it dies at once
	if err := p.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.start(p)
	testenv.Await(t, "what it adopted is warm elsewhere and gone here", func() bool {
		return other.holds("t1") == 1 && p.nodeStatus().GetState() == "drained"
	})
	if st := p.nodeStatus(); st.GetMoved() != 1 || st.GetUnprepared() != 0 {
		t.Errorf("%v", st)
	}
}

// Calls that outlast their tenant's drain_timeout are ended, and counted apart from those that a drain must not fail.
func TestOverdueCallsOfADrain(t *testing.T) {
	r := newFleetRig(t, "c1", "c2")
	const patience = 300 * time.Millisecond
	for id, timeout := range map[tenant.ID]time.Duration{"hasty": patience, "patient": time.Minute} {
		if _, err := r.cat.CreateTenant(t.Context(), id, &pb.Policy{DrainTimeout: durationpb.New(timeout)}); err != nil {
			t.Fatal(err)
		}
		for _, p := range r.all {
			testenv.Await(t, "the tenant is seen", func() bool { _, ok := p.view.Tenant(id); return ok })
		}
	}
	p := r.all["c1"]
	ends := map[tenant.ID]chan error{"hasty": make(chan error, 1), "patient": make(chan error, 1)}
	for id, end := range ends {
		view, _ := p.view.Tenant(id)
		go func() { end <- r.run(p, id, "gate "+string(id), func(q *call.Request) { q.Policy = view.Policy }) }()
		testenv.Await(t, "the call runs", func() bool { return p.holds(id) == 1 })
	}
	testenv.Await(t, "both run", func() bool { return p.Stats().InFlight == 2 })
	if _, err := p.Pools().DrainNode(as(t, identity.RoleOperator, ""), &pb.DrainNodeRequest{Node: "c1"}); err != nil {
		t.Fatal(err)
	}
	err := <-ends["hasty"]
	if e := errs.From(err); e == nil || e.Kind != errs.SandboxLost || e.WhetherStarted() != errs.StartedMaybe {
		t.Errorf("the call that outlasted its time: %v", err)
	}
	testenv.Await(t, "its container is gone", func() bool { return p.recycled(pool.CauseOverdue) == 1 })
	if st := p.nodeStatus(); st.GetOverdueCalls() != 1 || st.GetInFlight() != 1 || st.GetMoved() != 2 {
		t.Errorf("%v", st)
	}
	p.engine.Open("patient")
	if err := <-ends["patient"]; err != nil {
		t.Errorf("the call within its time: %v", err)
	}
	testenv.Await(t, "it is empty", func() bool { return p.nodeStatus().GetState() == "drained" })
	if st := p.nodeStatus(); st.GetOverdueCalls() != 1 {
		t.Errorf("%v", st)
	}
}
