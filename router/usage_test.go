package router

import (
	"errors"
	"strings"
	"testing"
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// A tenant is shown with what it uses: calls of this router, containers of all controllers; its own key sees that, too.
func TestTenantIsShownWithItsUsage(t *testing.T) {
	g := newRig(t, nil)
	g.services.held = []*pb.Container{
		{Tenant: "acme", State: "assigned", MemoryBytes: 100, CpuMillis: 250},
		{Tenant: "acme", State: "assigned", MemoryBytes: 20, CpuMillis: 5},
		{Tenant: "acme", State: "draining", MemoryBytes: 3, CpuMillis: 7},
		{Tenant: "other", State: "assigned", MemoryBytes: 4},
	}
	p := tenant.DefaultPolicy()
	slot, e := g.router.admission.take("acme", &p, false, time.Now())
	if e != nil {
		t.Fatal(e)
	}
	defer g.router.admission.release(slot, false)
	show := func(key string) *pb.TenantUsage {
		t.Helper()
		ctx := ctxAs(t.Context(), key)
		got, err := pb.NewCatalogClient(g.conn).GetTenant(ctx, &pb.GetTenantRequest{Id: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetUsage()
	}
	for _, key := range []string{"op", "acme-admin"} {
		if u := show(key); u.GetCalls() != 1 || u.GetContainers() != 2 || u.GetMemoryBytes() != 120 || u.GetCpuMillis() != 255 || u.GetIncomplete() != "" {
			t.Errorf("%s sees %v", key, u)
		}
	}
	g.services.away = errors.New("gone")
	if u := show("op"); u.GetIncomplete() == "" || u.GetCalls() != 1 {
		t.Errorf("without a controller: %v", u)
	}
}

func TestCallsPerSecondAreThoseOfTheLastWholeSecond(t *testing.T) {
	a, p := newAdmission(100), tenant.DefaultPolicy()
	at := time.Unix(1000, 0)
	want := func(n int) {
		t.Helper()
		if _, got := a.usage("acme", at); got != n {
			t.Errorf("at %v: %d, want %d", at.Unix(), got, n)
		}
	}
	want(0)
	for range 7 {
		s, e := a.take("acme", &p, false, at)
		if e != nil {
			t.Fatal(e)
		}
		a.release(s, false)
	}
	want(0)
	at = at.Add(time.Second)
	want(7)
	at = at.Add(time.Second)
	want(0)
}

// Every limit of calls is refused by name, with the number and the limit.
func TestLimitsAreRefusedWithNumberAndLimit(t *testing.T) {
	p := tenant.DefaultPolicy()
	p.Concurrency, p.RatePerSecond, p.RateBurst, p.SourceBytes, p.InputBytes, p.MaxTimeout = 2, 3, 4, 5, 6, 7*time.Second
	now := time.Now()
	a := newAdmission(100)
	take := func(n int, release bool) (last *errs.Error) {
		for range n {
			s, e := a.take("acme", &p, false, now)
			if last = e; e == nil && release {
				a.release(s, false)
			}
		}
		return last
	}
	_, streams := func() (func(), *errs.Error) {
		for range p.Concurrency {
			if _, e := a.openStream("acme", &p, now); e != nil {
				t.Fatal(e)
			}
		}
		return a.openStream("acme", &p, now)
	}()
	for _, c := range []struct {
		name, number, limit string
		err                 error
		kind                errs.Kind
		cause               string
	}{
		{"rate", "", "3 calls a second", take(5, true), errs.Limited, "rate"},
		{"streams", "2 streams", "limit is 2", streams, errs.Limited, "concurrency"},
		{"source", "6 bytes", "5", checkSource([]byte("123456"), &p), errs.Invalid, ""},
		{"input", "7 bytes", "6", second(checkInput([]byte("1234567"), &p)), errs.Invalid, ""},
		{"timeout", "8s", "7s", checkTimeout(8*time.Second, &p), errs.Invalid, ""},
		{"concurrency", "2 calls", "limit is 2", func() error { a.tenants["acme"].running = 2; return take(1, false) }(), errs.Limited, "concurrency"},
	} {
		e := errs.From(c.err)
		if e == nil || e.Kind != c.kind || e.Cause != c.cause || !strings.Contains(e.Message, c.number) || !strings.Contains(e.Message, c.limit) {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
}

func second[T any](_ T, err error) error { return err }
