package router

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func draftCall(d *pb.Draft) *pb.InvokeRequest {
	return &pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte(`{"user":{},"context":{}}`)}
}

// TestDraftOfAPipeline: it runs like a stored one, its own code beside stored functions, with what the functions get, the call's
// values over it, and under a name that no pipeline has.
func TestDraftOfAPipeline(t *testing.T) {
	g := newRig(t, nil)
	g.cat.secrets = map[string]*catalog.Secrets{
		"acme/echo": {Values: map[string]string{"KEY": "of echo"}, Revision: "r1"},
		"acme/new":  {Values: map[string]string{"KEY": "of new", "MORE": "1"}, Revision: "r2"},
	}
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		got = req
		sink.Log(call.LogLine{Step: 2, Level: "info", Text: "hello"})
		res := okResult([]byte(`{"user":{},"context":{}}`))
		for i := range req.Steps {
			res.Steps = append(res.Steps, call.StepResult{Function: req.Steps[i].Function, Version: req.Steps[i].Version, Outcome: call.StepOK})
		}
		return res, nil
	}
	d := &pb.Draft{Configuration: map[string]string{"KEY": "of the case"}, Steps: []*pb.DraftStep{
		{Function: "new", Source: &pb.Source{Code: []byte("first"), Name: "new.ts"}, OnFailure: "skip", Timeout: durationpb.New(time.Second)},
		{Function: "off", Source: &pb.Source{Code: []byte("off")}, Disabled: true},
		{Function: "echo@3"},
	}}
	res, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-deploy"), withLogs(draftCall(d)))
	if err != nil {
		t.Fatal(err)
	}
	if got.Pipeline != "(draft)" || got.Code.Kind != call.KindRule || got.Revision != 42 || len(got.Steps) != 2 || got.Runtime != "node" {
		t.Fatalf("the call is %+v", got)
	}
	first, second := got.Steps[0], got.Steps[1]
	if string(first.Code.Source) != "first" || first.Code.Name != "new.ts" || first.Version != 0 || first.OnFailure != call.OnFailureSkip ||
		first.Timeout != time.Second {
		t.Errorf("the first step is %+v", first)
	}
	if second.Version != 3 || second.Code.Name != "echo.js" || len(second.Code.Source) == 0 {
		t.Errorf("the second step is %+v", second)
	}
	if !maps.Equal(first.Secrets, map[string]string{"KEY": "of the case", "MORE": "1"}) || !maps.Equal(second.Secrets, map[string]string{"KEY": "of the case"}) ||
		first.SecretsRev == second.SecretsRev || !strings.HasPrefix(first.SecretsRev, "r2+") {
		t.Errorf("they get %v (%s) and %v (%s)", first.Secrets, first.SecretsRev, second.Secrets, second.SecretsRev)
	}
	if left := time.Until(got.Deadline); left < 15*time.Second || left > 20*time.Second {
		t.Errorf("deadline in %s", left)
	}
	var story []string
	for _, s := range res.GetSteps() {
		story = append(story, s.GetFunction()+" "+s.GetOutcome())
	}
	if strings.Join(story, ", ") != "new ok, off disabled, echo ok" || len(res.GetSteps()[2].GetLogs()) != 1 || res.GetRevision() != 42 {
		t.Errorf("the answer says %v", res)
	}
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), draftCall(d)); err != nil {
		t.Fatal(err)
	}
	if s := got.Steps[0].Secrets; !maps.Equal(s, map[string]string{"KEY": "of the case"}) {
		t.Errorf("by a key that may only call: %v", s)
	}
	g.idle()
}

func withLogs(r *pb.InvokeRequest) *pb.InvokeRequest {
	r.WithLogs = true
	return r
}

func TestBadDrafts(t *testing.T) {
	g := newRig(t, nil)
	code := func(text string) *pb.Source { return &pb.Source{Code: []byte(text)} }
	one := func(s *pb.DraftStep) *pb.Draft { return &pb.Draft{Steps: []*pb.DraftStep{s}} }
	many := &pb.Draft{}
	for range catalog.MaxSteps + 1 {
		many.Steps = append(many.Steps, &pb.DraftStep{Function: "f", Source: code("1")})
	}
	for want, d := range map[string]*pb.Draft{
		"no kind \"cron\" of pipelines":             {Kind: "cron"},
		"step 1: function name":                     one(&pb.DraftStep{Source: code("1")}),
		"step 1 (f): it has source text and names":  one(&pb.DraftStep{Function: "f@2", Source: code("1")}),
		"step 1 (f): the source is empty":           one(&pb.DraftStep{Function: "f", Source: code(" ")}),
		"step 1 (f): the source is not UTF-8":       one(&pb.DraftStep{Function: "f", Source: code("\xff")}),
		"step 1 (f): the source is 1048577 bytes":   one(&pb.DraftStep{Function: "f", Source: code(strings.Repeat("x", 1<<20+1))}),
		"step 1 (f): name":                          one(&pb.DraftStep{Function: "f", Source: &pb.Source{Code: []byte("1"), Name: "a\nb"}}),
		"step 1: there is no on_failure \"ignore\"": one(&pb.DraftStep{Function: "f", Source: code("1"), OnFailure: "ignore"}),
		"step 1: the timeout is not a time above 0": one(&pb.DraftStep{Function: "f", Source: code("1"), Timeout: durationpb.New(-1)}),
		"step 1 (f): timeout 1h0m0s":                one(&pb.DraftStep{Function: "f", Source: code("1"), Timeout: durationpb.New(time.Hour)}),
		"has 101 steps: at most 100":                many,
		"secret name \"a b\"":                       {Configuration: map[string]string{"a b": "1"}},
		"no function none":                          one(&pb.DraftStep{Function: "none"}),
	} {
		_, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-deploy"), draftCall(d))
		if c := status.Code(err); c != codes.InvalidArgument && c != codes.NotFound || !strings.Contains(status.Convert(err).Message(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if n := g.node.calls.Load(); n != 0 {
		t.Errorf("%d of them came to a sandbox", n)
	}
	g.idle()
}

// TestPipelineOverGRPC: the value as it is, what became of each step, and a refusal and failures in the answer.
func TestPipelineOverGRPC(t *testing.T) {
	g := newRig(t, nil)
	loginPipeline(g)
	login := &pb.InvokeRequest{Target: &pb.InvokeRequest_Pipeline{Pipeline: "login"}, WithLogs: true}
	var outcome error
	var steps []call.StepResult
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		sink.Log(call.LogLine{Level: "warn", Text: "of none"})
		sink.Log(call.LogLine{Step: 1, Level: "info", Text: "of a"})
		res := okResult([]byte(`{"user":{ },"context":{}}`))
		res.Steps = steps
		return res, outcome
	}
	invoke := func() *pb.InvokeResponse {
		t.Helper()
		res, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), login)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	thrown := errs.New(errs.UserError, "step b failed")
	thrown.Thrown = &errs.Thrown{Name: "TypeError", Message: "no"}
	steps = []call.StepResult{{Function: "a", Version: 3, Outcome: call.StepOK, Took: time.Millisecond}, {Function: "b", Version: 5, Outcome: call.StepSkipped, Err: thrown}}
	res := invoke()
	if string(res.GetOutput()) != `{"user":{ },"context":{}}` || res.GetRevision() != 41 || len(res.GetSteps()) != 3 || len(res.GetWarnings()) != 1 {
		t.Fatalf("%v", res)
	}
	a, b := res.GetSteps()[0], res.GetSteps()[2]
	if a.GetRunUs() != 1000 || len(a.GetLogs()) != 1 || len(res.GetLogs()) != 1 || b.GetOutcome() != "skipped" || b.GetError().GetThrown().GetName() != "TypeError" {
		t.Errorf("%v", res)
	}
	for _, kind := range []errs.Kind{errs.Refused, errs.UserError, errs.LoadError, errs.OutOfMemory, errs.OutputTooLarge} {
		e := errs.New(kind, "step a ended it")
		outcome, steps = e, []call.StepResult{{Function: "a", Version: 3, Outcome: call.StepFailed, Err: e}}
		res := invoke()
		if res.GetError().GetKind() != string(kind) || len(res.GetOutput()) != 0 || len(res.GetSteps()) != 2 || res.GetRevision() != 41 ||
			res.GetSteps()[0].GetError().GetKind() != string(kind) || len(res.GetSteps()[0].GetLogs()) != 1 {
			t.Errorf("%s: %v", kind, res)
		}
	}
	outcome, steps = errs.New(errs.Timeout, "the deadline passed"), nil
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), login); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a timeout is %v", err)
	}
	login.Target = &pb.InvokeRequest_Pipeline{Pipeline: "none"}
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), login); status.Code(err) != codes.NotFound {
		t.Errorf("a pipeline that is not there is %v", err)
	}
	login.Target = &pb.InvokeRequest_Pipeline{Pipeline: "a/b"}
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), login); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a name that none can have is %v", err)
	}
	login.Target, login.Input = &pb.InvokeRequest_Pipeline{Pipeline: "login"}, []byte("{")
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), login); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an input that is no JSON is %v", err)
	}
	g.idle()
}
