package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

func TestTenantLife(t *testing.T) {
	w := newWorld(t, mem(t))
	ctx := t.Context()
	v, err := w.service.CreateTenant(ctx, "acme", &pb.Policy{Concurrency: ptr[int32](7), Timeout: durationpb.New(time.Second)})
	must(t, err)
	if v.Policy.Concurrency != 7 || v.Policy.Timeout != time.Second || v.Policy.MaxContainers != tenant.DefaultMaxContainers {
		t.Errorf("%+v", v.Policy)
	}
	if got, ok := w.view.Tenant("acme"); !ok || got.Policy.Concurrency != 7 || got.Revision != v.Revision {
		t.Errorf("the view has %+v, %v", got, ok)
	}
	_, err = w.service.CreateTenant(ctx, "acme", nil)
	wantKind(t, err, errs.Conflict, "acme")
	v, err = w.service.UpdateTenant(ctx, "acme", &pb.Policy{
		Timeout: durationpb.New(1500 * time.Millisecond), Egress: &pb.Hosts{Hosts: []string{"a.example:443"}},
	})
	must(t, err)
	if v.Policy.Timeout != 1500*time.Millisecond || v.Policy.Concurrency != 7 || len(v.Policy.Egress) != 1 {
		t.Errorf("%+v", v.Policy)
	}
	v, err = w.service.UpdateTenant(ctx, "acme", &pb.Policy{Timeout: durationpb.New(2 * time.Second), Egress: &pb.Hosts{}})
	must(t, err)
	if v.Policy.Timeout != 2*time.Second || len(v.Policy.Egress) != 0 {
		t.Errorf("%+v", v.Policy)
	}
	v, err = w.service.SuspendTenant(ctx, "acme", false)
	must(t, err)
	if got, _ := w.view.Tenant("acme"); v.State != StateSuspended || !got.Policy.Suspended {
		t.Errorf("%+v, %+v", v, got)
	}
	v, err = w.service.SuspendTenant(ctx, "acme", true)
	must(t, err)
	if v.Policy.Suspended {
		t.Error("still suspended")
	}
	_, err = w.service.UpdateTenant(ctx, "nobody", nil)
	wantKind(t, err, errs.NotFound, "nobody")
}

func TestPolicyBounds(t *testing.T) {
	w := newWorld(t, mem(t))
	for _, c := range []struct {
		policy *pb.Policy
		says   []string
	}{
		{&pb.Policy{Timeout: durationpb.New(301 * time.Second)}, []string{"timeout", "5m1s", "5m0s"}},
		{&pb.Policy{Timeout: durationpb.New(-time.Second)}, []string{"timeout", "-1s"}},
		{&pb.Policy{MaxTimeout: durationpb.New(time.Second)}, []string{"timeout is 10s", "at most 1s"}},
		{&pb.Policy{Timeout: &durationpb.Duration{Seconds: 1, Nanos: -5}}, []string{"timeout", "valid"}},
		{&pb.Policy{SourceBytes: ptr[int64](1 << 40)}, []string{"source_bytes", "8388608"}},
		{&pb.Policy{Concurrency: ptr[int32](0)}, []string{"concurrency"}},
		{&pb.Policy{Concurrency: ptr[int32](10_001)}, []string{"10001", "10000"}},
		{&pb.Policy{MemoryBytes: ptr[int64](1 << 20)}, []string{"memory_bytes", "1048576", "33554432", "2147483648"}},
		{&pb.Policy{CpuMillis: ptr[int32](99)}, []string{"cpu_millis", "99", "100", "8000"}},
		{&pb.Policy{MaxPipelines: ptr[int32](10_001)}, []string{"max_pipelines", "10001", "10000"}},
		{&pb.Policy{PipelineTimeout: durationpb.New(301 * time.Second)}, []string{"pipeline_timeout", "5m1s", "5m0s"}},
		{&pb.Policy{RatePerSecond: ptr(nan())}, []string{"rate_per_second"}},
		{&pb.Policy{LogRetention: durationpb.New(721 * time.Hour)}, []string{"log_retention", "721h", "720h"}},
		{&pb.Policy{LogKeptBytes: ptr[int64](1 << 30)}, []string{"log_kept_bytes", "1073741824", "67108864"}},
		{&pb.Policy{RecordInputs: ptr[int32](1001)}, []string{"record_inputs", "1001", "1000"}},
		{&pb.Policy{Isolation: ptr("firecracker")}, []string{"firecracker"}},
		{&pb.Policy{Egress: &pb.Hosts{Hosts: []string{"example.com"}}}, []string{"egress", "example.com"}},
		{&pb.Policy{Egress: &pb.Hosts{Hosts: []string{"example.com:0"}}}, []string{"65535"}},
		{&pb.Policy{EgressPrivate: &pb.Hosts{Hosts: make([]string, 257)}}, []string{"257", "256"}},
		{&pb.Policy{Egress: &pb.Hosts{Hosts: []string{strings.Repeat("a", 300) + ":1"}}}, []string{"302"}},
		{&pb.Policy{Inject: &pb.Injections{Injections: []*pb.Injection{{Host: "a.example", Header: "X"}}}}, []string{"inject", "secret"}},
		{&pb.Policy{Inject: &pb.Injections{Injections: make([]*pb.Injection, 65)}}, []string{"65", "64"}},
	} {
		_, err := w.service.CreateTenant(t.Context(), "acme", c.policy)
		wantKind(t, err, errs.Invalid, c.says...)
	}
	if _, ok := w.view.Tenant("acme"); ok {
		t.Error("a refused tenant is there")
	}
}

// Who states a rate means it: what may come at once follows, unless it is stated, too.
func TestBurstFollowsTheRate(t *testing.T) {
	for _, c := range []struct {
		policy *pb.Policy
		burst  int
	}{
		{nil, tenant.DefaultRateBurst}, {&pb.Policy{}, tenant.DefaultRateBurst},
		{&pb.Policy{RatePerSecond: ptr(2.0)}, 4}, {&pb.Policy{RatePerSecond: ptr(0.1)}, 1},
		{&pb.Policy{RatePerSecond: ptr(2.0), RateBurst: ptr[int32](50)}, 50},
	} {
		m := tenant.DefaultMaxima()
		if p := resolvePolicy(c.policy, &m); p.RateBurst != c.burst {
			t.Errorf("%v: %d at once, want %d", c.policy, p.RateBurst, c.burst)
		}
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

// TestUnknownFieldsSurvive: a record of a newer Paddock keeps what this one does not know.
func TestUnknownFieldsSurvive(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	kv, err := w.store.Get(t.Context(), store.Tenant("acme"))
	must(t, err)
	var rec pb.TenantRecord
	must(t, proto.Unmarshal(kv.Value, &rec))
	field := protowire.AppendString(protowire.AppendTag(nil, 900, protowire.BytesType), "from the future")
	rec.ProtoReflect().SetUnknown(field)
	rec.Policy.ProtoReflect().SetUnknown(field)
	b, err := proto.Marshal(&rec)
	must(t, err)
	w.raw(store.Tenant("acme"), b)
	_, err = w.service.UpdateTenant(t.Context(), "acme", &pb.Policy{Concurrency: ptr[int32](3)})
	must(t, err)
	kv, err = w.store.Get(t.Context(), store.Tenant("acme"))
	must(t, err)
	if n := bytes.Count(kv.Value, []byte("from the future")); n != 2 {
		t.Errorf("%d of 2 unknown fields survived", n)
	}
}

func TestDeployVersions(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	first := w.deploy("acme", "rule", "one")
	if first.Version.Number != 1 || !first.New || first.Version.Hash != hashCode([]byte("one")) {
		t.Errorf("%+v", first)
	}
	again := w.deploy("acme", "rule", "one")
	if again.Version.Number != 1 || again.New || again.Revision != first.Revision {
		t.Errorf("the same code: %+v", again)
	}
	if two := w.deploy("acme", "rule", "two"); two.Version.Number != 2 {
		t.Errorf("%+v", two)
	}
	if v, ok := w.view.Function("acme", "rule", 0); !ok || v.Number != 2 {
		t.Errorf("active: %+v", v)
	}
	if back := w.deploy("acme", "rule", "one"); back.Version.Number != 1 || back.New {
		t.Errorf("back to the first: %+v", back)
	}
	if v, ok := w.view.Function("acme", "rule", 0); !ok || v.Number != 1 {
		t.Errorf("active: %+v", v)
	}
	if v, ok := w.view.Function("acme", "rule", 2); !ok || v.Number != 2 {
		t.Errorf("version 2: %+v, %v", v, ok)
	}
	d, err := w.service.DeployFunction(t.Context(), "acme", Deployment{
		Name: "rule", Source: []byte("one"), Kind: call.KindRule,
	})
	must(t, err)
	if d.Version.Number != 3 {
		t.Errorf("the same code as another kind: %+v", d)
	}
	if _, ok := w.view.Function("acme", "rule", 9); ok {
		t.Error("version 9 is there")
	}
	if _, ok := w.view.Function("other", "rule", 0); ok {
		t.Error("another tenant has it")
	}
	src, err := w.view.Source(t.Context(), "acme", first.Version.Hash)
	if err != nil || string(src) != "one" {
		t.Errorf("source %q, %v", src, err)
	}
}

func TestVersionsAreBounded(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	for i := range MaxVersions + 5 {
		w.deploy("acme", "rule", fmt.Sprint("v", i+1))
	}
	if _, ok := w.view.Function("acme", "rule", 5); ok {
		t.Error("version 5 is still there")
	}
	if v, ok := w.view.Function("acme", "rule", 6); !ok || v.Hash != hashCode([]byte("v6")) {
		t.Errorf("version 6: %+v", v)
	}
	if v, ok := w.view.Function("acme", "rule", 0); !ok || v.Number != MaxVersions+5 {
		t.Errorf("active: %+v", v)
	}
	_, err := w.service.DeleteFunction(t.Context(), "acme", "rule")
	must(t, err)
	if kvs, _, err := w.store.List(t.Context(), store.AllVersionsOf("acme")); err != nil || len(kvs) != 0 {
		t.Errorf("%d versions left, %v", len(kvs), err)
	}
}

func TestBadDeployments(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", &pb.Policy{SourceBytes: ptr[int64](100)})
	for _, c := range []struct {
		d    Deployment
		kind errs.Kind
		says []string
	}{
		{Deployment{Name: "f", Source: nil}, errs.Invalid, []string{"empty"}},
		{Deployment{Name: "f", Source: []byte(" \n")}, errs.Invalid, []string{"empty"}},
		{Deployment{Name: "f", Source: []byte("ab\xff")}, errs.Invalid, []string{"UTF-8", "byte 2"}},
		{Deployment{Name: "f", Source: make([]byte, 101)}, errs.Invalid, []string{"101", "100"}},
		{Deployment{Name: "f", Source: []byte("x"), Runtime: "cobol"}, errs.Invalid, []string{"cobol", "node"}},
		{Deployment{Name: "f", Source: []byte("x"), Note: "a\nb"}, errs.Invalid, []string{"note"}},
		{Deployment{Name: "", Source: []byte("x")}, errs.Invalid, []string{"1 to 64"}},
	} {
		if c.d.Source != nil && c.d.Source[0] == 0 {
			c.d.Source = bytes.Repeat([]byte("x"), len(c.d.Source))
		}
		_, err := w.service.DeployFunction(t.Context(), "acme", c.d)
		wantKind(t, err, c.kind, c.says...)
	}
	_, err := w.service.DeployFunction(t.Context(), "nobody", Deployment{Name: "f", Source: []byte("x")})
	wantKind(t, err, errs.NotFound, "nobody")
	if _, err := os.Stat(filepath.Join(w.dir, "blobs", "acme")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a refused deployment left code behind")
	}
}

func TestFunctionNames(t *testing.T) {
	for _, good := range []string{"a", "A_b-c.js", "9", "_x", strings.Repeat("n", 64)} {
		if err := CheckFunctionName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "..", ".hidden", "-f", "a/b", "a@1", "a b", "a\x00", "a\n", "ä", "а", "a%2fb", strings.Repeat("n", 65),
		strings.Repeat("n", 1<<20),
	} {
		if err := CheckFunctionName(bad); err == nil {
			t.Errorf("%.20q passed", bad)
		} else if len(errs.From(err).Message) > 500 {
			t.Errorf("a message of %d bytes", len(errs.From(err).Message))
		}
	}
}

// TestFunctionLimitRace: of many creates at one below the limit exactly one gets the place, from two processes.
func TestFunctionLimitRace(t *testing.T) {
	for name, s := range map[string]func(*testing.T) store.Store{
		"memory": func(t *testing.T) store.Store { return mem(t) },
		"etcd":   func(t *testing.T) store.Store { s, _ := etcd(t); return s },
	} {
		t.Run(name, func(t *testing.T) {
			shared := s(t)
			w := newWorld(t, shared)
			other := openWorld(t, shared, w.dir)
			w.tenant("acme", &pb.Policy{MaxFunctions: ptr[int32](3)})
			w.deploy("acme", "a", "x")
			w.deploy("acme", "b", "x")
			var all sync.WaitGroup
			var made, limited atomic.Int32
			for i := range 200 {
				all.Go(func() {
					svc := w.service
					if i%2 == 1 {
						svc = other.service
					}
					_, err := svc.DeployFunction(t.Context(), "acme", Deployment{Name: fmt.Sprint("f", i), Source: []byte("x")})
					switch errs.KindOf(err) {
					case "":
						made.Add(1)
					case errs.Limited:
						limited.Add(1)
					default:
						t.Errorf("create %d: %v", i, err)
					}
				})
			}
			all.Wait()
			if made.Load() != 1 || limited.Load() != 199 {
				t.Errorf("%d made, %d refused", made.Load(), limited.Load())
			}
			kvs, rev, err := shared.List(t.Context(), store.FunctionsOf("acme"))
			if err != nil || len(kvs) != 3 {
				t.Errorf("%d functions, %v", len(kvs), err)
			}
			w.sees(rev)
			_, err = w.service.DeleteFunction(t.Context(), "acme", "a")
			must(t, err)
			w.deploy("acme", "again", "x")
			_, err = w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "more", Source: []byte("x")})
			wantKind(t, err, errs.Limited, "3 functions")
		})
	}
}

func TestDeleteTenant(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("acme2", nil)
	for i := range 150 {
		w.deploy("acme", fmt.Sprint("f", i), fmt.Sprint("code", i))
	}
	keep := w.deploy("acme2", "f", "kept")
	_, token, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	must(t, err)
	_, kept, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "acme2", Role: identity.RoleInvoke})
	must(t, err)
	w.removed.of["acme"] = 2

	// Broken off at the containers, the tenant already serves nothing and takes nothing.
	w.removed.fail = errors.New("the engine hangs")
	_, err = w.service.DeleteTenant(t.Context(), "acme")
	wantKind(t, err, errs.Internal)
	if v, ok := w.view.Tenant("acme"); !ok || v.State != StateDeleting || !v.Policy.Suspended {
		t.Fatalf("%+v, %v", v, ok)
	}
	_, err = w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "late", Source: []byte("x")})
	wantKind(t, err, errs.Conflict, "being deleted")
	_, _, _, err = w.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	wantKind(t, err, errs.Conflict, "being deleted")
	_, err = w.service.CreateTenant(t.Context(), "acme", nil)
	wantKind(t, err, errs.Conflict, "being deleted")

	w.removed.fail = nil
	d, err := w.service.DeleteTenant(t.Context(), "acme")
	must(t, err)
	if d.Containers != 2 || d.Keys != 1 || d.Functions != 150 || d.Revision == 0 {
		t.Errorf("%+v", d)
	}
	if _, ok := w.view.Tenant("acme"); ok {
		t.Error("the view still has it")
	}
	_, err = w.keyring.VerifyKey(token)
	wantKind(t, err, errs.Unauthenticated)
	kvs, _, err := w.store.List(t.Context(), store.Root)
	must(t, err)
	for _, kv := range kvs {
		if strings.Contains(kv.Key+"/", "/acme/") {
			t.Errorf("left: %s", kv.Key)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "blobs", "acme")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its blobs: %v", err)
	}
	// The other one, whose name begins the same, is whole.
	if _, err := w.keyring.VerifyKey(kept); err != nil {
		t.Error(err)
	}
	if src, err := w.view.Source(t.Context(), "acme2", keep.Version.Hash); err != nil || string(src) != "kept" {
		t.Errorf("%q, %v", src, err)
	}
	_, err = w.service.DeleteTenant(t.Context(), "acme")
	wantKind(t, err, errs.NotFound)
	// And the name is free.
	w.tenant("acme", nil)
	if _, ok := w.view.Function("acme", "f1", 0); ok {
		t.Error("the new tenant has the old one's function")
	}
}

// TestSweep finishes a broken deletion, and removes old code that nothing refers to and nothing else.
func TestSweep(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("gone", nil)
	w.tenant("acme", nil)
	used, unused := w.deploy("acme", "f", "used"), w.deploy("acme", "g", "unused")
	young := w.deploy("acme", "h", "young")
	for _, name := range []string{"g", "h"} {
		_, err := w.service.DeleteFunction(t.Context(), "acme", name)
		must(t, err)
	}
	old := time.Now().Add(-2 * keepCode)
	blob := func(d Deployed) string { return filepath.Join(w.dir, "blobs", "acme", d.Version.Hash) }
	must(t, os.Chtimes(blob(used), old, old))
	must(t, os.Chtimes(blob(unused), old, old))
	half := blob(used) + ".tmp123"
	must(t, os.WriteFile(half, []byte("x"), 0o600))
	must(t, os.Chtimes(half, old, old))
	w.removed.fail = errors.New("broken off")
	_, err := w.service.DeleteTenant(t.Context(), "gone")
	wantKind(t, err, errs.Internal)
	w.removed.fail = nil

	must(t, w.service.Sweep(t.Context()))
	if _, ok := w.view.Tenant("gone"); ok {
		t.Error("the deletion was not finished")
	}
	for path, want := range map[string]bool{blob(used): true, blob(young): true, blob(unused): false, half: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want there: %v", path, err, want)
		}
	}
}

// TestSweepTakesCodeOfADeployment: code that goes between being put and being named is there in the end.
func TestSweepTakesCodeOfADeployment(t *testing.T) {
	s := &thief{Store: mem(t)}
	w := newWorld(t, s)
	w.tenant("acme", nil)
	s.beforeCommit = func() { _ = os.Remove(filepath.Join(w.dir, "blobs", "acme", hashCode([]byte("code")))) }
	d := w.deploy("acme", "f", "code")
	if src, err := w.view.Source(t.Context(), "acme", d.Version.Hash); err != nil || string(src) != "code" {
		t.Errorf("%q, %v", src, err)
	}
}

// thief is a store that does something before a write.
type thief struct {
	store.Store
	beforeCommit func()
}

func (s *thief) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if s.beforeCommit != nil {
		s.beforeCommit()
	}
	return s.Store.Commit(ctx, txn)
}

// TestStoreAway: a change while the store is away is refused in time, and says that it may have been made.
func TestStoreAway(t *testing.T) {
	s := mem(t)
	w := newWorld(t, s)
	w.tenant("acme", nil)
	d := w.deploy("acme", "f", "code")
	s.SetAway(true)
	_, err := w.service.UpdateTenant(t.Context(), "acme", nil)
	wantKind(t, err, errs.NoCapacity, "store")
	if errs.From(err).RetryAfter == 0 {
		t.Error("no Retry-After")
	}
	if v, ok := w.view.Function("acme", "f", 0); !ok || v.Hash != d.Version.Hash {
		t.Error("the view does not serve from memory")
	}
	if src, err := w.view.Source(t.Context(), "acme", d.Version.Hash); err != nil || string(src) != "code" {
		t.Errorf("%q, %v", src, err)
	}
	s.SetAway(false)
	_, err = w.service.UpdateTenant(t.Context(), "acme", nil)
	must(t, err)
}

func TestEndedCaller(t *testing.T) {
	w := newWorld(t, mem(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.service.CreateTenant(ctx, "acme", nil)
	wantKind(t, err, errs.Cancelled)
}
