package fleet

import (
	"fmt"
	"sync"
	"testing"

	"paddock/controller/catalog"
	"paddock/internal/errs"
	"paddock/internal/testenv"
)

// What is full takes no more: the next container is made on another machine, up to the tenant's number; then calls wait where
// there are fewest.
func TestBusyTenantsSpread(t *testing.T) {
	r := newRig(t, nil)
	r.world.policy.CallsPerContainer, r.world.policy.MaxContainers = 2, 2
	order := r.order("acme")
	var over sync.WaitGroup
	release := make(chan struct{})
	for _, m := range r.machines {
		m.hold = release
	}
	defer func() { close(release); over.Wait() }()
	where := func() (all [3]int) {
		for i, id := range order {
			all[i] = r.machines[id].served()
		}
		return all
	}
	for i, want := range [][3]int{{1, 0, 0}, {2, 0, 0}, {2, 1, 0}, {2, 2, 0}, {3, 2, 0}, {3, 3, 0}} {
		over.Go(func() { _, _ = r.invoke(r.request("acme")) })
		testenv.Await(t, fmt.Sprintf("call %d makes it %v", i, want), func() bool { return where() == want })
	}
	if extra := r.machines[order[1]].calls[0].Extra; !extra || r.machines[order[0]].calls[0].Extra {
		t.Error("the first container is extra, or the second is not")
	}
	if most := r.machines[order[0]].calls[2].AtMost; most != 1 {
		t.Errorf("a call that waits may have %d containers made", most)
	}
}

// A tenant that has all that it may have, filled by other routers' calls, waits where its containers are: nobody makes another one.
func TestFullTenantsWait(t *testing.T) {
	r := newRig(t, nil)
	r.world.policy.MaxContainers = 2
	order := r.order("acme")
	r.hold("acme", catalog.Holding{Controller: order[0], Runtime: "node", Containers: 1}, catalog.Holding{Controller: order[1], Runtime: "node", Containers: 1})
	r.machines[order[0]].full.Store(true)
	r.machines[order[1]].full.Store(true)
	r.must(r.request("acme"), order[0])
	if n := r.machines[order[1]].served(); n != 1 {
		t.Errorf("the other one was asked %d times", n)
	}
	r.world.policy.MaxContainers = 3
	r.must(r.request("acme"), order[2])
}

// A controller whose record of a tenant goes has no container of it any more, whatever calls that were sent there before still do.
func TestWhoseRecordGoes(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	last, release := r.machines[order[2]], make(chan struct{})
	last.hold = release
	total := func() int {
		return r.fleet.look(r.request("acme"), r.fleet.classOf(r.request("acme")), r.fleet.routeOf("acme"), nil, true).total
	}
	r.hold("acme", catalog.Holding{Controller: order[2], Runtime: "node", Containers: 1})
	var over sync.WaitGroup
	over.Go(func() { _, _ = r.invoke(r.request("acme")) })
	testenv.Await(t, "the call is there", func() bool { return last.served() == 1 })
	if n := total(); n != 1 {
		t.Errorf("%d containers, want 1", n)
	}
	r.hold("acme")
	if n := total(); n != 0 {
		t.Errorf("%d containers while a call runs where it was given up, want none", n)
	}
	close(release)
	over.Wait()
	if n := total(); n != 0 {
		t.Errorf("%d containers when that call is over, want none", n)
	}
	r.must(r.request("acme"), order[0])
	if n := total(); n != 1 {
		t.Errorf("%d containers where one has just served, want 1", n)
	}
}

// Who is full refuses, and the next in order serves.
func TestSpill(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	r.machines[order[0]].refuse = &errs.Error{Kind: errs.NoCapacity, Message: "full", Started: errs.StartedNo}
	r.must(r.request("acme"), order[1])
	r.must(r.request("acme"), order[1]) // and goes on doing so, without asking home again
	if n := r.machines[order[0]].served(); n != 1 {
		t.Errorf("home was asked %d times", n)
	}
}

// Who is full is where a call waits when all others turn out to be gone, or are known to be.
func TestFullIsBetterThanGone(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	r.must(r.request("acme"), order[0])
	r.machines[order[0]].full.Store(true)
	r.machines[order[2]].server.Stop()
	testenv.Await(t, "that the last is gone is known", func() bool { return !r.fleet.members.Load().byID[order[2]].usable() })
	r.machines[order[1]].server.Stop()
	r.must(r.request("acme"), order[0])
	testenv.Await(t, "that both are gone is known", func() bool { return !r.fleet.members.Load().byID[order[1]].usable() })
	r.must(r.request("acme"), order[0])
}

// A call that two have sent on because they are full does not make a container where there was one until a moment ago: it waits.
func TestOldRecordIsNoRoom(t *testing.T) {
	r := newRig(t, nil)
	r.world.policy.MaxContainers = 3
	order := r.order("acme")
	var all []catalog.Holding
	for _, id := range order {
		all = append(all, catalog.Holding{Controller: id, Runtime: "node", Containers: 1})
		r.machines[id].full.Store(true)
	}
	r.hold("acme", all...)
	moved := r.machines[order[2]]
	moved.full.Store(false)
	moved.moved.Store(true)
	got, err := r.invoke(r.request("acme"))
	if err != nil || got == moved.id {
		t.Errorf("served by %q, %v", got, err)
	}
	moved.moved.Store(false)
	r.fleet.routes.Purge()
	if got, err := r.invoke(r.request("acme")); err != nil || got != moved.id {
		t.Errorf("served by %q, %v: %s has room", got, err, moved.id)
	}
}

// Who drains serves when all others drain or turn out to be gone, or are known to be.
func TestDrainingIsBetterThanGone(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	usable := func(id string) bool { return r.fleet.members.Load().byID[id].usable() }
	for _, id := range order[:2] {
		r.machines[id].draining.Store(true)
		r.machines[id].retired.Store(true)
		testenv.Await(t, "its draining is seen", func() bool { return r.fleet.members.Load().byID[id].drains() })
	}
	r.machines[order[2]].server.Stop()
	if got, err := r.invoke(r.request("acme")); err != nil && errs.From(err).WhetherStarted() == errs.StartedNo { // or it broke on its way
		t.Errorf("one is gone, and two drain: served by %q, %v", got, err)
	}
	testenv.Await(t, "that it is gone is known", func() bool { return !usable(order[2]) })
	if got, err := r.invoke(r.request("globex")); err != nil {
		t.Errorf("one is known to be gone, and two drain: served by %q, %v", got, err)
	}
	r.machines[order[1]].server.Stop()
	testenv.Await(t, "that both are gone is known", func() bool { return !usable(order[1]) })
	if got, err := r.invoke(r.request("initech")); err != nil || got != order[0] {
		t.Errorf("two are known to be gone, and one drains: served by %q, %v", got, err)
	}
}

// Who was full and has had the call wait is not asked a third time.
func TestFullWhereItWaited(t *testing.T) {
	r := newRig(t, nil)
	order := r.order("acme")
	r.must(r.request("acme"), order[0])
	r.machines[order[0]].refuse = &errs.Error{Kind: errs.NoCapacity, Cause: errs.CauseFull, Message: "full", Started: errs.StartedNo}
	r.machines[order[1]].server.Stop()
	r.machines[order[2]].server.Stop()
	testenv.Await(t, "that the others are gone is known", func() bool {
		all := r.fleet.members.Load().byID
		return !all[order[1]].usable() && !all[order[2]].usable()
	})
	before := r.machines[order[0]].served()
	if _, err := r.invoke(r.request("acme")); !errs.Is(err, errs.NoCapacity) {
		t.Errorf("%v, want no_capacity", err)
	}
	if n := r.machines[order[0]].served() - before; n > 2 {
		t.Errorf("it was asked %d times", n)
	}
}
