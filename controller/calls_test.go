package controller

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/logs"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// history is what is kept of a tenant's calls, newest first.
func (r *rig) history(t tenant.ID) []*pb.CallRecord {
	r.t.Helper()
	calls, err := r.Kept().Calls(r.t.Context(), t, &pb.ListCallsRequest{Limit: 100})
	if err != nil {
		r.t.Fatal(err)
	}
	return calls
}

func TestCallsThatWere(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	r.tenant("bolt")
	if _, err := r.run("acme", "value 42"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.run("acme", "throw TypeError: of no use"); !errs.Is(err, errs.UserError) {
		t.Fatal(err)
	}
	all := r.history("acme")
	if len(all) != 2 || len(r.history("bolt")) != 0 {
		t.Fatalf("%v", all)
	}
	bad, good := all[0], all[1]
	if good.GetOutcome() != "ok" || good.GetOutputBytes() != 2 || good.GetInputBytes() != 2 || good.GetContainerId() == "" ||
		good.GetStart() != "pooled" || good.GetStages().GetTotalUs() <= 0 || good.GetController() != "c1" || good.GetInputKept() {
		t.Errorf("%v", good)
	}
	if bad.GetOutcome() != "user_error" || !strings.Contains(bad.GetMessage(), "of no use") || bad.GetStart() != "warm" {
		t.Errorf("%v", bad)
	}
	if _, err := r.cat.UpdateTenant(t.Context(), "acme", &pb.Policy{RecordInputs: proto.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.run("acme", "value 1"); err != nil {
		t.Fatal(err)
	}
	id := r.history("acme")[0].GetCallId()
	if res, err := r.Kept().Call(t.Context(), "acme", id); err != nil || string(res.GetInput()) != "{}" || !res.GetCall().GetInputKept() {
		t.Errorf("%v %v", res, err)
	}
	if _, err := r.Kept().Call(t.Context(), "bolt", id); !errs.Is(err, errs.NotFound) {
		t.Errorf("another tenant's call: %v", err)
	}
	if _, err := r.cat.DeleteTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "calls go", func() bool { return r.Controller.calls.Stats() == (logs.CallStats{}) })
}

// TestEndedByTheRouter: what the router ends for a reason of its own has that reason in the history as well.
func TestEndedByTheRouter(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	for want, cause := range map[string]error{
		"output_too_large": &errs.Error{Kind: errs.OutputTooLarge, Message: "more than may be"}, "cancelled": context.Canceled,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		policy := tenant.DefaultPolicy()
		ended := make(chan error, 1)
		id := call.ID("call-" + want)
		go func() {
			_, err := r.Invoke(ctx, &call.Request{
				ID: id, Tenant: "acme", Policy: &policy, Runtime: "node", Code: call.Code{Hash: want, Source: []byte("log begun;gate never")},
				Deadline: time.Now().Add(20 * time.Second),
			}, nil)
			ended <- err
		}()
		testenv.Await(t, "the call runs", func() bool { return len(r.logs.Kept("acme", logs.Filter{Call: id}, 1, time.Now())) == 1 })
		cancel(cause)
		<-ended
		if c := r.history("acme")[0]; c.GetOutcome() != want || c.GetCallId() != string(id) {
			t.Errorf("%v, want %s", c, want)
		}
	}
}
