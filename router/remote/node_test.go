package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"paddock/controller/catalog"
	"paddock/controller/noderpc"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// fakeController runs what the test gives it.
type fakeController struct {
	invoke func(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error)
}

func (f *fakeController) Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	return f.invoke(ctx, req, sink)
}

func (f *fakeController) RemoveTenant(context.Context, tenant.ID) (int, error) { return 3, nil }

// fakeCatalogue knows the tenant acme, from revision 5 on "late" too.
type fakeCatalogue struct{ revision atomic.Int64 }

func (c *fakeCatalogue) Tenant(id tenant.ID) (*catalog.TenantView, bool) {
	p := tenant.DefaultPolicy()
	if id == "acme" || id == "late" && c.revision.Load() >= 5 {
		return &catalog.TenantView{ID: id, Policy: &p, Revision: min(5, c.revision.Load())}, true
	}
	return nil, false
}

func (c *fakeCatalogue) WaitRevision(ctx context.Context, revision int64) error {
	for c.revision.Load() < revision {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (c *fakeCatalogue) Revision() int64    { return c.revision.Load() }
func (c *fakeCatalogue) Age() time.Duration { return time.Second }

type rig struct {
	controller fakeController
	catalogue  fakeCatalogue
	addr       string
	server     *grpc.Server
	served     *noderpc.Server
	conn       *grpc.ClientConn
	node       *Node
	needs      atomic.Int64 // pieces of code that were asked for
	streams    atomic.Int64 // that were opened
	open       atomic.Int64 // that have not ended
	older      atomic.Value // "router" or "controller": who knows nothing of streams that carry more than one call
}

func newRig(t testing.TB) *rig {
	r := &rig{}
	r.catalogue.revision.Store(1)
	r.older.Store("")
	r.addr = "127.0.0.1:0"
	r.start(t)
	t.Cleanup(func() { r.server.Stop() })
	var err error
	r.conn, err = grpc.NewClient(r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), DialOption(),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(16*window),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second, Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.conn.Close() })
	r.node = New("c1", r.conn)
	return r
}

// window is what may be under way to one call's reader.
const window = 512 << 10

// start starts the controller's process, where it was before if there was one.
func (r *rig) start(t testing.TB) {
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	r.server = grpc.NewServer(grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(16*window), grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		r.streams.Add(1)
		r.open.Add(1)
		defer r.open.Add(-1)
		return h(srv, watched{ss, r})
	}))
	r.served = noderpc.New(noderpc.Options{
		ID: "c1", Instance: "i1", Controller: &r.controller, Catalogue: &r.catalogue,
		State: func() noderpc.State { return noderpc.State{Ready: true, InFlight: 7} },
	})
	pb.RegisterNodeServer(r.server, r.served)
	server := r.server
	go func() { _ = server.Serve(l) }()
}

// watched is a stream that counts what code is asked for, and takes from its messages what an older side would not have sent.
type watched struct {
	grpc.ServerStream
	r *rig
}

func (w watched) SendMsg(m any) error {
	res := m.(*pb.NodeResponse)
	if need := res.GetNeed(); need != nil {
		w.r.needs.Add(int64(len(need.GetHashes())))
	}
	if w.r.older.Load() == "controller" && res.GetResult() != nil {
		res.GetResult().Again = false
	}
	return w.ServerStream.SendMsg(m)
}

func (w watched) RecvMsg(m any) error {
	err := w.ServerStream.RecvMsg(m)
	if head := m.(*pb.NodeRequest).GetCall(); head != nil && w.r.older.Load() != "" {
		head.Again = false
	}
	return err
}

func source(text string) call.Code {
	sum := sha256.Sum256([]byte(text))
	return call.Code{Hash: hex.EncodeToString(sum[:]), Kind: call.KindRule, Name: "x.js", Source: []byte(text)}
}

func request() *call.Request {
	p := tenant.DefaultPolicy()
	return &call.Request{
		ID: "0123", Tenant: "acme", Policy: &p, Runtime: "node", Function: "f", Version: 3, Code: source("code"),
		Body: []byte(`{"a":1}`), Deadline: time.Now().Add(10 * time.Second),
	}
}

// sink keeps what comes.
type sink struct {
	status  int
	headers []call.Header
	body    bytes.Buffer
	logs    []call.LogLine
	fail    error
}

func (s *sink) Head(status int, h []call.Header) error {
	s.status, s.headers = status, h
	return s.fail
}
func (s *sink) Data(p []byte) error { s.body.Write(p); return s.fail }
func (s *sink) Log(l call.LogLine)  { s.logs = append(s.logs, l) }
func (s *sink) WantsLogs() bool     { return true }

// What a call says arrives as it was said, and so does its answer.
func TestCallAndAnswerTravelWhole(t *testing.T) {
	r := newRig(t)
	sent := request()
	sent.Secrets, sent.SecretsRev = map[string]string{"K": "v"}, "r9"
	sent.Outside, sent.Config = map[string]string{"O": "o"}, map[string]string{"c": "d"}
	sent.Fresh, sent.Idempotent, sent.Pipeline, sent.Revision = true, true, "login", 44
	sent.Steps = []call.Step{
		{Function: "a", Version: 2, Code: source("a"), Timeout: time.Second, OnFailure: call.OnFailureLastGood,
			Secrets: map[string]string{"S": "1"}, SecretsRev: "2", Fallback: &call.Fallback{Version: 1, Code: source("a1")}},
		{Function: "b", Version: 1, Code: source("b"), OnFailure: call.OnFailureFail},
	}
	sent.Code.Source = nil
	answer := &call.Result{
		Value: []byte(`[1]`), Container: "c0", Start: call.StartThawed, Isolation: tenant.IsolationGVisor, CPU: 5 * time.Millisecond,
		Stages:   call.Stages{Queue: time.Microsecond, Assign: 2 * time.Microsecond, Load: 3 * time.Microsecond, Run: 4 * time.Microsecond},
		Warnings: []string{"w"},
		Steps: []call.StepResult{{Function: "a", Version: 2, Outcome: call.StepLastGood, Took: time.Millisecond, Fallback: 1,
			Err: &errs.Error{Kind: errs.UserError, Message: "m", Started: errs.StartedYes, Fault: errs.FaultTenant, Thrown: &errs.Thrown{Name: "E", StatusCode: 4}}}},
	}
	var got *call.Request
	r.controller.invoke = func(_ context.Context, req *call.Request, s call.Sink) (*call.Result, error) {
		got = req
		s.Log(call.LogLine{Call: req.ID, Tenant: req.Tenant, Function: "f", Container: "c0", Level: "info", Time: time.UnixMilli(5).UTC(), Text: "said", Dropped: 2})
		return answer, nil
	}
	var out sink
	res, err := r.node.Invoke(t.Context(), sent, &out)
	if err != nil || !reflect.DeepEqual(res, answer) {
		t.Fatalf("%+v, %v", res, err)
	}
	if left := time.Until(got.Deadline); left > 10*time.Second || left < 5*time.Second {
		t.Errorf("%v are left of 10 s", left)
	}
	got.Deadline, got.Policy = sent.Deadline, sent.Policy
	if !reflect.DeepEqual(got, sent) {
		t.Errorf("got  %+v\nsent %+v", got, sent)
	}
	want := []call.LogLine{{Call: "0123", Tenant: "acme", Function: "f", Container: "c0", Level: "info", Time: time.UnixMilli(5).UTC(), Text: "said", Dropped: 2}}
	if !reflect.DeepEqual(out.logs, want) {
		t.Errorf("logs %+v", out.logs)
	}
}

// Code goes over once.
func TestCodeIsAskedForOnce(t *testing.T) {
	r := newRig(t)
	big := source("module.exports = " + strings.Repeat("x", 700<<10))
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		return &call.Result{Value: fmt.Appendf(nil, "%d", len(req.Code.Source))}, nil
	}
	for range 3 {
		req := request()
		req.Code = big
		res, err := r.node.Invoke(t.Context(), req, &sink{})
		if err != nil || string(res.Value) != fmt.Sprint(len(big.Source)) {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	if n := r.needs.Load(); n != 1 {
		t.Errorf("asked for %d pieces of code", n)
	}
	// Another tenant's is another's, whatever the hash.
	r.catalogue.revision.Store(5)
	req := request()
	req.Tenant, req.Code = "late", big
	if _, err := r.node.Invoke(t.Context(), req, &sink{}); err != nil || r.needs.Load() != 2 {
		t.Errorf("%v, asked %d times", err, r.needs.Load())
	}
	// What is not what its hash says is not run.
	req = request()
	req.Code = source("right")
	req.Code.Source = []byte("wrong")
	r.controller.invoke = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { panic("run") }
	_, err := r.node.Invoke(t.Context(), req, &sink{})
	if !errs.Is(err, errs.Internal) || errs.From(err).WhetherStarted() != errs.StartedNo {
		t.Errorf("other code: %v", err)
	}
}

func TestLargeBodiesAndValues(t *testing.T) {
	r := newRig(t)
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		return &call.Result{Value: bytes.ToUpper(req.Body)}, nil
	}
	for _, n := range []int{0, 1, 256 << 10, 256<<10 + 1, 6 << 20} {
		req := request()
		req.Body = bytes.Repeat([]byte("a"), n)
		res, err := r.node.Invoke(t.Context(), req, &sink{})
		if err != nil || !bytes.Equal(res.Value, bytes.ToUpper(req.Body)) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	req := request()
	req.Body = bytes.Repeat([]byte("a"), 6<<20+1)
	_, err := r.node.Invoke(t.Context(), req, &sink{})
	if !errs.Is(err, errs.Invalid) || errs.From(err).WhetherStarted() != errs.StartedNo {
		t.Errorf("too large an input: %v", err)
	}
}

// A streamed body and its answer go at the same time.
func TestStreamsBothWays(t *testing.T) {
	r := newRig(t)
	r.controller.invoke = func(_ context.Context, req *call.Request, s call.Sink) (*call.Result, error) {
		if err := s.Head(201, []call.Header{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}, {Name: "M", Value: req.HTTP.Method + req.HTTP.URL}}); err != nil {
			return nil, err
		}
		buf := make([]byte, 1000)
		for {
			n, err := req.Stream.Read(buf)
			if n > 0 {
				if err := s.Data(bytes.ToUpper(buf[:n])); err != nil {
					return nil, err
				}
			}
			if err == io.EOF {
				return &call.Result{Streamed: true, Container: "c0"}, nil
			}
			if err != nil {
				return nil, err
			}
		}
	}
	body, feed := io.Pipe()
	req := request()
	req.Via, req.Body, req.Stream = call.ViaHTTP, nil, body
	req.HTTP = &call.HTTPHead{Method: "PUT", URL: "/p?q=1", Headers: []call.Header{{Name: "X", Value: "y"}}}
	var echoed syncBuffer
	out := &streamSink{to: &echoed}
	done := make(chan error, 1)
	go func() { _, err := r.node.Invoke(t.Context(), req, out); done <- err }()
	for i := range 50 { // each piece comes back before the next one goes
		piece := fmt.Sprintf("piece %d;", i)
		if _, err := io.WriteString(feed, piece); err != nil {
			t.Fatal(err)
		}
		echoed.wait(t, strings.ToUpper(piece))
	}
	feed.Close()
	if err := <-done; err != nil || out.status != 201 || len(out.headers) != 3 || out.headers[2].Value != "PUT/p?q=1" {
		t.Errorf("%v, %d %v", err, out.status, out.headers)
	}

	// A body that breaks off does not look like one that ended.
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		_, err := io.ReadAll(req.Stream)
		return nil, errs.New(errs.Cancelled, "read: %v", err)
	}
	broken, feed := io.Pipe()
	req.Stream = broken
	go func() { io.WriteString(feed, "half"); feed.CloseWithError(errors.New("gone")) }()
	if _, err := r.node.Invoke(t.Context(), req, &sink{}); !errs.Is(err, errs.Cancelled) || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("half a body: %v", err)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) wait(t *testing.T, suffix string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		b.mu.Lock()
		ok := strings.HasSuffix(b.b.String(), suffix)
		b.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q did not come", suffix)
		}
	}
}

type streamSink struct {
	sink
	to *syncBuffer
}

func (s *streamSink) Data(p []byte) error {
	s.to.mu.Lock()
	defer s.to.mu.Unlock()
	s.to.b.Write(p)
	return nil
}

func TestFailuresTravelWhole(t *testing.T) {
	r := newRig(t)
	for _, kind := range errs.Kinds() {
		sent := &errs.Error{Kind: kind, Message: "what to do", Started: errs.StartedMaybe, Fault: errs.FaultPlatform, Cause: "why",
			RetryAfter: 3 * time.Second, Op: "op", Err: errors.New("inside"), Thrown: &errs.Thrown{Name: "N", Message: "M", Stack: "S",
				Code: "C", StatusCode: 418, Denied: true, Line: 1, Column: 2, Excerpt: "X"}}
		r.controller.invoke = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
			return &call.Result{Container: "c0"}, sent
		}
		res, err := r.node.Invoke(t.Context(), request(), &sink{})
		got := errs.From(err)
		if res == nil || res.Container != "c0" || !strings.Contains(got.Err.Error(), "inside") {
			t.Errorf("%s: %+v, %v", kind, res, err)
		}
		a, b := *got, *sent
		a.Op, a.Err, b.Op, b.Err = "", nil, "", nil
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: got %+v, sent %+v", kind, a, b)
		}
	}
}

// Whether a call may have started is never told wrong to the bad side.
func TestLostConnections(t *testing.T) {
	r := newRig(t)
	running := make(chan struct{})
	r.controller.invoke = func(ctx context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
		close(running)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	go func() { <-running; r.server.Stop() }()
	_, err := r.node.Invoke(t.Context(), request(), &sink{})
	if e := errs.From(err); e.Kind != errs.SandboxLost || e.Cause != "controller" || e.WhetherStarted() != errs.StartedMaybe {
		t.Errorf("lost while it ran: %v, started %s", err, e.WhetherStarted())
	}
	_, err = r.node.Invoke(t.Context(), request(), &sink{})
	if e := errs.From(err); e.Kind != errs.SandboxLost || e.WhetherStarted() != errs.StartedNo {
		t.Errorf("nobody there: %v, started %s", err, e.WhetherStarted())
	}
}

func TestEndsOfCalls(t *testing.T) {
	r := newRig(t)
	ended := make(chan error, 1)
	r.controller.invoke = func(ctx context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := r.node.Invoke(ctx, request(), &sink{}); !errs.Is(err, errs.Cancelled) {
		t.Errorf("caller gone: %v", err)
	}
	<-ended // the controller hears of it
	req := request()
	req.Deadline = time.Now().Add(30 * time.Millisecond)
	if _, err := r.node.Invoke(t.Context(), req, &sink{}); !errs.Is(err, errs.Timeout) {
		t.Errorf("a controller that does not answer: %v", err)
	}
	<-ended
	r.controller.invoke = func(_ context.Context, _ *call.Request, s call.Sink) (*call.Result, error) {
		return nil, s.Head(200, nil)
	}
	if _, err := r.node.Invoke(t.Context(), request(), &sink{fail: errors.New("gone")}); !errs.Is(err, errs.Cancelled) {
		t.Errorf("a sink that fails: %v", err)
	}
}

// A controller that is behind waits for what the router knows already.
func TestWaitsForTenantsItHasNotHeardOf(t *testing.T) {
	r := newRig(t)
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		return &call.Result{Value: fmt.Appendf(nil, "%d", req.AtMost)}, nil
	}
	r.node.TenantRevision = func(*call.Request) int64 { return 5 }
	time.AfterFunc(20*time.Millisecond, func() { r.catalogue.revision.Store(5) })
	req := request()
	req.Tenant = "late"
	res, err := r.node.InvokeAtMost(t.Context(), req, &sink{}, 2)
	if err != nil || string(res.Value) != "2" {
		t.Errorf("%+v, %v", res, err)
	}
	req.Tenant = "nobody"
	if _, err := r.node.Invoke(t.Context(), req, &sink{}); !errs.Is(err, errs.NotFound) {
		t.Errorf("nobody: %v", err)
	}
	r.node.TenantRevision = func(*call.Request) int64 { return 6 }
	req.Deadline = time.Now().Add(50 * time.Millisecond)
	if _, err := r.node.Invoke(t.Context(), req, &sink{}); !errs.Is(err, errs.NoCapacity) || errs.From(err).WhetherStarted() != errs.StartedNo {
		t.Errorf("never heard of: %v", err)
	}
}

func TestProbeAndRemove(t *testing.T) {
	r := newRig(t)
	p, err := r.node.Client().Probe(t.Context(), &pb.ProbeRequest{})
	if err != nil || p.GetController() != "c1" || p.GetInstance() != "i1" || !p.GetReady() || p.GetInFlight() != 7 || p.GetRevision() != 1 {
		t.Errorf("%v, %v", p, err)
	}
	res, err := r.node.Client().RemoveTenant(t.Context(), &pb.RemoveTenantRequest{Tenant: "acme"})
	if err != nil || res.GetContainers() != 3 {
		t.Errorf("%v, %v", res, err)
	}
	if _, err := r.node.Client().RemoveTenant(t.Context(), &pb.RemoveTenantRequest{Tenant: "../x"}); err == nil {
		t.Error("a bad name was taken")
	}
}

// BenchmarkInvoke is what a hop between machines adds to a call, in the clear.
func BenchmarkInvoke(b *testing.B) {
	r := newRig(b)
	r.controller.invoke = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		return &call.Result{Value: []byte("1")}, nil
	}
	for b.Loop() {
		if _, err := r.node.Invoke(context.Background(), request(), &sink{}); err != nil {
			b.Fatal(err)
		}
	}
}
