package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"paddock/controller/catalog"
	"paddock/controller/logs"
	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/fake"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes"
)

// rig is a controller over a fake engine, with a real catalogue over a store in memory.
type rig struct {
	*Controller
	t      *testing.T
	store  *memstore.Store
	view   *catalog.View
	cat    *catalog.Service
	engine *fake.Engine
	cfg    Config
	calls  atomic.Int64
	down   bool // no controller runs
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, store: memstore.New(), engine: fake.New(fake.Options{InMemory: true})}
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
	if r.view, err = catalog.NewView(catalog.ViewOptions{Store: r.store, Blobs: blobs, KEK: kek}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.view.Close() })
	<-r.view.Ready()
	r.cfg = Config{
		ID: "c1", Region: "local", Store: r.store, Catalogue: r.view,
		Pool: pool.Config{
			Engine: r.engine, Listen: r.engine.Listen, Image: runtimes.Image{Runtime: "node", Digest: "image-1"}, RunDir: t.TempDir(),
			MinReady: 2, MaxReady: 2, MaxContainers: 8,
		},
	}
	r.start()
	r.cat, err = catalog.NewService(catalog.Options{Store: r.store, View: r.view, Blobs: blobs, KEK: kek, Remover: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for _, v := range r.engine.Violations() {
			t.Error(v)
		}
	})
	return r
}

// start begins a controller over the same engine and store, as a new process would.
func (r *rig) start() {
	r.t.Helper()
	r.Controller = started(r.t, r.cfg)
}

// started is a controller that is ready.
func started(t *testing.T, cfg Config) *Controller {
	t.Helper()
	cfg.Logs = logs.New(logs.Options{})
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !c.Draining() {
		<-c.Ready()
	}
	return c
}

func (r *rig) RemoveTenant(ctx context.Context, t tenant.ID) (int, error) {
	if r.down {
		return 0, nil
	}
	return r.Controller.RemoveTenant(ctx, t)
}

func (r *rig) tenant(id tenant.ID) {
	r.t.Helper()
	if _, err := r.cat.CreateTenant(r.t.Context(), id, nil); err != nil {
		r.t.Fatal(err)
	}
}

// run runs a program of the fake engine.
func (r *rig) run(t tenant.ID, program string) (string, error) {
	policy := tenant.DefaultPolicy()
	res, err := r.Invoke(r.t.Context(), &call.Request{
		ID: call.ID(fmt.Sprintf("call-%d", r.calls.Add(1))), Tenant: t, Policy: &policy, Runtime: "node",
		Code: call.Code{Hash: program, Source: []byte(program)}, Body: []byte("{}"), Deadline: time.Now().Add(20 * time.Second),
	}, nil)
	if err != nil {
		return "", err
	}
	return string(res.Value), nil
}

func (r *rig) records() (keys []string) {
	kvs, _, _ := r.store.List(r.t.Context(), store.AssignmentsOf("c1"))
	for _, kv := range kvs {
		keys = append(keys, kv.Key)
	}
	return keys
}

func TestInvokeAssignsAndRecords(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	testenv.Await(t, "registration", r.Registered)
	before := r.store.Stats()
	if got, err := r.run("acme", "value 42"); err != nil || got != "42" {
		t.Fatalf("%q, %v", got, err)
	}
	testenv.Await(t, "the record", func() bool { return len(r.records()) == 1 })
	for range 100 {
		if _, err := r.run("acme", "value 42"); err != nil {
			t.Fatal(err)
		}
	}
	after := r.store.Stats()
	if after.Writes-before.Writes != 1 {
		t.Errorf("%d writes for one assignment and 101 calls", after.Writes-before.Writes)
	}
	if !strings.Contains(r.records()[0], "/c1/acme/node/") {
		t.Errorf("record %q", r.records()[0])
	}
}

func TestUnknownAndSuspendedTenantsAreRefused(t *testing.T) {
	r := newRig(t)
	if _, err := r.run("nobody", "value 1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("an unknown tenant: %v", err)
	}
	r.tenant("acme")
	if _, err := r.cat.SuspendTenant(t.Context(), "acme", false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.run("acme", "value 1"); !errs.Is(err, errs.Denied) {
		t.Errorf("a suspended tenant: %v", err)
	}
}

func TestSuspensionCancelsAndResumes(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	failed := make(chan error, 1)
	go func() {
		_, err := r.run("acme", "log begun;gate never")
		failed <- err
	}()
	testenv.Await(t, "the call runs", func() bool { return len(r.logs.Kept("acme", logs.Filter{}, 1, time.Now())) == 1 })
	if _, err := r.cat.SuspendTenant(t.Context(), "acme", false); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errs.Is(err, errs.Cancelled) {
		t.Errorf("the call in flight: %v", err)
	}
	testenv.Await(t, "its containers go", func() bool { return len(r.pool.Containers("acme")) == 0 })
	if len(r.logs.Kept("acme", logs.Filter{}, 1, time.Now())) != 1 {
		t.Error("a suspended tenant lost its logs")
	}
	if _, err := r.cat.SuspendTenant(t.Context(), "acme", true); err != nil {
		t.Fatal(err)
	}
	if got, err := r.run("acme", "value 1"); err != nil || got != "1" {
		t.Errorf("after the end of the suspension: %q, %v", got, err)
	}
}

func TestDeletionTakesEverything(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	if _, err := r.run("acme", "log hello;value 1"); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := r.run("acme", "log begun;gate never")
		failed <- err
	}()
	testenv.Await(t, "the call runs", func() bool { return len(r.logs.Kept("acme", logs.Filter{}, 9, time.Now())) == 2 })
	d, err := r.cat.DeleteTenant(t.Context(), "acme")
	if err != nil || d.Containers != 1 {
		t.Errorf("deleted %+v, %v", d, err)
	}
	if err := <-failed; !errs.Is(err, errs.Cancelled) {
		t.Errorf("the call in flight: %v", err)
	}
	if left := r.pool.Containers("acme"); len(left) != 0 {
		t.Errorf("containers are left: %+v", left)
	}
	testenv.Await(t, "logs go", func() bool { return r.logs.Stats() == (logs.Stats{}) })
	if _, err := r.run("acme", "value 1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a call afterwards: %v", err)
	}
}

func TestIsolationChangeDrains(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	if _, err := r.run("acme", "value 1"); err != nil {
		t.Fatal(err)
	}
	gvisor := "gvisor"
	if _, err := r.cat.UpdateTenant(t.Context(), "acme", &pb.Policy{Isolation: &gvisor}); err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "its container drains", func() bool { return len(r.pool.Containers("acme")) == 0 })
}

func TestStoreAwayStopsNobody(t *testing.T) {
	r := newRig(t)
	r.tenant("old")
	r.tenant("new")
	if _, err := r.run("old", "value 1"); err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "the record", func() bool { return len(r.records()) == 1 })
	r.store.SetAway(true)
	for _, id := range []tenant.ID{"old", "new"} { // warm, and one that needs a container
		if got, err := r.run(id, "value 2"); err != nil || got != "2" {
			t.Errorf("%s with the store away: %q, %v", id, got, err)
		}
	}
	r.store.SetAway(false)
	testenv.Await(t, "what was missed is written", func() bool { return len(r.records()) == 2 })
}

func TestRestartKeepsRecordsAndEndsStrangers(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	r.tenant("gone")
	for _, id := range []tenant.ID{"acme", "gone"} {
		if _, err := r.run(id, "value 1"); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Await(t, "the records", func() bool { return len(r.records()) == 2 })
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.down = true
	if _, err := r.Controller.RemoveTenant(t.Context(), "gone"); !errs.Is(err, errs.NoCapacity) {
		t.Errorf("a stopped controller removes tenants: %v", err)
	}
	if n := len(r.records()); n != 2 {
		t.Fatalf("%d records after a stop that leaves the containers", n)
	}
	// While nobody runs: a record of a container that is no more, and a tenant that is deleted.
	stale := store.Assignment("c1", "acme", "node", strings.Repeat("0", 32))
	if _, err := r.store.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: stale}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.cat.DeleteTenant(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	puts := r.store.Stats().Puts
	r.down = false
	r.start()
	testenv.Await(t, "strangers go", func() bool { return len(r.pool.Containers("gone")) == 0 })
	if err := r.assignments.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.records(); len(got) != 1 || !strings.Contains(got[0], "/acme/") || got[0] == stale {
		t.Errorf("records %v", got)
	}
	if n := r.store.Stats().Puts - puts; n > 1 { // its own registration
		t.Errorf("%d puts: the adopted container's record was written again", n)
	}
	if got, err := r.run("acme", "value 2"); err != nil || got != "2" {
		t.Errorf("on the adopted container: %q, %v", got, err)
	}
}

func TestShutdownLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	if _, err := r.run("acme", "value 1"); err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "registration", r.Registered)
	testenv.Await(t, "the record", func() bool { return len(r.records()) == 1 })
	_, tail := r.logs.Subscribe("acme", logs.Filter{}, 0, time.Now())
	if err := r.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	if live := r.engine.Live(); len(live) != 0 {
		t.Errorf("%d containers are left", len(live))
	}
	if n := len(r.records()); n != 0 {
		t.Errorf("%d records are left", n)
	}
	if _, err := r.store.Get(t.Context(), store.Controller("c1")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("still registered: %v", err)
	}
	if _, open := <-tail.Lines(); open {
		t.Error("a log tail goes on")
	}
	if _, err := r.run("acme", "value 1"); err == nil {
		t.Error("a call after the end")
	}
}

func as(t *testing.T, role identity.Role, id tenant.ID) context.Context {
	return identity.With(t.Context(), identity.Identity{Role: role, Tenant: id})
}

func TestPoolsAreForOperators(t *testing.T) {
	r := newRig(t)
	s := r.Pools()
	for name, do := range map[string]func(context.Context) error{
		"list":    func(ctx context.Context) error { _, err := s.ListContainers(ctx, nil); return err },
		"get":     func(ctx context.Context) error { _, err := s.GetPool(ctx, nil); return err },
		"explain": func(ctx context.Context) error { _, err := s.Explain(ctx, nil); return err },
		"resize":  func(ctx context.Context) error { _, err := s.Resize(ctx, &pb.ResizeRequest{}); return err },
		"drain":   func(ctx context.Context) error { _, err := s.Drain(ctx, &pb.DrainRequest{All: true}); return err },
	} {
		if err := do(t.Context()); !errs.Is(err, errs.Unauthenticated) {
			t.Errorf("%s by nobody: %v", name, err)
		}
		if err := do(as(t, identity.RoleTenantAdmin, "acme")); !errs.Is(err, errs.Denied) {
			t.Errorf("%s by a tenant's admin: %v", name, err)
		}
		if err := do(as(t, identity.RoleOperator, "")); err != nil {
			t.Errorf("%s by an operator: %v", name, err)
		}
	}
}

func TestPoolsShowAndSteer(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	if _, err := r.run("acme", "value 1"); err != nil {
		t.Fatal(err)
	}
	ctx, s := as(t, identity.RoleOperator, ""), r.Pools()
	list, err := s.ListContainers(ctx, &pb.ListContainersRequest{Tenant: "acme"})
	if err != nil || len(list.GetContainers()) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	c := list.GetContainers()[0]
	if c.GetState() != "assigned" || c.GetTenant() != "acme" || c.GetCalls() != 1 || c.GetEngine() != "fake/runc" || c.GetLastUsed() == nil {
		t.Errorf("container %v", c)
	}
	explained, err := s.Explain(ctx, &pb.ExplainRequest{Container: c.GetId()})
	if err != nil || len(explained.GetContainers()) != 1 || explained.GetContainers()[0].GetCause() != "idle" ||
		!strings.HasPrefix(explained.GetContainers()[0].GetNext(), "drains (idle) in ") {
		t.Errorf("explained: %v, %v", explained, err)
	}
	if _, err := s.Explain(ctx, &pb.ExplainRequest{Container: "none"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("explain none: %v", err)
	}
	two := int32(1)
	st, err := s.Resize(ctx, &pb.ResizeRequest{MinReady: &two})
	if err != nil || st.GetMinReady() != 1 || st.GetMaxContainers() != 8 {
		t.Errorf("resized: %v, %v", st, err)
	}
	minus := int32(-1)
	if _, err := s.Resize(ctx, &pb.ResizeRequest{MinReady: &minus}); !errs.Is(err, errs.Invalid) {
		t.Errorf("resize to -1: %v", err)
	}
	if _, err := s.Drain(ctx, &pb.DrainRequest{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("drain of nothing: %v", err)
	}
	if _, err := s.Drain(ctx, &pb.DrainRequest{Container: "none"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("drain of none: %v", err)
	}
	if d, err := s.Drain(ctx, &pb.DrainRequest{Tenant: "acme"}); err != nil || d.GetContainers() != 1 {
		t.Errorf("drained: %v, %v", d, err)
	}
}

func TestTailShowsOnesOwnKeptAndLive(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	r.tenant("bolt")
	for _, id := range []tenant.ID{"acme", "bolt"} {
		if _, err := r.run(id, "log kept of "+string(id)+";value 1"); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Await(t, "lines", func() bool { return len(r.logs.Kept("acme", logs.Filter{}, 1, time.Now())) == 1 })
	got := make(chan *pb.LogLine, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- r.Kept().Tail(ctx, "acme", &pb.TailRequest{Follow: true, Lines: 10}, func(lines []*pb.LogLine) error {
			for _, l := range lines {
				got <- l
			}
			return nil
		}, func(l *pb.LogLine) error { got <- l; return nil })
	}()
	if l := <-got; l.GetText() != "kept of acme" || l.GetCallId() == "" || l.GetContainerId() == "" {
		t.Fatalf("%v", l)
	}
	for _, id := range []tenant.ID{"bolt", "acme"} {
		if _, err := r.run(id, "log live of "+string(id)+";value 1"); err != nil {
			t.Fatal(err)
		}
	}
	if l := <-got; l.GetText() != "live of acme" {
		t.Errorf("%v", l)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
