package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/placement"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// ControllerView is a controller that has registered: it counts as alive as long as its record is there. Nobody changes one.
type ControllerView struct {
	ID         string
	Address    string // "": it is reached by nobody else
	Region     string
	Version    string
	TrustClass string
	Runtimes   []string
	Isolation  tenant.Isolation
	Capacity   int
	Draining   bool
	Unheard    bool // by routers
	Revision   int64
}

// Candidate is the controller as placement sees it.
func (c *ControllerView) Candidate() placement.Candidate {
	return placement.Candidate{ID: c.ID, Weight: c.Capacity}
}

// MayRun says whether the controller runs code of tenants with this policy, regions left aside.
func (c *ControllerView) MayRun(p *tenant.Policy, runtime string) bool {
	return c.TrustClass == p.TrustClass && (p.Isolation == tenant.IsolationAny || p.Isolation == c.Isolation) &&
		(len(c.Runtimes) == 0 || slices.Contains(c.Runtimes, runtime))
}

// Fleet is all registered controllers. Nobody changes one: where the pointer is the same, nothing has changed.
type Fleet struct {
	All  []*ControllerView // by id
	byID map[string]*ControllerView
}

// Controller returns a controller and whether it is registered.
func (f *Fleet) Controller(id string) (*ControllerView, bool) {
	c, ok := f.byID[id]
	return c, ok
}

// Holding is what one controller has of a tenant.
type Holding struct {
	Controller string
	Runtime    string
	Containers int
	Extra      bool  // all of them were added because others were full
	Revision   int64 // of the newest of their records
}

// fleetView is the part of a View that tells who serves and what they hold. What controllers write of their containers comes
// behind the calls: it says where to look first, never who may run.
type fleetView struct {
	fleet    atomic.Pointer[Fleet]
	holdings *table[tenant.ID, *holdings]
	runtimes *table[string, *RuntimeView]
}

// holdings are a tenant's containers. Nobody changes one that readers can see.
type holdings struct {
	all  map[heldBy]held // by container
	list []Holding       // summed up
}

// held is what a record says of one container.
type held struct {
	extra    bool
	revision int64
}

type heldBy struct{ controller, runtime, container string }

func newFleetView() *fleetView {
	v := &fleetView{holdings: newTable[tenant.ID, *holdings](), runtimes: newTable[string, *RuntimeView]()}
	v.fleet.Store(&Fleet{byID: map[string]*ControllerView{}})
	return v
}

// Fleet returns the controllers that are registered now.
func (v *View) Fleet() *Fleet { return v.serving.fleet.Load() }

// Holdings returns what controllers, registered or not, say that they hold of a tenant. Nobody may change the slice.
func (v *View) Holdings(t tenant.ID) []Holding {
	if h, ok := v.serving.holdings.get(t); ok {
		return h.list
	}
	return nil
}

// HeldBy returns the tenants of whom a controller, registered or not, says that it holds containers. It looks through all of them.
func (v *View) HeldBy(controller string) (all []tenant.ID) {
	v.serving.holdings.all(func(t tenant.ID, h *holdings) bool {
		if slices.ContainsFunc(h.list, func(o Holding) bool { return o.Controller == controller }) {
			all = append(all, t)
		}
		return true
	})
	return all
}

// fleetEdit collects changes of a fleetView.
type fleetEdit struct {
	view     *fleetView
	fleet    map[string]*ControllerView // nil: unchanged
	holdings *edit[tenant.ID, *holdings]
	runtimes *edit[string, *RuntimeView]
	mine     map[tenant.ID]*holdings
}

func (v *fleetView) edit() *fleetEdit {
	return &fleetEdit{view: v, holdings: v.holdings.edit(), runtimes: v.runtimes.edit(), mine: map[tenant.ID]*holdings{}}
}

func (e *fleetEdit) controllers() map[string]*ControllerView {
	if e.fleet == nil {
		e.fleet = maps.Clone(e.view.fleet.Load().byID)
	}
	return e.fleet
}

func (e *fleetEdit) putController(id string, value []byte, rev int64) error {
	var r pb.ControllerRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return err
	}
	if r.GetId() != id || r.GetCapacity() < 0 {
		return fmt.Errorf("it says that it is controller %.80q, with a capacity of %d", r.GetId(), r.GetCapacity())
	}
	e.controllers()[id] = &ControllerView{
		ID: id, Address: r.GetAddress(), Region: r.GetRegion(), Version: r.GetVersion(), TrustClass: r.GetTrustClass(),
		Runtimes: r.GetRuntimes(), Isolation: tenant.Isolation(r.GetIsolation()), Capacity: int(r.GetCapacity()),
		Draining: r.GetDraining(), Unheard: r.GetUnheard(), Revision: rev,
	}
	return nil
}

func (e *fleetEdit) putAssignment(parts []string, value []byte, rev int64) error {
	var r pb.AssignmentRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return err
	}
	by, t := splitAssignment(parts)
	e.own(t).all[by] = held{r.GetExtra(), rev}
	return nil
}

func (e *fleetEdit) removeAssignment(parts []string) {
	by, t := splitAssignment(parts)
	delete(e.own(t).all, by)
}

func splitAssignment(parts []string) (heldBy, tenant.ID) {
	return heldBy{parts[0], parts[2], parts[3]}, tenant.ID(parts[1])
}

func (e *fleetEdit) own(t tenant.ID) *holdings {
	h := e.mine[t]
	if h == nil {
		h = &holdings{all: map[heldBy]held{}}
		if old, ok := e.holdings.get(t); ok {
			h.all = maps.Clone(old.all)
		}
		e.mine[t] = h
	}
	return h
}

func (e *fleetEdit) publish() {
	for t, h := range e.mine {
		if len(h.all) == 0 {
			e.holdings.del(t)
			continue
		}
		h.sum()
		e.holdings.set(t, h)
	}
	e.holdings.publish()
	e.runtimes.publish()
	if e.fleet == nil {
		return
	}
	f := &Fleet{byID: e.fleet}
	f.All = slices.SortedFunc(maps.Values(e.fleet), func(a, b *ControllerView) int { return strings.Compare(a.ID, b.ID) })
	e.view.fleet.Store(f)
}

func (h *holdings) sum() {
	h.list = nil
	for by, one := range h.all {
		i := slices.IndexFunc(h.list, func(o Holding) bool { return o.Controller == by.controller && o.Runtime == by.runtime })
		if i < 0 {
			i = len(h.list)
			h.list = append(h.list, Holding{Controller: by.controller, Runtime: by.runtime, Extra: true})
		}
		h.list[i].Containers++
		h.list[i].Extra = h.list[i].Extra && one.extra
		h.list[i].Revision = max(h.list[i].Revision, one.revision)
	}
	slices.SortFunc(h.list, func(a, b Holding) int {
		return strings.Compare(a.Controller+"/"+a.Runtime, b.Controller+"/"+b.Runtime)
	})
}

// putFleet takes in a record of a controller's own; done is false for every other one.
func (a *apply) putFleet(kind store.Kind, parts []string, value []byte, rev int64) (done bool, err error) {
	switch kind {
	case store.KindController:
		a.notice(ControllerChanged, "", parts[0])
		return true, a.serving.putController(parts[0], value, rev)
	case store.KindAssignment:
		a.notice(HoldingChanged, tenant.ID(parts[1]), "")
		return true, a.serving.putAssignment(parts, value, rev)
	case store.KindRuntime:
		a.notice(RuntimeChanged, "", parts[0])
		return true, a.serving.putRuntime(parts[0], value, rev)
	}
	return false, nil
}

func (a *apply) removeFleet(kind store.Kind, parts []string) {
	switch kind {
	case store.KindController:
		delete(a.serving.controllers(), parts[0])
		a.notice(ControllerRemoved, "", parts[0])
	case store.KindRuntime:
		a.serving.runtimes.del(parts[0])
		a.notice(RuntimeChanged, "", parts[0])
	case store.KindAssignment:
		a.serving.removeAssignment(parts)
		a.notice(HoldingChanged, tenant.ID(parts[1]), "")
	}
}
