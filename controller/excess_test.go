package controller

import (
	"testing"
	"time"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// What is above a tenant's maximum goes from the lowest ranks, when it has lasted, and for the sake of none that may be dead.
func TestExcess(t *testing.T) {
	r := newFleetRig(t, "c1")
	r.tenants("acme") // which may have four
	p := r.all["c1"]
	first := &pb.ControllerRecord{Id: "first", Address: "first:1", Region: "local", Capacity: 1 << 30}
	r.record(store.Controller("first"), first)
	for _, id := range []string{"a", "b", "c"} {
		r.record(store.Assignment("first", "acme", "node", id), &pb.AssignmentRecord{})
	}
	r.must(p, "acme", "value 1", func(q *call.Request) { q.Extra = true })
	testenv.Await(t, "its own record is seen", func() bool { return len(p.view.Holdings("acme")) == 2 })
	me, _ := p.view.Fleet().Controller("c1")
	o := newOthers(p.Controller, p.view) // one that nothing runs
	long := time.Now().Add(-time.Hour)
	wants := func(what string, n, want int) {
		t.Helper()
		if got, _ := o.keep("acme", n, me); got != want {
			t.Errorf("%s: %d of %d stay, want %d", what, got, n, want)
		}
	}
	live := func() { // the other shows life after what is here was bound
		o.bound = map[call.ContainerID]bound{p.pool.Containers("acme")[0].ID: {time.Now(), p.view.Revision()}}
		r.record(store.Controller("first"), first)
		me, _ = p.view.Fleet().Controller("c1")
	}
	live()
	wants("as many as it may have", 1, 1)
	wants("one too many, just now", 2, 2)
	o.excess["acme"] = long
	wants("one too many", 2, 1)
	wants("as many too many as are here", 3, 1)
	wants("in step again", 1, 1)
	wants("one too many, just now again", 2, 2)

	r.record(store.Assignment("first", "acme", "node", "d"), &pb.AssignmentRecord{})
	live()
	o.excess["acme"] = long
	wants("the other has all that it may", 1, 0)
	o.bound = map[call.ContainerID]bound{}
	for _, i := range p.pool.Containers("acme") {
		o.bound[i.ID] = bound{time.Now(), p.view.Revision()}
	}
	o.excess["acme"] = long
	wants("the other may be dead", 1, 1)
	first.Draining = true
	live()
	o.excess["acme"] = long
	wants("the other drains", 1, 1)
	first.Draining, first.Capacity = false, 1
	live()
	o.excess["acme"] = long
	wants("the other ranks lower", 1, 1)
	if _, awaited := o.keep("acme", 1, me); !awaited {
		t.Error("the other does not hear that this one lives")
	}
}
