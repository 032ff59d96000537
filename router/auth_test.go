package router

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	"paddock/proto"
	pb "paddock/proto/paddock/v1"
)

// allServices are the services of the API, from their definitions.
func allServices() []protoreflect.ServiceDescriptor {
	var all []protoreflect.ServiceDescriptor
	for _, f := range []protoreflect.FileDescriptor{pb.File_paddock_v1_sandbox_proto, pb.File_paddock_v1_manage_proto} {
		for i := range f.Services().Len() {
			all = append(all, f.Services().Get(i))
		}
	}
	return all
}

func TestRouteTableIsComplete(t *testing.T) {
	byRPC, byHTTP := map[string]rule{}, map[string]bool{}
	for _, ru := range rules {
		if ru.rpc != "" {
			byRPC[ru.rpc] = ru
		}
		byHTTP[ru.http] = true
		if ru.resource == "" {
			t.Errorf("%+v has no resource", ru)
		}
		if ru.role != public {
			if _, ok := identity.ParseRole(string(ru.role)); !ok {
				t.Errorf("%+v has no role", ru)
			}
			if !slices.Contains(identity.Resources(), ru.resource) {
				t.Errorf("%+v: no scope can name its resource", ru)
			}
		}
	}
	for _, s := range allServices() {
		for i := range s.Methods().Len() {
			full := "/" + string(s.FullName()) + "/" + string(s.Methods().Get(i).Name())
			if ru, ok := byRPC[full]; !ok || ru.role == public {
				t.Errorf("%s is not in the route table, or is public", full)
			}
		}
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(proto.OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	undescribed := map[string]bool{}
	for _, ru := range rules {
		undescribed[strings.ReplaceAll(ru.http, "...", "")] = ru.http != ""
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			route := strings.ToUpper(method) + " " + path
			if _, any := undescribed["ANY "+path]; any {
				route = "ANY " + path
			}
			if _, there := undescribed[route]; !there {
				t.Errorf("%s of the OpenAPI document is not in the route table", route)
			}
			undescribed[route] = false
			service, name, _ := strings.Cut(op.OperationID, "_")
			if ru, ok := byRPC["/paddock.v1."+service+"/"+name]; ok && ru.http != route {
				t.Errorf("%s of the OpenAPI document is %q in the route table", route, ru.http)
			}
		}
	}
	for route, missing := range undescribed {
		if missing {
			t.Errorf("%s is not in the OpenAPI document", route)
		}
	}
}

// TestUnlistedStopsTheStart takes every line of the table away, one at a time: what it stood for is then served without one.
func TestUnlistedStopsTheStart(t *testing.T) {
	g := newRig(t, nil)
	handlers := g.router.handlers()
	for i, ru := range rules {
		cut := append(append([]rule(nil), rules[:i]...), rules[i+1:]...)
		r := &Router{cfg: g.router.cfg}
		err := r.index(cut)
		if err == nil {
			err = r.checkServices(g.router.grpc.GetServiceInfo())
		}
		if ru.rpc == "" && handlers[ru.route()] == nil {
			t.Errorf("%+v stands for nothing", ru)
		}
		if name := ru.rpc + ru.http; err == nil || !strings.Contains(err.Error(), ru.rpc) && !strings.Contains(err.Error(), ru.http) {
			t.Errorf("without the line of %s: %v", name, err)
		}
	}
	extra := maps.Clone(g.router.grpc.GetServiceInfo())
	extra["x.Y"] = grpc.ServiceInfo{Methods: []grpc.MethodInfo{{Name: "Z"}}}
	if err := g.router.checkServices(extra); err == nil || !strings.Contains(err.Error(), "/x.Y/Z") {
		t.Errorf("one more method: %v", err)
	}
	r := &Router{cfg: g.router.cfg}
	if err := r.index(append([]rule{{http: "GET /v1/new", role: public, resource: "x"}}, rules...)); err == nil {
		t.Error("a route without a handler was taken")
	}
	if err := (&Router{cfg: g.router.cfg}).index(append([]rule{rules[0]}, rules...)); err == nil {
		t.Error("a method listed twice was taken")
	}
}

// mustGuard makes a guard that never says "slow down": the test sends more bad credentials than anybody may.
func mustGuard(t *testing.T) *guard {
	t.Helper()
	gd, err := newGuard()
	if err != nil {
		t.Fatal(err)
	}
	gd.burst = 1 << 30
	return gd
}

func TestMessagesNameOnlyOnesOwnTenant(t *testing.T) {
	g := newRig(t, nil)
	admin := "Authorization: " + bearerOf("acme-admin")
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/tenants/acme", "", 200},
		{"GET", "/v1/tenants/other", "", 403},
		{"GET", "/v1/tenants/absent", "", 403},
		{"POST", "/v1/keys", `{"tenant":"acme","role":"invoke"}`, 200},
		{"POST", "/v1/keys", `{"tenant":"other","role":"invoke"}`, 403},
		{"POST", "/v1/keys", `{"role":"invoke"}`, 200},
	} {
		if a := g.do(c.method, c.path, c.body, admin); a.status != c.status {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.status, a.body)
		}
	}
	if _, err := pb.NewKeysClient(g.conn).CreateKey(ctxAs(t.Context(), "acme-admin"),
		&pb.CreateKeyRequest{Tenant: "other"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("gRPC: %v", err)
	}
}

func TestVerifiedKeysAreRememberedAndForgotten(t *testing.T) {
	g := newRig(t, nil)
	invoke := func() int { return g.do("POST", "/v1/functions/echo/invoke", "1").status }
	for range 3 {
		if s := invoke(); s != 200 {
			t.Fatal(s)
		}
	}
	if n := g.cat.matches.Load(); n != 1 {
		t.Errorf("the secret was verified %d times", n)
	}
	if a := g.do("POST", "/v1/functions/echo/invoke", "1", "Authorization: Bearer acme-invoke.secret-acme-invoker"); a.status != 401 {
		t.Errorf("a wrong secret of a remembered key: %d", a.status)
	}
	g.cat.mu.Lock()
	old := g.cat.keys["acme-invoke"]
	changed := *old
	changed.MAC = make([]byte, 32)
	g.cat.keys["acme-invoke"] = &changed
	g.cat.mu.Unlock()
	if s := invoke(); s != 401 {
		t.Errorf("the record has another secret now: %d", s)
	}
	g.cat.mu.Lock()
	g.cat.keys["acme-invoke"] = old
	g.cat.mu.Unlock()
	g.cat.stale.Store(true)
	if s := invoke(); s != 401 {
		t.Errorf("stale: %d", s)
	}
	g.cat.stale.Store(false)
	g.cat.addKey("acme-invoke", "acme", identity.RoleInvoke, time.Now().Add(-time.Minute))
	if s := invoke(); s != 401 {
		t.Errorf("expired since: %d", s)
	}
	g.cat.mu.Lock()
	delete(g.cat.keys, "acme-invoke")
	g.cat.mu.Unlock()
	if s := invoke(); s != 401 {
		t.Errorf("revoked: %d", s)
	}
}

func TestGuessingIsSlowedAndGoodKeysAreNot(t *testing.T) {
	g := newRig(t, nil)
	var last answerOf
	for range guardBurst + 5 {
		last = g.do("POST", "/v1/run", "1", "Authorization: Bearer nobody.x")
	}
	if last.status != 429 || last.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", last.status, last.body)
	}
	if a := g.do("POST", "/v1/functions/echo/invoke", "1"); a.status != 200 {
		t.Errorf("a good key: %d", a.status)
	}
}

func TestRepeatedCredentialIsRefused(t *testing.T) {
	g := newRig(t, nil)
	req, _ := http.NewRequest("GET", g.url+"/v1/functions", nil)
	req.Header["Authorization"] = []string{bearerOf("acme-invoke"), bearerOf("op")}
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 401 {
		t.Errorf("%d", res.StatusCode)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", bearerOf("acme-invoke"), "authorization", bearerOf("op"))
	if _, err := pb.NewCatalogClient(g.conn).ListTenants(ctx, &pb.ListTenantsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("gRPC: %v", err)
	}
}

// Who is given more calls a second has them at once; another change of the policy gives nothing.
func TestARaisedRateHoldsAtOnce(t *testing.T) {
	a := newAdmission(10)
	p := tenant.DefaultPolicy()
	p.RatePerSecond, p.RateBurst = 1, 1
	now := time.Now()
	taken := func(p *tenant.Policy) int {
		n := 0
		for range 5 {
			if s, e := a.take("acme", p, false, now); e == nil {
				a.release(s, false)
				n++
			}
		}
		return n
	}
	if n := taken(&p); n != 1 {
		t.Fatalf("%d calls at once of 1", n)
	}
	same := p
	same.Concurrency++
	if n := taken(&same); n != 0 {
		t.Errorf("%d calls more after another change", n)
	}
	more := same
	more.RatePerSecond, more.RateBurst = 100, 5
	if n := taken(&more); n != 5 {
		t.Errorf("%d calls at once of 5", n)
	}
}

func TestAdmissionForgetsIdleTenants(t *testing.T) {
	a := newAdmission(10)
	p := tenant.DefaultPolicy()
	now := time.Now()
	for i := range 3 * leastSweep {
		s, e := a.take(tenant.ID("t"+time.Duration(i).String()), &p, false, now)
		if e != nil {
			t.Fatal(e)
		}
		a.release(s, false)
		now = now.Add(time.Second)
	}
	if n := len(a.tenants); n > leastSweep {
		t.Errorf("%d tenants are remembered", n)
	}
	var held []*admitted
	for range 10 {
		s, e := a.take("x", &p, false, now)
		if e != nil {
			t.Fatal(e)
		}
		held = append(held, s)
	}
	if _, e := a.take("y", &p, false, now); e == nil || e.Kind != errs.NoCapacity {
		t.Errorf("the eleventh of ten: %v", e)
	}
	for _, s := range held {
		a.release(s, false)
	}
	if a.inFlight() != 0 {
		t.Error(a.inFlight())
	}
}
