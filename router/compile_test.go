package router

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// TestCompileAsksNodes: each piece of code, none of which runs; what comes back says of which it is, and that nothing started.
func TestCompileAsksNodes(t *testing.T) {
	policy := tenant.DefaultPolicy()
	node := &fakeNode{}
	compile := Compile(OneNode(node))
	code := []call.Code{{Hash: "1", Name: "a.js", Source: []byte("a")}, {Hash: "2", Name: "b.js", Source: []byte("b")}}
	var asked []string
	fail := map[string]*errs.Error{}
	node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		if !req.CompileOnly || req.Tenant != "acme" || req.Policy != &policy || req.Runtime != "node" || req.Deadline.IsZero() ||
			req.ID == "" || sink != nil {
			t.Errorf("%+v", req)
		}
		asked = append(asked, req.Code.Name)
		if e := fail[req.Code.Name]; e != nil {
			return nil, e
		}
		return &call.Result{}, nil
	}
	ask := func() (*errs.Error, string) {
		asked = nil
		return errs.From(compile(t.Context(), "acme", &policy, "node", code)), strings.Join(asked, " ")
	}
	if e, names := ask(); e != nil || names != "a.js b.js" {
		t.Errorf("%v, asked of %s", e, names)
	}
	for _, c := range []struct {
		e     *errs.Error
		says  string
		asked string
	}{
		{&errs.Error{Kind: errs.LoadError, Thrown: &errs.Thrown{Line: 3, Column: 4}}, "a.js does not compile: line 3, column 4", "a.js"},
		{&errs.Error{Kind: errs.LoadError, Thrown: &errs.Thrown{Line: 3}}, "a.js does not compile: line 3", "a.js"},
		{&errs.Error{Kind: errs.LoadError}, "a.js does not compile", "a.js"},
		{&errs.Error{Kind: errs.Timeout}, "not compiled within 10s", "a.js"},
		{&errs.Error{Kind: errs.OutOfMemory}, "memory", "a.js a.js"}, // other calls may have filled the first sandbox
		{&errs.Error{Kind: errs.Limited, Message: "too many", Cause: "claims", RetryAfter: time.Second}, "too many", "a.js"},
		{&errs.Error{Kind: errs.NoCapacity, Message: "full"}, "full", "a.js a.js"}, // the same node twice: no use
		{&errs.Error{Kind: errs.SandboxLost, Message: "lost", Started: errs.StartedNo}, "lost", "a.js a.js a.js"},
	} {
		fail["a.js"] = c.e
		e, names := ask()
		if e == nil || e.Kind != c.e.Kind || !strings.Contains(e.Message, c.says) || e.WhetherStarted() != errs.StartedNo ||
			e.RetryAfter != c.e.RetryAfter || e.Cause != c.e.Cause {
			t.Errorf("%v: %v", c.e, e)
		}
		if c.e.Kind != errs.NoCapacity && names != c.asked {
			t.Errorf("%v: asked of %s, want %s", c.e, names, c.asked)
		}
	}
	if e := errs.From(Compile(noNodes{})(t.Context(), "acme", &policy, "node", code)); e == nil || e.Kind != errs.NoCapacity || e.RetryAfter == 0 {
		t.Errorf("without a node: %v", e)
	}
}

// TestCompileOutlivesOthersMemory: a call in the same sandbox that uses its memory up is no reason to refuse code.
func TestCompileOutlivesOthersMemory(t *testing.T) {
	policy := tenant.DefaultPolicy()
	asked := 0
	node := &fakeNode{do: func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		if asked++; asked == 1 {
			return nil, &errs.Error{Kind: errs.OutOfMemory}
		}
		return &call.Result{}, nil
	}}
	code := []call.Code{{Hash: "1", Name: "a.js", Source: []byte("a")}}
	if err := Compile(OneNode(node))(t.Context(), "acme", &policy, "node", code); err != nil || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// TestCompileWaitsWhereCallsWould: three that have no room are not the end, a fourth is.
func TestCompileWaitsWhereCallsWould(t *testing.T) {
	policy := tenant.DefaultPolicy()
	code := []call.Code{{Hash: "1", Name: "a.js", Source: []byte("a")}}
	for full, served := range map[int]bool{maxResolves: true, maxResolves + 1: false} {
		asked := 0
		do := func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
			if asked++; asked <= full {
				return nil, &errs.Error{Kind: errs.NoCapacity, Cause: errs.CauseFull}
			}
			return &call.Result{}, nil
		}
		err := Compile(newNodes{do})(t.Context(), "acme", &policy, "node", code)
		if (err == nil) != served || asked != maxResolves+1 {
			t.Errorf("%d are full: asked %d times: %v", full, asked, err)
		}
	}
}

// newNodes are another node each time.
type newNodes struct {
	do func(context.Context, *call.Request, call.Sink) (*call.Result, error)
}

func (n newNodes) Route(*call.Request) func() (Node, bool) {
	return func() (Node, bool) { return &fakeNode{do: n.do}, true }
}

type noNodes struct{}

func (noNodes) Route(*call.Request) func() (Node, bool) {
	return func() (Node, bool) { return nil, false }
}

// TestUploadThatDoesNotCompile: REST has the place in the problem document, gRPC in a detail.
func TestUploadThatDoesNotCompile(t *testing.T) {
	g := newRig(t, nil)
	g.services.fail = &errs.Error{
		Kind: errs.LoadError, Message: "rule.js does not compile: line 2, column 7",
		Thrown: &errs.Thrown{Name: "SyntaxError", Message: "Unexpected token", Line: 2, Column: 7, Excerpt: "x = ;\xff"},
	}
	a := g.do("PUT", "/v1/functions/rule", "x", "Content-Type: application/javascript", "Authorization: "+bearerOf("acme-deploy"))
	if a.status != 422 || a.problem.Thrown == nil || a.problem.Thrown.Line != 2 || a.problem.Started != "no" {
		t.Errorf("%d %s", a.status, a.body)
	}
	_, err := pb.NewCatalogClient(g.conn).DeployFunction(ctxAs(t.Context(), "acme-deploy"), &pb.DeployFunctionRequest{Name: "rule"})
	st := status.Convert(err)
	var said *pb.Thrown
	for _, d := range st.Details() {
		if e, ok := d.(*pb.Thrown); ok {
			said = e
		}
	}
	if st.Code() == codes.OK || said.GetColumn() != 7 || said.GetExcerpt() != "x = ;\uFFFD" {
		t.Errorf("%v: %v", err, st.Details())
	}
}

// TestDeployQuery: what goes beside raw source text.
func TestDeployQuery(t *testing.T) {
	g := newRig(t, nil)
	put := func(query string) answerOf {
		return g.do("PUT", "/v1/functions/rule?"+query, "x", "Content-Type: application/javascript", "Authorization: "+bearerOf("acme-deploy"))
	}
	if a := put("keep_active=true&expected_revision=7&note=n"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if r := g.services.asked.Load(); !r.GetKeepActive() || r.GetExpectedRevision() != 7 || r.GetNote() != "n" {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"keep_active=perhaps", "expected_revision=-1", "expected_revision=x", "what=1"} {
		if a := put(bad); a.status != 400 || !strings.Contains(a.problem.Detail, bad[:strings.Index(bad, "=")]) {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
}

// TestManagementMinRevision: reads wait for a write that was made elsewhere, by REST and by gRPC.
func TestManagementMinRevision(t *testing.T) {
	g := newRig(t, nil) // it has seen 7
	op := "Authorization: " + bearerOf("op")
	if a := g.do("GET", "/v1/tenants/acme", "", op, "Paddock-Min-Revision: 7"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.do("GET", "/v1/tenants/acme", "", op, "Paddock-Min-Revision: soon"); a.status != 400 || !strings.Contains(a.problem.Detail, "soon") {
		t.Errorf("%d %s", a.status, a.body)
	}
	ctx, cancel := context.WithTimeout(ctxAs(t.Context(), "op"), 100*time.Millisecond)
	defer cancel()
	client := pb.NewCatalogClient(g.conn)
	if _, err := client.GetTenant(metadata.AppendToOutgoingContext(ctx, "paddock-min-revision", "7"), &pb.GetTenantRequest{Id: "acme"}); err != nil {
		t.Error(err)
	}
	saw := g.services.saw.Swap(nil)
	_, err := client.GetTenant(metadata.AppendToOutgoingContext(ctx, "paddock-min-revision", "8"), &pb.GetTenantRequest{Id: "acme"})
	if code := status.Code(err); saw == nil || g.services.saw.Load() != nil || code != codes.DeadlineExceeded && code != codes.Unavailable {
		t.Errorf("it did not wait: %v", err)
	}
}

// TestPublishTakesMuchCode: more than other management requests may bring.
func TestPublishTakesMuchCode(t *testing.T) {
	g := newRig(t, nil)
	body := `{"pipeline":{},"functions":[{"name":"f","source":"` + base64.StdEncoding.EncodeToString(make([]byte, 2*managementBytes)) + `"}]}`
	if a := g.do("POST", "/v1/pipelines/login/publish", body, "Authorization: "+bearerOf("acme-deploy")); a.status == 413 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.do("PUT", "/v1/pipelines/login", body, "Authorization: "+bearerOf("acme-deploy")); a.status != 413 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
