package client

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "paddock/proto/paddock/v1"
)

type sandbox struct {
	pb.UnimplementedSandboxServer
	calls   int
	started string
}

func (s *sandbox) Invoke(ctx context.Context, r *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	s.calls++
	md, _ := metadata.FromIncomingContext(ctx)
	if md.Get("authorization")[0] != "Bearer k" || md.Get("paddock-tenant")[0] != "acme" {
		return nil, status.Error(codes.Unauthenticated, "who?")
	}
	if r.GetFunction() == "throws" {
		return &pb.InvokeResponse{Error: &pb.CallError{Kind: "user_error", Started: "yes", Thrown: &pb.Thrown{Name: "TypeError", Message: "x"}}}, nil
	}
	if s.calls < 3 {
		st, _ := status.New(codes.ResourceExhausted, "later").WithDetails(
			&errdetails.ErrorInfo{Reason: "limited", Metadata: map[string]string{"started": s.started}},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)})
		return nil, st.Err()
	}
	return &pb.InvokeResponse{Output: r.GetInput()}, nil
}

func TestClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, srv := &sandbox{started: "no"}, grpc.NewServer()
	pb.RegisterSandboxServer(srv, s)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	c, err := New(Options{Address: l.Addr().String(), Key: "k", Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if out, err := c.Invoke(t.Context(), "f", []byte("1")); err != nil || string(out) != "1" || s.calls != 3 {
		t.Errorf("%s %v after %d calls", out, err, s.calls)
	}
	s.calls, s.started = 0, "maybe"
	var e *Error
	if _, err := c.Invoke(t.Context(), "f", nil); !errors.As(err, &e) || e.Kind != "limited" || s.calls != 1 {
		t.Errorf("what may have started was repeated: %v, %d calls", err, s.calls)
	}
	if _, err := c.Invoke(t.Context(), "throws", nil); !errors.As(err, &e) || e.Kind != "user_error" || e.Thrown.GetName() != "TypeError" {
		t.Errorf("%v", err)
	}
}
