package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"paddock/internal/identity"
	"paddock/internal/tenant"
)

// who is a credential of the matrix, with what the test knows of it.
type who struct {
	name, authorization, tenant string
	bad                         bool          // not a good key, whatever is wrong with it
	role                        identity.Role // of a good one
	scope                       string        // the only resource that it may use; "": all
	foreign                     bool          // names a tenant that is not its own
	suspended                   bool
	absent                      bool // names a tenant that is not there
}

// everybody is one credential of each kind. acme is the tenant that paths and messages name.
func everybody(g *rig) []who {
	g.cat.addKey("revoked", "acme", identity.RoleTenantAdmin, time.Time{})
	g.do("POST", "/v1/functions/echo/invoke", "1", "Authorization: "+bearerOf("revoked")) // it is remembered as good
	g.cat.mu.Lock()
	delete(g.cat.keys, "revoked")
	g.cat.mu.Unlock()
	g.cat.addKey("scoped", "acme", identity.RoleTenantAdmin, time.Time{})
	g.cat.keys["scoped"].Scopes = "logs"
	return []who{
		{name: "none", bad: true},
		{name: "basic", authorization: "Basic b3A6eA==", bad: true},
		{name: "empty", authorization: "Bearer ", bad: true},
		{name: "malformed", authorization: "Bearer op", bad: true},
		{name: "unknown", authorization: "Bearer nobody.secret-nobody", bad: true},
		{name: "wrong secret", authorization: "Bearer op.secret-acme-admin", bad: true},
		{name: "expired", authorization: bearerOf("gone"), bad: true},
		{name: "revoked", authorization: bearerOf("revoked"), bad: true},
		{name: "suspended tenant", authorization: bearerOf("halted-admin"), role: identity.RoleTenantAdmin, suspended: true},
		{name: "invoke", authorization: bearerOf("acme-invoke"), role: identity.RoleInvoke},
		{name: "deploy", authorization: bearerOf("acme-deploy"), role: identity.RoleDeploy},
		{name: "tenant-admin", authorization: bearerOf("acme-admin"), role: identity.RoleTenantAdmin},
		{name: "tenant-admin, own tenant named", authorization: bearerOf("acme-admin"), tenant: "acme", role: identity.RoleTenantAdmin},
		{name: "scoped", authorization: bearerOf("scoped"), role: identity.RoleTenantAdmin, scope: "logs"},
		{name: "other's admin in acme", authorization: bearerOf("other-admin"), tenant: "acme", role: identity.RoleTenantAdmin, foreign: true},
		{name: "acme's admin in no tenant", authorization: bearerOf("acme-admin"), tenant: "absent", role: identity.RoleTenantAdmin,
			foreign: true},
		{name: "operator", authorization: bearerOf("op"), role: identity.RoleOperator},
		{name: "operator in acme", authorization: bearerOf("op"), tenant: "acme", role: identity.RoleOperator},
		{name: "operator in other", authorization: bearerOf("op"), tenant: "other", role: identity.RoleOperator},
		{name: "operator in no tenant", authorization: bearerOf("op"), tenant: "absent", role: identity.RoleOperator, absent: true},
	}
}

// The verdicts. passes is whatever the service behind says.
const passes = codes.OK

// verdict is what the table says of a rule and a credential.
func verdict(ru *rule, w *who) codes.Code {
	switch {
	case ru.role == public:
		return passes
	case ru.keyless == publicOnly, ru.keyless == keyOrPublic && !strings.Contains(w.authorization, ".secret-"):
		return codes.NotFound // the function that paths name is not public
	case w.bad:
		return codes.Unauthenticated
	case !w.role.Includes(ru.role), w.scope != "" && w.scope != ru.resource, w.foreign, w.suspended:
		return codes.PermissionDenied
	case ru.own && w.tenant == "other": // the host is acme's
		return codes.PermissionDenied
	case w.role == identity.RoleOperator && ru.tenant == tenantActs && w.tenant == "" && !ru.own:
		return codes.InvalidArgument
	case ru.tenant == tenantActs && w.absent:
		return codes.NotFound
	}
	return passes
}

var statusOf = map[codes.Code]int{
	codes.Unauthenticated: 401, codes.PermissionDenied: 403, codes.InvalidArgument: 400, codes.NotFound: 404,
}

// sampleRequest fills a pattern's wildcards.
func sampleRequest(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	if method == anyMethod {
		method = "POST"
	}
	path = strings.NewReplacer("{tenant}", "acme", "{name}", "echo", "{id}", "acme", "{path...}", "a/b").Replace(path)
	if path == "/v1/audit" {
		path += "?follow=false"
	}
	return method, path
}

// hostOf is the Host field of a request for a line of the table.
func hostOf(ru *rule) string {
	if ru.own {
		return "Host: rules.acme.example"
	}
	return "Host: paddock.example"
}

// TestMatrix asks every route and every method as everybody, over HTTP and gRPC, and compares with the table. A line that is
// added to the table is covered by itself. All that is wrong with a credential looks alike from outside.
func TestMatrix(t *testing.T) {
	g := newRig(t, nil)
	g.router.auth.guard = mustGuard(t)
	all := everybody(g)
	asked, before := 0, g.node.calls.Load()
	for i := range rules {
		ru := &rules[i]
		refusals := map[string]string{}
		for j := range all {
			w, want := &all[j], verdict(ru, &all[j])
			name := fmt.Sprintf("%s%s as %s", ru.rpc, ru.route(), w.name)
			if ru.http != "" {
				asked++
				method, path := sampleRequest(ru.http)
				a := g.do(method, path, "{}", "Authorization: "+w.authorization, "Paddock-Tenant: "+w.tenant, hostOf(ru))
				if (a.status == 401 || a.status == 403) != (want == codes.Unauthenticated || want == codes.PermissionDenied) ||
					want != passes && a.status != statusOf[want] {
					t.Errorf("%s: %d %s, want %s", name, a.status, a.body, want)
				}
				if want == codes.Unauthenticated || want == codes.NotFound && ru.keyless == publicOnly {
					refusals[look(a)] = w.name
				}
			}
			if ru.rpc != "" {
				asked++
				got := g.ask(ru.rpc, w)
				if (got == codes.Unauthenticated || got == codes.PermissionDenied) !=
					(want == codes.Unauthenticated || want == codes.PermissionDenied) || want != passes && got != want {
					t.Errorf("%s over gRPC: %s, want %s", name, got, want)
				}
			}
		}
		if len(refusals) > 1 {
			t.Errorf("%s: what is wrong with a credential can be told: %v", ru.http, refusals)
		}
	}
	t.Logf("%d lines of the table, %d credentials: %d requests", len(rules), len(all), asked)
	if served := g.node.calls.Load() - before; served == 0 || served > int64(asked)/4 {
		t.Errorf("%d calls were served", served)
	}
	g.idle()
}

// look is all of an answer that a caller can compare: status, body and header fields, but for the call's own id and the time.
func look(a answerOf) string {
	id := a.header.Get(hCallID)
	fields := maps.Clone(a.header)
	delete(fields, "Date")
	var all []string
	for name, values := range fields {
		if name == hTiming {
			values = []string{"…"}
		}
		all = append(all, name+": "+strings.Join(values, ","))
	}
	slices.Sort(all)
	return strings.ReplaceAll(fmt.Sprintf("%d\n%s\n%s", a.status, strings.Join(all, "\n"), a.body), id, "ID")
}

// ask calls a method with an empty message and returns the code of the first answer.
func (g *rig) ask(full string, w *who) codes.Code {
	g.t.Helper()
	service, name, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		g.t.Fatal(err)
	}
	m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	if w.authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", w.authorization)
	}
	if w.tenant != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "paddock-tenant", w.tenant)
	}
	st, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, full)
	if err != nil {
		return status.Code(err)
	}
	if !m.IsStreamingClient() {
		_ = st.SendMsg(dynamicpb.NewMessage(m.Input()))
	}
	_ = st.CloseSend()
	if err := st.RecvMsg(dynamicpb.NewMessage(m.Output())); err != nil && err.Error() != "EOF" {
		return status.Code(err)
	}
	return codes.OK
}

// TestRefusalsTakeTheSameTime compares the medians of what guessing sees: a key that is not there, a wrong secret of one that
// is, and one that was revoked. Nobody learns which keys exist by a clock.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	g := newRig(t, nil)
	a := g.router.auth
	ru := g.router.byRPC["/paddock.v1.Sandbox/Invoke"]
	everybody(g)
	if _, _, err := a.authorize(ru, credential{authorization: bearerOf("acme-invoke")}); err != nil {
		t.Fatal(err)
	}
	guesses := []string{"Bearer acme-nobody.secret-acme-nobody", "Bearer acme-invoke.secret-acme-invokes", bearerOf("revoked")}
	const rounds, tolerance = 4000, 1.25
	var ratio float64
	for range 8 { // the machine may be busy with something else
		took := make([][]time.Duration, len(guesses))
		for i := range rounds * len(guesses) {
			k := i % len(guesses)
			began := time.Now()
			_, _, err := a.authorize(ru, credential{authorization: guesses[k]})
			took[k] = append(took[k], time.Since(began))
			if err == nil {
				t.Fatal("a guess was right")
			}
		}
		var medians []time.Duration
		for k := range took {
			slices.Sort(took[k])
			medians = append(medians, took[k][rounds/2])
		}
		ratio = float64(slices.Max(medians)) / float64(slices.Min(medians))
		t.Logf("medians %v", medians)
		if ratio < tolerance {
			return
		}
	}
	t.Errorf("the slowest refusal takes %.2f times the fastest", ratio)
}

// TestObjectsOfOthersLookMissing: a tenant's key cannot tell another tenant from none.
func TestObjectsOfOthersLookMissing(t *testing.T) {
	g := newRig(t, nil)
	var seen []string
	for _, id := range []tenant.ID{"halted", "absent"} {
		seen = append(seen, look(g.do("GET", "/v1/tenants/"+string(id), "", "Authorization: "+bearerOf("acme-admin"))))
	}
	if seen[0] != seen[1] {
		t.Errorf("%s\n\n%s", seen[0], seen[1])
	}
}
