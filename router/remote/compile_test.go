package remote

import (
	"context"
	"reflect"
	"testing"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// TestCompileOnlyOverTheNode: a question whether code compiles travels without a sink, takes the code along where it is not there
// yet, and brings back where it does not.
func TestCompileOnlyOverTheNode(t *testing.T) {
	r := newRig(t)
	var asked []*call.Request
	refusal := &errs.Error{
		Kind: errs.LoadError, Message: "the code does not compile", Started: errs.StartedNo, Fault: errs.FaultTenant,
		Thrown: &errs.Thrown{Name: "SyntaxError", Message: "Unexpected token ';'", Line: 2, Column: 11, Excerpt: "  let x = ;\n          ^"},
	}
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		asked = append(asked, req)
		if string(req.Code.Source) == "bad" {
			return nil, refusal
		}
		return &call.Result{Container: "c0"}, nil
	}
	question := func(text string) *call.Request {
		req := request()
		req.Function, req.Version, req.Body, req.Code, req.CompileOnly = "", 0, nil, source(text), true
		return req
	}
	if res, err := r.node.Invoke(t.Context(), question("good"), nil); err != nil || len(res.Value) != 0 || res.Container != "c0" {
		t.Errorf("%+v, %v", res, err)
	}
	for range 2 {
		_, err := r.node.Invoke(t.Context(), question("bad"), nil)
		if e := errs.From(err); e == nil || e.Kind != errs.LoadError || !reflect.DeepEqual(e.Thrown, refusal.Thrown) || e.WhetherStarted() != errs.StartedNo {
			t.Errorf("%+v", e)
		}
	}
	if len(asked) != 3 || r.needs.Load() != 2 {
		t.Errorf("asked %d times, for %d pieces of code", len(asked), r.needs.Load())
	}
	for _, req := range asked {
		if !req.CompileOnly || len(req.Code.Source) == 0 || req.Pipeline != "" {
			t.Errorf("%+v", req)
		}
	}
}
