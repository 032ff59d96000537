package catalog

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/controller/store"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// sample is a record of one kind as it should be, and one that only a newer Paddock, or nobody, would write.
type sample struct {
	key          string
	good, future proto.Message
	seen         func(*View) bool // whether the good one is
}

// samples are of every kind that the view reads, of tenant ok.
func samples() map[string]sample {
	hash := strings.Repeat("ab", 32)
	return map[string]sample{
		"tenant": {store.Tenant("ok"), &pb.TenantRecord{Id: "ok", State: "active", WrappedKey: []byte("k")},
			&pb.TenantRecord{Id: "ok", State: "hibernating"},
			func(v *View) bool { t, ok := v.Tenant("ok"); return ok && t.State == StateActive }},
		"key": {store.Key("0123456789abcdef"), &pb.KeyRecord{Id: "0123456789abcdef", Tenant: "ok", Role: "invoke", Mac: make([]byte, macBytes)},
			&pb.KeyRecord{Id: "0123456789abcdef", Tenant: "ok", Role: "auditor", Mac: make([]byte, macBytes)},
			func(v *View) bool { k, ok := v.Key("0123456789abcdef"); return ok && k.Role == identity.RoleInvoke }},
		"function": {store.Function("ok", "f"), &pb.FunctionRecord{Name: "f", Active: 1, Newest: 1}, &pb.FunctionRecord{Name: "f", Active: 3, Newest: 1},
			func(v *View) bool { f, ok := v.Function("ok", "f", 0); return ok && f.Number == 1 }},
		"version": {store.Version("ok", "f", 1), &pb.VersionRecord{Number: 1, Hash: hash, Kind: "auto", Runtime: "node"},
			&pb.VersionRecord{Number: 1, Hash: hash, Kind: "quantum"},
			func(v *View) bool { f, ok := v.Function("ok", "f", 1); return ok && f.Hash == hash }},
		"pipeline": {store.Pipeline("ok", "p"), &pb.PipelineRecord{Name: "p", Kind: "rule", Steps: []*pb.PipelineStep{{Function: "f"}}},
			&pb.PipelineRecord{Name: "p", Kind: "graph", Steps: []*pb.PipelineStep{{Function: "f"}}},
			func(v *View) bool { p, err := v.ResolvePipeline("ok", "p", 0); return err == nil && len(p.Steps) == 1 }},
		"secret": {store.Secret("ok", "K"), &pb.SecretRecord{Name: "K", Sealed: []byte("x")}, &pb.SecretRecord{Name: "L", Sealed: []byte("x")},
			func(v *View) bool { s, ok := v.secrets.get("ok"); return ok && s.byRef["K"] != nil }},
		"host": {store.Host("a.example.com"), &pb.HostRecord{Tenant: "ok"}, &pb.HostRecord{Tenant: "No Such"},
			func(v *View) bool { t, ok := v.hosts.get("a.example.com"); return ok && t == "ok" }},
		"controller": {store.Controller("c1"), &pb.ControllerRecord{Id: "c1", Address: "a", Capacity: 7}, &pb.ControllerRecord{Id: "c2", Capacity: 7},
			func(v *View) bool { c, ok := v.Fleet().Controller("c1"); return ok && c.Capacity == 7 }},
		"assignment": {store.Assignment("c1", "ok", "node", "x"), &pb.AssignmentRecord{Isolation: "runc", Since: timestamppb.New(time.Unix(1, 0))}, nil,
			func(v *View) bool { h := v.Holdings("ok"); return len(h) == 1 && h[0].Containers == 1 }},
	}
}

func bytesOf(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// emptyView follows nothing.
func emptyView() *View {
	v := newView(ViewOptions{Logger: slog.New(slog.DiscardHandler)})
	v.code = newCodeCache(nil, nil, 1)
	return v
}

// filledView has one good record of every kind, and follows nothing.
func filledView(t testing.TB) *View {
	v := emptyView()
	a := v.newApply()
	for _, s := range samples() {
		a.put(s.key, bytesOf(t, s.good), 2)
	}
	a.finish()
	for kind, s := range samples() {
		if !s.seen(v) {
			t.Fatalf("%s: the good record is not seen", kind)
		}
	}
	if n := v.broken.Load(); n != 0 {
		t.Fatalf("%d alarms", n)
	}
	return v
}

// alter applies one record, as the watch would.
func alter(v *View, key string, value []byte, rev int64) {
	a := v.newApply()
	a.put(key, value, rev)
	a.finish()
}

// TestEveryKindOfUnreadableRecord: garbage, and what a newer Paddock writes, leaves the last good copy and raises an alarm, which
// a good record takes back; what nobody knew before is skipped; what a newer version added to a record is no reason to refuse it.
func TestEveryKindOfUnreadableRecord(t *testing.T) {
	newer := protowire.AppendTag(nil, 1000, protowire.BytesType)
	newer = protowire.AppendBytes(newer, []byte("of the future"))
	for kind, s := range samples() {
		t.Run(kind, func(t *testing.T) {
			v := filledView(t)
			bad := map[string][]byte{"garbage": []byte("\xff\xff\xff"), "cut off": append(bytesOf(t, s.good), 0x0a, 0x7f)}
			if s.future != nil {
				bad["of the future"] = bytesOf(t, s.future)
			}
			rev := int64(3)
			for what, value := range bad {
				alter(v, s.key, value, rev)
				rev++
				if !s.seen(v) {
					t.Errorf("%s: the last good copy is gone", what)
				}
				if n := v.broken.Load(); n != 1 {
					t.Errorf("%s: %d alarms", what, n)
				}
			}
			alter(v, s.key, append(bytesOf(t, s.good), newer...), rev)
			if !s.seen(v) || v.broken.Load() != 0 {
				t.Errorf("with a field of the future: seen %v, %d alarms", s.seen(v), v.broken.Load())
			}
			alter(v, s.key, []byte("\xff"), rev+1)
			a := v.newApply()
			a.remove(s.key, rev+2)
			a.finish()
			if s.seen(v) || v.broken.Load() != 0 {
				t.Errorf("removed while it could not be read: seen %v, %d alarms", s.seen(v), v.broken.Load())
			}
			// One that starts now, and has no good copy, does without this record and has all others.
			fresh := emptyView()
			b := fresh.newApply()
			for other, o := range samples() {
				value := bytesOf(t, o.good)
				if other == kind {
					value = []byte("\xff\xff\xff")
				}
				b.put(o.key, value, 2)
			}
			b.finish()
			for other, o := range samples() {
				// A function is seen with its version, a pipeline with its functions.
				part := (kind == "function" || kind == "version") && (other == "function" || other == "version" || other == "pipeline")
				if other == kind && o.seen(fresh) || other != kind && !part && !o.seen(fresh) {
					t.Errorf("at the start, %s: seen %v", other, o.seen(fresh))
				}
			}
			if n := fresh.broken.Load(); n != 1 {
				t.Errorf("at the start: %d alarms", n)
			}
		})
	}
	v := filledView(t)
	for i, key := range []string{store.Root + "rollouts/x", store.Root + "election/janitor", store.Usage("ok"), store.Root, store.AssignmentsPrefix + "c1/ok/x"} {
		alter(v, key, []byte("\xff\xff"), int64(10+i))
	}
	if n := v.broken.Load(); n != 0 {
		t.Errorf("keys of no kind that the view reads: %d alarms", n)
	}
}

// TestServingOnly: a controller's view has tenants, controllers and what they hold, and nothing that routers alone need.
func TestServingOnly(t *testing.T) {
	v := newView(ViewOptions{Logger: slog.New(slog.DiscardHandler), ServingOnly: true})
	v.code = newCodeCache(nil, nil, 1)
	a := v.newApply()
	for _, s := range samples() {
		a.put(s.key, bytesOf(t, s.good), 2)
	}
	a.finish()
	for kind, s := range samples() {
		if want := kind == "tenant" || kind == "controller" || kind == "assignment"; s.seen(v) != want {
			t.Errorf("%s: seen %v", kind, !want)
		}
	}
	if len(v.mods) != 3 || v.broken.Load() != 0 {
		t.Errorf("%d records are held, %d alarms", len(v.mods), v.broken.Load())
	}
}

// FuzzRecords puts anything anywhere: nothing panics, other records stay, and what cannot be read leaves what was there.
func FuzzRecords(f *testing.F) {
	all := samples()
	for _, s := range all {
		f.Add(s.key, bytesOf(f, s.good))
		f.Add(s.key, []byte("\xff\xff\xff"))
		if s.future != nil {
			f.Add(s.key, bytesOf(f, s.future))
		}
	}
	f.Add(store.Root+"rollouts/x", []byte{0x0a, 0x01})
	f.Add(store.TenantsPrefix+"UPPER", []byte{})
	f.Add(store.VersionsPrefix+"ok/f/-1", []byte{8, 1})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		v := filledView(t)
		alter(v, key, value, 3)
		broken := v.broken.Load()
		if broken > 1 {
			t.Fatalf("%d alarms for one record", broken)
		}
		for kind, s := range all {
			if s.key == key && broken == 1 && !s.seen(v) {
				t.Errorf("%s: %q is held out, and the last good copy is gone", kind, value)
			}
		}
		for _, id := range []string{"c1", "c2"} {
			v.Fleet().Controller(id)
		}
		if tv, ok := v.Tenant("ok"); ok && tv.Policy == nil {
			t.Error("a tenant without a policy")
		}
		_, _ = v.ResolvePipeline("ok", "p", 1)
		_, _ = v.Function("ok", "f", 0)
		v.Functions("ok", "", 100)
		v.Stats()
		a := v.newApply()
		a.remove(key, 4)
		for _, s := range all {
			a.remove(s.key, 4)
		}
		a.finish()
		if s := v.Stats(); s.Unreadable != 0 || s.Tenants+s.Keys+s.Functions+s.Pipelines+len(v.Fleet().All)+len(v.Holdings("ok")) != 0 {
			t.Errorf("all records are gone, and there is %+v", s)
		}
	})
}
