package router

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

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

func TestUnlistedMethodStopsTheStart(t *testing.T) {
	g := newRig(t, nil)
	err := g.router.checkServices(map[string]grpc.ServiceInfo{"x.Y": {Methods: []grpc.MethodInfo{{Name: "Z"}}}})
	if err == nil || !strings.Contains(err.Error(), "/x.Y/Z") {
		t.Errorf("%v", err)
	}
	r := &Router{cfg: g.router.cfg}
	if err := r.index([]rule{{http: "GET /v1/new", role: public, resource: "x"}}); err == nil {
		t.Error("a route without a handler was taken")
	}
	if err := (&Router{cfg: g.router.cfg}).index(append([]rule{rules[0]}, rules...)); err == nil {
		t.Error("a method listed twice was taken")
	}
}

// samplePath fills a pattern's wildcards.
func samplePath(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	if method == anyMethod {
		method = "POST"
	}
	return method, strings.NewReplacer("{name}", "echo", "{id}", "acme", "{path...}", "a/b").Replace(path)
}

func TestEveryRouteNeedsItsCredential(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Logs = nil })
	bad := map[string][]string{
		"none":      {"Authorization: "},
		"basic":     {"Authorization: Basic b3A6eA=="},
		"empty":     {"Authorization: Bearer "},
		"unknown":   {"Authorization: Bearer nobody.secret-nobody"},
		"wrong":     {"Authorization: Bearer op.secret-acme-admin"},
		"expired":   {"Authorization: " + bearerOf("gone")},
		"malformed": {"Authorization: Bearer op"},
	}
	g.router.auth.guard = mustGuard(t)
	for i := range rules {
		ru := &rules[i]
		if ru.http == "" || ru.role == public || !g.router.serves(ru) {
			continue
		}
		method, path := samplePath(ru.http)
		bodies := map[string]bool{}
		for name, fields := range bad {
			a := g.do(method, path, "{}", fields...)
			if a.status != 401 || a.header.Get("Www-Authenticate") == "" {
				t.Errorf("%s with %s: %d %s", ru.http, name, a.status, a.body)
			}
			bodies[strings.ReplaceAll(a.body, string(a.problem.CallID), "")] = true
		}
		if len(bodies) != 1 {
			t.Errorf("%s: bad credentials can be told apart: %v", ru.http, bodies)
		}
		for _, role := range []identity.Role{identity.RoleInvoke, identity.RoleDeploy, identity.RoleTenantAdmin} {
			if role.Includes(ru.role) {
				continue
			}
			key := "acme-" + strings.TrimPrefix(string(role), "tenant-")
			if a := g.do(method, path, "{}", "Authorization: "+bearerOf(key)); a.status != 403 {
				t.Errorf("%s as %s: %d %s", ru.http, role, a.status, a.body)
			}
		}
		own := "Authorization: " + bearerOf("acme-admin")
		if ru.role != identity.RoleOperator {
			there := g.do(method, path, "{}", own, "Paddock-Tenant: other")
			absent := g.do(method, path, "{}", own, "Paddock-Tenant: absent")
			if there.status != 403 || absent.status != 403 || there.problem.Detail != absent.problem.Detail {
				t.Errorf("%s in another tenant: %d %d %q %q", ru.http, there.status, absent.status, there.problem.Detail,
					absent.problem.Detail)
			}
			if a := g.do(method, path, "{}", "Authorization: "+bearerOf("halted-admin")); a.status != 403 {
				t.Errorf("%s of a suspended tenant: %d", ru.http, a.status)
			}
		}
		if ru.tenant == tenantActs {
			if a := g.do(method, path, "{}", "Authorization: "+bearerOf("op")); a.status != 400 ||
				!strings.Contains(a.problem.Detail, "Paddock-Tenant") {
				t.Errorf("%s as operator without tenant: %d %s", ru.http, a.status, a.body)
			}
			if a := g.do(method, path, "{}", "Authorization: "+bearerOf("op"), "Paddock-Tenant: absent"); a.status != 404 {
				t.Errorf("%s as operator in an absent tenant: %d", ru.http, a.status)
			}
		}
	}
	if n := g.node.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the node", n)
	}
	g.idle()
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

func TestEveryMethodNeedsItsCredential(t *testing.T) {
	g := newRig(t, nil)
	g.router.auth.guard = mustGuard(t)
	for _, s := range allServices() {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			full := "/" + string(s.FullName()) + "/" + string(m.Name())
			ru := g.router.byRPC[full]
			try := func(key string, more ...string) error {
				ctx, cancel := context.WithTimeout(ctxAs(context.Background(), key, more...), 5*time.Second)
				defer cancel()
				desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}
				st, err := g.conn.NewStream(ctx, desc, full)
				if err != nil {
					return err
				}
				_ = st.SendMsg(dynamicpb.NewMessage(m.Input()))
				_ = st.CloseSend()
				return st.RecvMsg(dynamicpb.NewMessage(m.Output()))
			}
			for _, key := range []string{"", "nobody", "gone"} {
				if c := status.Code(try(key)); c != codes.Unauthenticated {
					t.Errorf("%s with key %q: %s", full, key, c)
				}
			}
			if ru.role == identity.RoleOperator {
				if c := status.Code(try("acme-admin")); c != codes.PermissionDenied {
					t.Errorf("%s as tenant-admin: %s", full, c)
				}
				continue
			}
			if c := status.Code(try("acme-admin", "paddock-tenant", "other")); c != codes.PermissionDenied {
				t.Errorf("%s in another tenant: %s", full, c)
			}
			if c := status.Code(try("halted-admin")); c != codes.PermissionDenied {
				t.Errorf("%s of a suspended tenant: %s", full, c)
			}
		}
	}
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

func TestAdmissionForgetsIdleTenants(t *testing.T) {
	a := newAdmission(10)
	p := tenant.DefaultPolicy()
	now := time.Now()
	for i := range 3 * leastSweep {
		s, e := a.take(tenant.ID("t"+time.Duration(i).String()), &p, now)
		if e != nil {
			t.Fatal(e)
		}
		a.release(s)
		now = now.Add(time.Second)
	}
	if n := len(a.tenants); n > leastSweep {
		t.Errorf("%d tenants are remembered", n)
	}
	var held []*admitted
	for range 10 {
		s, e := a.take("x", &p, now)
		if e != nil {
			t.Fatal(e)
		}
		held = append(held, s)
	}
	if _, e := a.take("y", &p, now); e == nil || e.Kind != errs.NoCapacity {
		t.Errorf("the eleventh of ten: %v", e)
	}
	for _, s := range held {
		a.release(s)
	}
	if a.inFlight() != 0 {
		t.Error(a.inFlight())
	}
}
