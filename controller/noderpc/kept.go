package noderpc

import (
	"context"

	"google.golang.org/grpc"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Kept is what a controller keeps of its tenants' calls and lines; *controller.Kept is one.
type Kept interface {
	Tail(ctx context.Context, t tenant.ID, req *pb.TailRequest, kept func([]*pb.LogLine) error, live func(*pb.LogLine) error) error
	Calls(ctx context.Context, t tenant.ID, req *pb.ListCallsRequest) ([]*pb.CallRecord, error)
	Call(ctx context.Context, t tenant.ID, id string) (*pb.GetCallResponse, error)
}

// KeptServer serves what one controller keeps, to routers, which have checked the question. It is paddock.v1.Logs with one
// thing more: a line without a time ends the kept ones.
type KeptServer struct {
	pb.UnimplementedLogsServer
	kept Kept
}

// NewKeptServer makes a KeptServer.
func NewKeptServer(k Kept) *KeptServer { return &KeptServer{kept: k} }

func actsFor(ctx context.Context) (tenant.ID, error) {
	who, ok := identity.From(ctx)
	if !ok || who.Tenant == "" {
		return "", errs.New(errs.Invalid, "a router asked for the lines of no tenant")
	}
	return who.Tenant, nil
}

// Tail implements paddock.v1.Logs.
func (s *KeptServer) Tail(req *pb.TailRequest, stream grpc.ServerStreamingServer[pb.LogLine]) error {
	t, err := actsFor(stream.Context())
	if err != nil {
		return err
	}
	return s.kept.Tail(stream.Context(), t, req, func(lines []*pb.LogLine) error {
		for _, l := range lines {
			if err := stream.Send(l); err != nil {
				return err
			}
		}
		return stream.Send(&pb.LogLine{})
	}, stream.Send)
}

// ListCalls implements paddock.v1.Logs.
func (s *KeptServer) ListCalls(ctx context.Context, req *pb.ListCallsRequest) (*pb.ListCallsResponse, error) {
	t, err := actsFor(ctx)
	if err != nil {
		return nil, err
	}
	calls, err := s.kept.Calls(ctx, t, req)
	return &pb.ListCallsResponse{Calls: calls}, err
}

// GetCall implements paddock.v1.Logs.
func (s *KeptServer) GetCall(ctx context.Context, req *pb.GetCallRequest) (*pb.GetCallResponse, error) {
	t, err := actsFor(ctx)
	if err != nil {
		return nil, err
	}
	return s.kept.Call(ctx, t, req.GetId())
}
