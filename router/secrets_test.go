package router

import (
	"context"
	"testing"

	"paddock/controller/catalog"
	"paddock/internal/call"
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
}
