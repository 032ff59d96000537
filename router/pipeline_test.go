package router

import (
	"context"
	"strings"
	"testing"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
)

func loginPipeline(g *rig) {
	version := func(n int64) *catalog.VersionView {
		return &catalog.VersionView{Number: n, Hash: "hash", Kind: call.KindRule, Runtime: "node"}
	}
	steps := []catalog.PipelineStep{{Function: "a"}, {Function: "off", Disabled: true}, {Function: "b", OnFailure: call.OnFailureSkip}}
	g.cat.pipelines = map[string]*catalog.ResolvedPipeline{"acme/login": {
		Pipeline: &catalog.PipelineView{Name: "login", Kind: call.KindRule, Steps: steps}, Runtime: "node", Revision: 41,
		Steps: []catalog.ResolvedStep{{PipelineStep: &steps[0], Code: version(3)}, {PipelineStep: &steps[1]}, {PipelineStep: &steps[2], Code: version(5)}},
	}}
}

// TestPipelineAnswer: the value goes through unread, and what became of the steps stands beside it, also beside a refusal.
func TestPipelineAnswer(t *testing.T) {
	g := newRig(t, nil)
	loginPipeline(g)
	results := []call.StepResult{{Function: "a", Version: 3, Outcome: call.StepOK, Took: time.Millisecond},
		{Function: "b", Version: 5, Outcome: call.StepSkipped, Err: errs.New(errs.UserError, "step b failed")}}
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		got = req
		sink.Log(call.LogLine{Step: 2, Level: "info", Text: "hello", Time: time.Unix(1, 0).UTC()})
		res := okResult([]byte(`{"user":{"a":1 },"context":{}}`))
		res.Steps = results
		return res, nil
	}
	a := g.do("POST", "/v1/pipelines/login/invoke?logs=true", `{"user":{},"context":{}}`)
	want := `{"user":{"a":1 },"context":{},"steps":[{"function":"a","version":3,"outcome":"ok","ms":1},{"function":"off","outcome":"disabled","ms":0},` +
		`{"function":"b","version":5,"outcome":"skipped","ms":0,"error":{"kind":"user_error","message":"step b failed"},` +
		`"logs":[{"time":"1970-01-01T00:00:01Z","level":"info","text":"hello"}]}],"revision":41,` +
		`"warnings":["step b (version 5) was skipped: user_error"]}`
	if a.status != 200 || a.body != want || a.header.Get("Paddock-Revision") != "41" {
		t.Errorf("%d %s\nwant %s", a.status, a.body, want)
	}
	if got.Pipeline != "login" || len(got.Steps) != 2 || got.Steps[1].OnFailure != call.OnFailureSkip || got.Code.Kind != call.KindRule || got.Revision != 41 {
		t.Errorf("%+v", got)
	}
	if left := time.Until(got.Deadline); left < 15*time.Second || left > 20*time.Second {
		t.Errorf("deadline in %s", left)
	}
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		no := errs.New(errs.Refused, "step a denied access")
		res := okResult(nil)
		res.Steps = []call.StepResult{{Function: "a", Version: 3, Outcome: call.StepRefused, Err: no}}
		return res, no
	}
	a = g.do("POST", "/v1/pipelines/login/invoke", `{}`)
	if a.status != 403 || a.problem.Kind != "refused" || !strings.Contains(a.body, `"steps":[{"function":"a","version":3,"outcome":"refused"`) ||
		!strings.Contains(a.body, `"revision":41`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.do("POST", "/v1/pipelines/none/invoke", `{}`); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.idle()
}

// TestPipelineSecretsAreOfOneMoment: a secret that changes, or goes, while the steps are put together is the same in all of them.
func TestPipelineSecretsAreOfOneMoment(t *testing.T) {
	g := newRig(t, nil)
	loginPipeline(g)
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		got = req
		return okResult([]byte(`{}`)), nil
	}
	one, two := &catalog.Secrets{Values: map[string]string{"A": "1"}, Revision: "1"}, &catalog.Secrets{Values: map[string]string{"A": "2"}, Revision: "2"}
	for name, then := range map[string][]*catalog.Secrets{
		"changed once":             {one, two},
		"changed while read again": {one, one, one, two},
		"made":                     {nil, two},
		"removed":                  {one, nil},
	} {
		reads := 0
		g.cat.secretsNow = func() *catalog.Secrets {
			reads++
			return then[min(reads, len(then))-1]
		}
		if a := g.do("POST", "/v1/pipelines/login/invoke", `{}`); a.status != 200 {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		if a, b := got.Steps[0], got.Steps[1]; a.SecretsRev != b.SecretsRev || a.Secrets["A"] != b.Secrets["A"] {
			t.Errorf("%s: %q and %q", name, a.SecretsRev, b.SecretsRev)
		}
		if last := then[len(then)-1]; reads >= len(then)+2 && last != nil && got.Steps[0].SecretsRev != last.Revision {
			t.Errorf("%s: %q", name, got.Steps[0].SecretsRev)
		}
	}
}
