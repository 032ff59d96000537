package router

import (
	"context"
	"maps"
	"strings"
	"testing"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// TestSecretsGoWithCalls: a function gets its secrets by every way that leads to it; source text gets the tenant's own only
// from a key that might deploy it.
func TestSecretsGoWithCalls(t *testing.T) {
	g := newRig(t, nil)
	g.cat.secrets = map[string]*catalog.Secrets{
		"acme/echo": {Values: map[string]string{"KEY": "of echo"}, Revision: "r1"},
		"acme/":     {Values: map[string]string{"KEY": "of all"}, Revision: "r2"},
	}
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		got = req
		return okResult(nil), nil
	}
	want := func(how, value, revision string) {
		t.Helper()
		if got == nil || got.Secrets["KEY"] != value || got.SecretsRev != revision {
			t.Errorf("%s: the call carries %v of revision %q", how, got.Secrets, got.SecretsRev)
		}
		got = nil
	}
	js := "Content-Type: application/javascript"
	g.do("POST", "/v1/functions/echo/invoke", "1", "Authorization: "+bearerOf("acme-invoke"))
	want("invoke", "of echo", "r1")
	g.do("GET", "/v1/functions/echo/http/x", "", "Authorization: "+bearerOf("acme-invoke"))
	want("http", "of echo", "r1")
	g.do("POST", "/v1/run", "1", "Authorization: "+bearerOf("acme-invoke"), js)
	want("run by a key that may only call", "", "")
	g.do("POST", "/v1/run", "1", "Authorization: "+bearerOf("acme-deploy"), js)
	want("run by a key that may deploy", "of all", "r2")
	g.do("POST", "/v1/run", "1", "Authorization: "+bearerOf("op"), "Paddock-Tenant: acme", js)
	want("run by an operator", "of all", "r2")
	client := pb.NewSandboxClient(g.conn)
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: "echo"}}); err != nil {
		t.Fatal(err)
	}
	want("gRPC", "of echo", "r1")
	source := &pb.InvokeRequest{Target: &pb.InvokeRequest_Source{Source: &pb.Source{Code: []byte("1")}}}
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), source); err != nil {
		t.Fatal(err)
	}
	want("gRPC source by a key that may only call", "", "")
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-deploy"), source); err != nil {
		t.Fatal(err)
	}
	want("gRPC source", "of all", "r2")
	source.GetSource().Function = "echo"
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-deploy"), source); err != nil {
		t.Fatal(err)
	}
	want("gRPC source as a function", "of echo", "r1")
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), source); err != nil {
		t.Fatal(err)
	}
	want("gRPC source as a function by a key that may only call", "", "")
	g.do("POST", "/v1/run", `{"source":"1","function":"echo"}`, "Authorization: "+bearerOf("acme-deploy"), "Content-Type: application/json")
	want("run as a function", "of echo", "r1")
	a := g.do("POST", "/v1/run", `{"source":"1","function":"a/b"}`, "Authorization: "+bearerOf("acme-deploy"), "Content-Type: application/json")
	if a.status != 400 || !strings.Contains(a.body, "function name") {
		t.Errorf("a bad name: %d %s", a.status, a.body)
	}
}

// TestConfigurationOfADraft: values that come with source text lie over the tenant's secrets, under a revision that is the
// same for the same values only.
func TestConfigurationOfADraft(t *testing.T) {
	g := newRig(t, nil)
	g.cat.secrets = map[string]*catalog.Secrets{"acme/": {Values: map[string]string{"A": "1", "B": "2"}, Revision: "r"}}
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		got = req
		return okResult(nil), nil
	}
	run := func(key, configuration string) (map[string]string, string) {
		t.Helper()
		got = nil
		a := g.do("POST", "/v1/run", `{"source":"1","configuration":`+configuration+`}`, "Authorization: "+bearerOf(key),
			"Content-Type: application/json")
		if got == nil {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return got.Secrets, got.SecretsRev
	}
	values, first := run("acme-deploy", `{"B":"draft","C":"3"}`)
	if !maps.Equal(values, map[string]string{"A": "1", "B": "draft", "C": "3"}) {
		t.Errorf("%v", values)
	}
	if _, again := run("acme-deploy", `{"C":"3","B":"draft"}`); again != first || first == "r" {
		t.Errorf("revisions %q and %q", first, again)
	}
	if _, other := run("acme-deploy", `{"B":"draft","C":"4"}`); other == first {
		t.Errorf("other values have the same revision %q", other)
	}
	if values, _ := run("acme-invoke", `{"B":"draft"}`); !maps.Equal(values, map[string]string{"B": "draft"}) {
		t.Errorf("a key that may only call sees %v", values)
	}
	if values := g.cat.secrets["acme/"].Values; len(values) != 2 || values["B"] != "2" {
		t.Errorf("the catalogue's own values became %v", values)
	}
	for _, bad := range []string{`{"a b":"1"}`, `{"__proto__":"1"}`, `{"A":1}`, `{"A":"` + strings.Repeat("x", catalog.MaxSecretsTotal) + `"}`} {
		a := g.do("POST", "/v1/run", `{"source":"1","configuration":`+bad+`}`, "Authorization: "+bearerOf("acme-deploy"),
			"Content-Type: application/json")
		if a.status != 400 {
			t.Errorf("%.40s: %d %s", bad, a.status, a.body)
		}
	}
	client := pb.NewSandboxClient(g.conn)
	draft := &pb.InvokeRequest{Target: &pb.InvokeRequest_Source{Source: &pb.Source{
		Code: []byte("1"), Configuration: map[string]string{"B": "draft", "C": "3"},
	}}}
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-deploy"), draft); err != nil || got.SecretsRev != first {
		t.Errorf("gRPC: %v, revision %q, want %q", err, got.SecretsRev, first)
	}
}

// TestBadSecretIsNotRepeated: what a request for a secret holds does not come back in the refusal, nor in the log.
func TestBadSecretIsNotRepeated(t *testing.T) {
	g := newRig(t, nil)
	for _, body := range []string{
		`{"value":987654321}`, `{"value":["987654321"]}`, `{"value":"987654321`, `{"987654321":1}`, `{"value":"a","function":987654321}`, `987654321`,
	} {
		a := g.do("PUT", "/v1/secrets/KEY", body, "Authorization: "+bearerOf("acme-admin"))
		if a.status != 400 || strings.Contains(a.body, "987654321") || !strings.Contains(a.body, "the value as a string") {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if strings.Contains(g.logs.String(), "987654321") {
		t.Error("the log repeats a value")
	}
}

// TestSecretsForOutside: what is added to requests outside goes beside the call, with the tenant's own value, for every caller; no
// secret of that name goes in, not even one that the call has brought.
func TestSecretsForOutside(t *testing.T) {
	g := newRig(t, nil)
	g.cat.secrets = map[string]*catalog.Secrets{"acme/": {Values: map[string]string{"KEY": "tenant's", "B": "2"}, Revision: "r"}}
	g.cat.addTenant("acme", func(p *tenant.Policy) {
		p.Inject = []tenant.Injection{{Host: "api.example.com", Header: "X-Key", Secret: "KEY"}, {Host: "a.example", Header: "X", Secret: "NONE"}}
	})
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		got = req
		return okResult(nil), nil
	}
	for key, inside := range map[string]map[string]string{"acme-deploy": {"B": "2", "C": "3"}, "acme-invoke": {"C": "3"}} {
		a := g.do("POST", "/v1/run", `{"source":"1","configuration":{"KEY":"call's","C":"3"}}`, "Authorization: "+bearerOf(key),
			"Content-Type: application/json")
		if a.status != 200 || !maps.Equal(got.Secrets, inside) || !maps.Equal(got.Outside, map[string]string{"KEY": "tenant's"}) {
			t.Errorf("%s: %d, inside %v, outside %v", key, a.status, got.Secrets, got.Outside)
		}
	}
	if !strings.HasSuffix(got.SecretsRev, "-KEY") {
		t.Errorf("revision %q is that of other secrets", got.SecretsRev)
	}
	if values := g.cat.secrets["acme/"].Values; len(values) != 2 {
		t.Errorf("the catalogue's own values became %v", values)
	}
}
