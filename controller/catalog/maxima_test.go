package catalog

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// An operator's maxima bound defaults and what was stored before them, and refuse what is more, by name, with number and limit.
func TestMaximaBoundEveryTenant(t *testing.T) {
	s := mem(t)
	dir := t.TempDir()
	before := openWorld(t, s, dir)
	many, much := int32(500), int64(256<<20)
	before.tenant("stored", &pb.Policy{Concurrency: &many, MemoryBytes: &much})
	m := tenant.DefaultMaxima()
	m.Concurrency, m.MemoryBytes, m.CPUMillis, m.SourceBytes, m.MaxFunctions, m.MaxContainers = 50, 64<<20, 500, 1000, 3, 2
	m.RatePerSecond, m.Timeout = 10, 5*time.Second
	w := openWorld(t, s, dir, func(v *ViewOptions, _ *Options) { v.Maxima = m })
	w.tenant("plain", nil)
	for _, id := range []tenant.ID{"stored", "plain"} {
		v, ok := w.view.Tenant(id)
		if !ok {
			t.Fatalf("no %s", id)
		}
		p := v.Policy
		if p.Concurrency != 50 || p.MemoryBytes != 64<<20 || p.CPUMillis != 500 || p.SourceBytes != 1000 || p.MaxFunctions != 3 ||
			p.MaxContainers != 2 || p.RatePerSecond != 10 || p.RateBurst != 20 || p.MaxTimeout != 5*time.Second || p.Timeout != 5*time.Second {
			t.Errorf("%s may %+v", id, *p)
		}
	}
	for _, c := range []struct {
		patch      *pb.Policy
		field, say string
	}{
		{&pb.Policy{Concurrency: &many}, "concurrency is 500", "50"},
		{&pb.Policy{MemoryBytes: &much}, "memory_bytes is 268435456", "67108864"},
		{&pb.Policy{CpuMillis: &many}, "cpu_millis", ""},
		{&pb.Policy{CpuMillis: ptr32(501)}, "cpu_millis is 501", "500"},
		{&pb.Policy{SourceBytes: &much}, "source_bytes", "1000"},
		{&pb.Policy{MaxFunctions: ptr32(4)}, "max_functions is 4", "3"},
		{&pb.Policy{MaxContainers: ptr32(3)}, "max_containers is 3", "2"},
		{&pb.Policy{RatePerSecond: ptr(11.0)}, "rate_per_second is 11", "10"},
		{&pb.Policy{MaxTimeout: durationpb.New(6 * time.Second)}, "max_timeout is 6s", "5s"},
	} {
		_, err := w.service.UpdateTenant(t.Context(), "plain", c.patch)
		if c.say == "" {
			must(t, err)
			continue
		}
		wantKind(t, err, errs.Invalid)
		if e := errs.From(err); e == nil || !strings.Contains(e.Message, c.field) || !strings.Contains(e.Message, c.say) {
			t.Errorf("%v does not say %q and %q", err, c.field, c.say)
		}
	}
	// What was stored under other maxima stands in the way of nothing else, and is worth again what it was once they are back.
	_, err := w.service.UpdateTenant(t.Context(), "stored", &pb.Policy{LogBytes: ptr(int64(1000))})
	must(t, err)
	_, err = w.service.UpdateTenant(t.Context(), "stored", &pb.Policy{Concurrency: ptr32(499)})
	wantKind(t, err, errs.Invalid)
	if e := errs.From(err); e == nil || !strings.Contains(e.Message, "concurrency is 499") || !strings.Contains(e.Message, "50") {
		t.Error(err)
	}
	after := openWorld(t, s, dir)
	if v, ok := after.view.Tenant("stored"); !ok || v.Policy.Concurrency != 500 || v.Policy.MemoryBytes != 256<<20 || v.Policy.LogBytes != 1000 {
		t.Errorf("%+v", v)
	}
	for n, name := range []string{"a", "b", "c", "d"} {
		_, err := w.service.DeployFunction(t.Context(), "plain", Deployment{Name: name, Source: []byte("x")})
		if n < 3 {
			must(t, err)
			continue
		}
		wantKind(t, err, errs.Limited)
		if e := errs.From(err); !strings.Contains(e.Message, "has 3 functions: its limit is 3") {
			t.Error(err)
		}
	}
	_, err = w.service.DeployFunction(t.Context(), "stored", Deployment{Name: "large", Source: []byte(strings.Repeat("x", 1001))})
	wantKind(t, err, errs.Invalid)
	if e := errs.From(err); e == nil || !strings.Contains(e.Message, "1001") || !strings.Contains(e.Message, "1000") {
		t.Error(err)
	}
}
