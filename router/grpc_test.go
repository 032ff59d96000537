package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/call"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func echoRequest(input string) *pb.InvokeRequest {
	return &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: "echo"}, Input: []byte(input)}
}

func TestInvokeOverGRPC(t *testing.T) {
	g := newRig(t, nil)
	var trailer metadata.MD
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		sink.Log(call.LogLine{Call: req.ID, Level: "info", Text: "a\xffb", Time: time.Now()})
		return okResult(req.Body), nil
	}
	req := echoRequest(`{"x":1}`)
	req.WithLogs = true
	res, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), req, grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	if string(res.Output) != `{"x":1}` || res.Start != "warm" || res.Isolation != "gvisor" || res.Stages.RunUs != 1500 ||
		len(res.Logs) != 1 || res.Logs[0].Text != "a\uFFFDb" {
		t.Errorf("%v", res)
	}
	if id := trailer.Get("paddock-call-id"); len(id) != 1 || id[0] != res.CallId || len(res.CallId) != 32 {
		t.Errorf("trailer %v, id %q", trailer, res.CallId)
	}
	g.idle()
}

func TestEveryKindOverGRPC(t *testing.T) {
	g := newRig(t, nil)
	client := pb.NewSandboxClient(g.conn)
	for _, kind := range errs.Kinds() {
		e := &errs.Error{Kind: kind, Message: "what happened", Cause: "crashed", Err: errBoom, RetryAfter: time.Second,
			Thrown: &errs.Thrown{Name: "TypeError", Message: "x\xff"}}
		g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { return nil, e }
		var trailer metadata.MD
		res, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1"), grpc.Trailer(&trailer))
		row := errs.Lookup(kind)
		if got := trailer.Get("paddock-error"); len(got) != 1 || got[0] != string(kind) {
			t.Errorf("%s: trailers %v", kind, trailer)
		}
		if row.InBand {
			if err != nil || res.GetError().GetKind() != string(kind) || res.Error.Thrown.GetName() != "TypeError" ||
				res.Error.Started != string(row.Started) || res.Error.Fault != string(row.Fault) || res.Output != nil {
				t.Errorf("%s: %v %v", kind, res, err)
			}
			continue
		}
		st := status.Convert(err)
		info, retry := false, false
		for _, d := range st.Details() {
			switch d := d.(type) {
			case *errdetails.ErrorInfo:
				info = d.Reason == string(kind) && d.Domain == "paddock" && d.Metadata["cause"] == "crashed" &&
					d.Metadata["started"] == string(row.Started)
			case *errdetails.RetryInfo:
				retry = d.RetryDelay.AsDuration() == time.Second
			}
		}
		if st.Code() != row.GRPC || !info || !retry || strings.Contains(st.String(), "secret inside") {
			t.Errorf("%s: %v %v", kind, st, st.Details())
		}
	}
	g.idle()
}

func TestGRPCBadInput(t *testing.T) {
	g := newRig(t, nil)
	client := pb.NewSandboxClient(g.conn)
	source := func(code, kind string) *pb.InvokeRequest {
		return &pb.InvokeRequest{Target: &pb.InvokeRequest_Source{Source: &pb.Source{Code: []byte(code), Kind: kind}}}
	}
	timeout := func(d time.Duration) *pb.InvokeRequest {
		r := echoRequest("1")
		r.Timeout = durationpb.New(d)
		return r
	}
	for name, c := range map[string]struct {
		req  *pb.InvokeRequest
		code codes.Code
		says string
	}{
		"no target":   {&pb.InvokeRequest{}, codes.InvalidArgument, "target"},
		"not JSON":    {echoRequest("{"), codes.InvalidArgument, "not JSON"},
		"empty code":  {source("", ""), codes.InvalidArgument, "empty"},
		"nil source":  {&pb.InvokeRequest{Target: &pb.InvokeRequest_Source{}}, codes.InvalidArgument, "empty"},
		"kind":        {source("1", "poem"), codes.InvalidArgument, "poem"},
		"large code":  {source(strings.Repeat("x", 1<<20+1), ""), codes.InvalidArgument, "1048576"},
		"large input": {echoRequest(strings.Repeat(" ", 6<<20+1)), codes.InvalidArgument, "6291456"},
		"negative":    {timeout(-time.Second), codes.InvalidArgument, "5m0s"},
		"too long":    {timeout(time.Hour), codes.InvalidArgument, "5m0s"},
		"unknown":     {&pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: "nope"}}, codes.NotFound, "nope"},
		"pipeline":    {&pb.InvokeRequest{Target: &pb.InvokeRequest_Pipeline{Pipeline: "p"}}, codes.NotFound, "p"},
	} {
		_, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), c.req)
		if st := status.Convert(err); st.Code() != c.code || !strings.Contains(st.Message(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := g.node.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the node", n)
	}
	g.idle()
}

func TestGRPCDeadlines(t *testing.T) {
	g := newRig(t, nil)
	var left time.Duration
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		left = time.Until(req.Deadline)
		return okResult(nil), nil
	}
	for _, c := range []struct {
		transport, message, want time.Duration
	}{
		{0, 0, 10 * time.Second},
		{2 * time.Second, 0, 2 * time.Second},
		{time.Hour, 0, 300 * time.Second},
		{time.Hour, 4 * time.Second, 4 * time.Second},
		{2 * time.Second, 4 * time.Second, 2 * time.Second},
	} {
		ctx := ctxAs(t.Context(), "acme-invoke")
		if c.transport > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, c.transport)
			defer cancel()
		}
		req := echoRequest("1")
		if c.message > 0 {
			req.Timeout = durationpb.New(c.message)
		}
		if _, err := pb.NewSandboxClient(g.conn).Invoke(ctx, req); err != nil {
			t.Fatal(err)
		}
		if left > c.want || left < c.want-time.Second {
			t.Errorf("%v: %s left", c, left)
		}
	}
}

func TestCollectedHTTPAnswerOverGRPC(t *testing.T) {
	g := newRig(t, nil)
	g.node.do = func(_ context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
		_ = sink.Head(404, []call.Header{{Name: "X-A", Value: "b"}})
		_ = sink.Data([]byte("hm"))
		return okResult(nil), nil
	}
	res, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1"))
	if err != nil || string(res.Output) != `{"status":404,"headers":[["X-A","b"]],"body":"hm"}` {
		t.Errorf("%s %v", res.GetOutput(), err)
	}
}

func TestStreamCarriesManyCalls(t *testing.T) {
	g := newRig(t, nil)
	p := *g.cat.tenants["acme"].Policy
	p.Concurrency, p.RatePerSecond, p.RateBurst = 1000, 1e6, 1000000
	g.cat.tenants["acme"].Policy = &p
	var gate atomic.Int64
	all := make(chan struct{})
	const together = 64
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		if gate.Add(1) == together {
			close(all) // that many really are in flight at once
		}
		<-all
		return okResult(req.Body), nil
	}
	s, err := pb.NewSandboxClient(g.conn).InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	go func() {
		for i := range uint64(n) {
			_ = s.Send(&pb.InvokeStreamRequest{Tag: i, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest(fmt.Sprint(i))}})
		}
		_ = s.CloseSend()
	}()
	seen := map[uint64]bool{}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := m.GetResult(); r.GetError() != nil || string(r.GetOutput()) != fmt.Sprint(m.Tag) || seen[m.Tag] {
			t.Fatalf("%v", m)
		}
		seen[m.Tag] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d answers", len(seen), n)
	}
	g.idle()
}

func TestStreamLogsCancelAndErrors(t *testing.T) {
	g := newRig(t, nil)
	started := make(chan struct{}, 8)
	g.node.do = func(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		if string(req.Body) == `"hang"` {
			started <- struct{}{}
			<-ctx.Done()
			return nil, errs.New(errs.Cancelled, "cancelled")
		}
		for i := range 3 {
			sink.Log(call.LogLine{Text: fmt.Sprint(i)})
		}
		return okResult(req.Body), nil
	}
	s, err := pb.NewSandboxClient(g.conn).InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	send := func(tag uint64, r *pb.InvokeRequest) {
		_ = s.Send(&pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: r}})
	}
	recv := func() *pb.InvokeStreamResponse {
		t.Helper()
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	logged := echoRequest("1")
	logged.WithLogs = true
	send(1, logged)
	for i := range 3 {
		if m := recv(); m.GetLog().GetText() != fmt.Sprint(i) || m.Tag != 1 {
			t.Fatalf("%v", m)
		}
	}
	if m := recv(); string(m.GetResult().GetOutput()) != "1" {
		t.Fatalf("%v", m)
	}
	send(2, echoRequest(`"hang"`))
	<-started
	send(2, echoRequest("1"))
	if m := recv(); m.GetResult().GetError().GetKind() != "invalid" {
		t.Errorf("a tag twice: %v", m)
	}
	_ = s.Send(&pb.InvokeStreamRequest{Tag: 2, Body: &pb.InvokeStreamRequest_Cancel{Cancel: &pb.CancelCall{}}})
	if m := recv(); m.GetResult().GetError().GetKind() != "cancelled" {
		t.Errorf("cancelled: %v", m)
	}
	_ = s.Send(&pb.InvokeStreamRequest{Tag: 3})
	if m := recv(); m.GetResult().GetError().GetKind() != "invalid" {
		t.Errorf("empty: %v", m)
	}
	send(4, echoRequest("{"))
	if m := recv(); m.GetResult().GetError().GetStarted() != "no" {
		t.Errorf("bad input: %v", m)
	}
	g.cat.mu.Lock()
	delete(g.cat.keys, "acme-invoke")
	g.cat.mu.Unlock()
	send(5, echoRequest("1"))
	if m := recv(); m.GetResult().GetError().GetKind() != "unauthenticated" {
		t.Errorf("a key revoked under the stream: %v", m)
	}
	_ = s.CloseSend()
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
	g.idle()
}

func TestHealthAndReflection(t *testing.T) {
	g := newRig(t, nil)
	h, err := healthpb.NewHealthClient(g.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "paddock.v1.Sandbox"})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", h, err)
	}
	s, err := reflectionpb.NewServerReflectionClient(g.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	m, err := s.Recv()
	if err != nil || len(m.GetListServicesResponse().GetService()) < 6 {
		t.Errorf("%v %v", m, err)
	}
	_ = s.CloseSend()
}

func TestGRPCPanicIsAnAnswer(t *testing.T) {
	g := newRig(t, nil)
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { panic("ouch") }
	_, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1"))
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "ouch") {
		t.Errorf("%v", err)
	}
	s, err := pb.NewSandboxClient(g.conn).InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&pb.InvokeStreamRequest{Tag: 1, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("1")}})
	if m, err := s.Recv(); err != nil || m.GetResult().GetError().GetKind() != "internal" {
		t.Errorf("%v %v", m, err)
	}
	_ = s.CloseSend()
	_, _ = s.Recv()
	g.idle()
}
