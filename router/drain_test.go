package router

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"paddock/internal/call"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func TestDrainAnnouncesAndFinishes(t *testing.T) {
	g := newRig(t, nil)
	started, release := make(chan struct{}, 8), make(chan struct{})
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		started <- struct{}{}
		<-release
		return okResult([]byte("1")), nil
	}
	s, err := pb.NewSandboxClient(g.conn).InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	idle, err := pb.NewSandboxClient(g.conn).InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&pb.InvokeStreamRequest{Tag: 1, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("1")}})
	<-started
	_ = idle.Send(&pb.InvokeStreamRequest{Tag: 8, Body: &pb.InvokeStreamRequest_Cancel{}})
	httpAnswer := make(chan answerOf, 1)
	go func() { httpAnswer <- g.do("POST", "/v1/functions/echo/invoke", "1") }()
	<-started
	// The idle stream must be known to the drain before it begins.
	eventually(t, func() bool {
		g.router.drain.mu.Lock()
		defer g.router.drain.mu.Unlock()
		return len(g.router.drain.streams) == 2
	})
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		done <- g.router.Shutdown(ctx)
	}()
	for _, st := range []pb.Sandbox_InvokeStreamClient{s, idle} {
		m, err := st.Recv()
		if err != nil || m.GetGoaway() == nil {
			t.Fatalf("%v %v", m, err)
		}
	}
	if _, err := idle.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle stream: %v", err)
	}
	_ = s.Send(&pb.InvokeStreamRequest{Tag: 2, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("1")}})
	m, err := s.Recv()
	if e := m.GetResult().GetError(); err != nil || e.GetKind() != "no_capacity" || e.GetStarted() != "no" {
		t.Fatalf("after goaway: %v %v", m, err)
	}
	close(release)
	if m, err = s.Recv(); err != nil || string(m.GetResult().GetOutput()) != "1" {
		t.Fatalf("in flight: %v %v", m, err)
	}
	if _, err = s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
	if a := <-httpAnswer; a.status != 200 {
		t.Errorf("HTTP in flight: %d %s", a.status, a.body)
	}
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// TestShutdownEndsWhatDoesNotEnd: every call that is cut has one outcome, which nobody may take for "not started".
func TestShutdownEndsWhatDoesNotEnd(t *testing.T) {
	g := newRig(t, nil)
	started := make(chan struct{}, 8)
	g.node.do = func(ctx context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
		started <- struct{}{}
		<-ctx.Done()
		return nil, errs.New(errs.Cancelled, "gone")
	}
	sandbox := pb.NewSandboxClient(g.conn)
	s, err := sandbox.InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&pb.InvokeStreamRequest{Tag: 1, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("1")}})
	unary, plain, streamed := make(chan error, 1), make(chan answerOf, 1), make(chan answerOf, 1)
	go func() {
		_, err := sandbox.Invoke(ctxAs(context.Background(), "acme-invoke"), echoRequest("1"))
		unary <- err
	}()
	go func() { plain <- g.do("POST", "/v1/functions/echo/invoke", "1") }()
	go func() { streamed <- g.do("GET", "/v1/functions/echo/http/", "") }()
	for range 4 {
		<-started
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := g.router.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-unary; status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "may have run") {
		t.Errorf("unary: %v", err)
	}
	for how, answers := range map[string]chan answerOf{"plain": plain, "streamed": streamed} {
		if a := <-answers; a.status != 502 || !strings.Contains(a.body, `"cause":"controller"`) || a.header.Get("Paddock-Started") != "maybe" {
			t.Errorf("%s: %d %v %s", how, a.status, a.header, a.body)
		}
	}
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatalf("no outcome on the stream: %v", err)
		}
		if m.GetGoaway() != nil {
			continue
		}
		if e := m.GetResult().GetError(); e.GetKind() != "sandbox_lost" || e.GetStarted() != "maybe" || e.GetFault() != "platform" {
			t.Errorf("on the stream: %v", m)
		}
		break
	}
	g.idle()
}

// TestShutdownLeavesNobodyBehind: even what does not heed its context does not hold the end up.
func TestShutdownLeavesNobodyBehind(t *testing.T) {
	g := newRig(t, nil)
	started, release := make(chan struct{}), make(chan struct{})
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		close(started)
		<-release
		return nil, errs.New(errs.Cancelled, "gone")
	}
	go func() {
		_, _ = pb.NewSandboxClient(g.conn).Invoke(ctxAs(context.Background(), "acme-invoke"), echoRequest("1"))
	}()
	<-started
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.router.Shutdown(ctx); err == nil {
		t.Error("no error for a call that was cut")
	}
	close(release)
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.router.downErr = nil // the rig shuts down again and asks
}

func TestBrokenStreamCancelsItsCalls(t *testing.T) {
	g := newRig(t, nil)
	started := make(chan struct{}, 8)
	g.node.do = func(ctx context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
		started <- struct{}{}
		<-ctx.Done()
		return nil, errs.New(errs.Cancelled, "gone")
	}
	ctx, cancel := context.WithCancel(ctxAs(t.Context(), "acme-invoke"))
	s, err := pb.NewSandboxClient(g.conn).InvokeStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for tag := range uint64(3) {
		_ = s.Send(&pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("1")}})
		<-started
	}
	cancel()
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

func TestGRPCOnTheHTTPListener(t *testing.T) {
	g := newRig(t, nil)
	conn, err := grpc.NewClient(strings.TrimPrefix(g.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewSandboxClient(conn)
	if _, err := client.Invoke(t.Context(), echoRequest("1")); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a key: %v", err)
	}
	res, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1"))
	if err != nil || string(res.Output) != "1" {
		t.Errorf("%v %v", res, err)
	}
	s, err := client.InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&pb.InvokeStreamRequest{Tag: 1, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("2")}})
	if m, err := s.Recv(); err != nil || string(m.GetResult().GetOutput()) != "2" {
		t.Errorf("%v %v", m, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := g.router.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if m, err := s.Recv(); err != nil || m.GetGoaway() == nil {
		t.Errorf("%v %v", m, err)
	}
	g.idle()
}
