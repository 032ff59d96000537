package client

import (
	"context"
	"net"
	"sync"
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

// service is a service whose answers a test decides. It counts what reaches it.
type service struct {
	pb.UnimplementedSandboxServer
	pb.UnimplementedCatalogServer
	pb.UnimplementedKeysServer
	pb.UnimplementedLogsServer

	unary  func(n int, r *pb.InvokeRequest) (*pb.InvokeResponse, error) // n is 1 for the first call
	stream func(n int, ss pb.Sandbox_InvokeStreamServer) error

	mu      sync.Mutex
	calls   int
	streams int
	heads   []metadata.MD
}

// count notes a request and returns its number.
func (s *service) count(ctx context.Context, of *int) int {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heads = append(s.heads, md)
	*of++
	return *of
}

func (s *service) counted(of *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *of
}

func (s *service) Invoke(ctx context.Context, r *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	return s.unary(s.count(ctx, &s.calls), r)
}

func (s *service) InvokeStream(ss pb.Sandbox_InvokeStreamServer) error {
	return s.stream(s.count(ss.Context(), &s.streams), ss)
}

// serve serves a service and returns a client of it that hardly waits.
func serve(t *testing.T, s *service) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pb.RegisterSandboxServer(srv, s)
	pb.RegisterCatalogServer(srv, s)
	pb.RegisterKeysServer(srv, s)
	pb.RegisterLogsServer(srv, s)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return clientOf(t, l.Addr().String())
}

func clientOf(t *testing.T, address string) *Client {
	t.Helper()
	c, err := New(Options{Address: address, Key: "k", Tenant: "acme", UserAgent: "test/1",
		Retry: RetryPolicy{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// failure is a status as the service makes them.
func failure(code codes.Code, kind Kind, started Started, after time.Duration) error {
	st, err := status.New(code, "said so").WithDetails(
		&errdetails.ErrorInfo{Reason: string(kind), Metadata: map[string]string{"started": string(started), "fault": "caller", "call_id": "c1"}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		return err
	}
	return st.Err()
}

// answer answers a message of a stream with its own input.
func answer(ss pb.Sandbox_InvokeStreamServer, m *pb.InvokeStreamRequest) error {
	return ss.Send(&pb.InvokeStreamResponse{Tag: m.GetTag(), Body: &pb.InvokeStreamResponse_Result{
		Result: &pb.InvokeResponse{CallId: "c", Output: m.GetCall().GetInput()}}})
}
