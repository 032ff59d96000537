package catalog

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	pb "paddock/proto/paddock/v1"
)

func (w *world) record(key string, m proto.Message) {
	w.t.Helper()
	value, err := proto.Marshal(m)
	must(w.t, err)
	kv, _ := w.store.Get(w.t.Context(), key)
	rev, err := w.store.Commit(w.t.Context(), store.Txn{
		Guards: []store.Guard{{Key: key, ModRevision: kv.ModRevision}}, Puts: []store.Put{{Key: key, Value: value}},
	})
	must(w.t, err)
	must(w.t, w.view.WaitRevision(w.t.Context(), rev))
}

func (w *world) erase(key string) {
	w.t.Helper()
	rev, err := w.store.Commit(w.t.Context(), store.Txn{Deletes: []string{key}})
	must(w.t, err)
	must(w.t, w.view.WaitRevision(w.t.Context(), rev))
}

// Routers see who serves, and who has what of a tenant.
func TestFleet(t *testing.T) {
	w := newWorld(t, mem(t))
	empty := w.view.Fleet()
	if len(empty.All) != 0 {
		t.Fatalf("%v", empty.All)
	}
	w.record(store.Controller("b"), &pb.ControllerRecord{Id: "b", Address: "10.0.0.2:1", Capacity: 7, TrustClass: "low", Region: "r",
		Runtimes: []string{"node"}, Isolation: "gvisor", Version: "v1"})
	w.record(store.Controller("a"), &pb.ControllerRecord{Id: "a", Capacity: 5})
	f := w.view.Fleet()
	b, ok := f.Controller("b")
	if len(f.All) != 2 || f.All[0].ID != "a" || !ok || b.Address != "10.0.0.2:1" || b.Capacity != 7 || b.TrustClass != "low" || b.Draining {
		t.Errorf("%+v", b)
	}
	w.record(store.Controller("b"), &pb.ControllerRecord{Id: "b", Draining: true})
	if b, _ := w.view.Fleet().Controller("b"); !b.Draining {
		t.Error("not seen to drain")
	}
	want := func(all ...Holding) {
		t.Helper()
		got := slices.Clone(w.view.Holdings("acme"))
		for i := range got {
			if got[i].Revision == 0 {
				t.Errorf("%+v is of no revision", got[i])
			}
			got[i].Revision = 0
		}
		if !slices.Equal(got, all) {
			t.Errorf("holdings %+v, want %+v", got, all)
		}
	}
	want()
	w.record(store.Assignment("a", "acme", "node", "c1"), &pb.AssignmentRecord{})
	before := w.view.Fleet()
	w.record(store.Assignment("b", "acme", "node", "c2"), &pb.AssignmentRecord{Extra: true})
	w.record(store.Assignment("a", "acme", "node", "c3"), &pb.AssignmentRecord{Extra: true})
	want(Holding{Controller: "a", Runtime: "node", Containers: 2}, Holding{Controller: "b", Runtime: "node", Containers: 1, Extra: true})
	if w.view.Fleet() != before {
		t.Error("the fleet is another one although no controller changed")
	}
	w.erase(store.Assignment("a", "acme", "node", "c1"))
	want(Holding{Controller: "a", Runtime: "node", Containers: 1, Extra: true}, Holding{Controller: "b", Runtime: "node", Containers: 1, Extra: true})
	w.erase(store.Assignment("a", "acme", "node", "c3"))
	w.erase(store.Assignment("b", "acme", "node", "c2"))
	want()
	w.erase(store.Controller("b"))
	if f := w.view.Fleet(); len(f.All) != 1 {
		t.Errorf("%v", f.All)
	}
	// A record that cannot be read leaves what was there.
	_, err := w.store.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: store.Controller("a"), Value: []byte{0xff}}}})
	must(t, err)
	w.record(store.Controller("z"), &pb.ControllerRecord{Id: "z"})
	if a, ok := w.view.Fleet().Controller("a"); !ok || a.Capacity != 5 {
		t.Errorf("after garbage: %+v", a)
	}
}
