package fleet

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/nodewire"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
	"paddock/router"
	"paddock/router/remote"
)

// LogSources implements router.LogSources: the controllers that answer, and the names of those that do not.
func (f *Fleet) LogSources() (there []router.LogSource, missing []string) {
	for _, m := range f.members.Load().all {
		if m.usable() {
			there = append(there, logSource{m.id, m.node})
		} else {
			missing = append(missing, m.id)
		}
	}
	return there, missing
}

// logSource is what one controller keeps. It implements router.LogSource.
type logSource struct {
	id   string
	node *remote.Node
}

func (s logSource) client() pb.LogsClient { return pb.NewLogsClient(s.node.Conn()) }

// about is a context of a question about a tenant.
func about(ctx context.Context, t tenant.ID) context.Context {
	return nodewire.Act(identity.With(ctx, identity.Identity{Role: identity.RoleInvoke, Tenant: t}))
}

// Name implements router.LogSource.
func (s logSource) Name() string { return s.id }

// Tail implements router.LogSource.
func (s logSource) Tail(ctx context.Context, t tenant.ID, req *pb.TailRequest, kept func([]*pb.LogLine) error,
	live func(*pb.LogLine) error) error {
	ctx, cancel := context.WithCancel(about(ctx, t))
	defer cancel()
	stream, err := s.client().Tail(ctx, req)
	if err != nil {
		return named(s.id, err)
	}
	var lines []*pb.LogLine
	for first := true; ; {
		l, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && !first:
			return nil
		case err != nil:
			return named(s.id, err)
		case first && l.GetTime() != nil:
			lines = append(lines, l)
			continue
		case first:
			first, err = false, kept(lines)
		default:
			err = live(l)
		}
		if err != nil {
			return err
		}
	}
}

// Calls implements router.LogSource.
func (s logSource) Calls(ctx context.Context, t tenant.ID, req *pb.ListCallsRequest) ([]*pb.CallRecord, error) {
	res, err := s.client().ListCalls(about(ctx, t), req)
	if err != nil {
		return nil, named(s.id, err)
	}
	return res.GetCalls(), nil
}

// Call implements router.LogSource.
func (s logSource) Call(ctx context.Context, t tenant.ID, id string) (*pb.GetCallResponse, error) {
	res, err := s.client().GetCall(about(ctx, t), &pb.GetCallRequest{Id: id})
	if status.Code(err) == codes.NotFound || errs.Is(err, errs.NotFound) {
		return nil, errs.New(errs.NotFound, "controller %s keeps no call %.40q", s.id, id)
	}
	if err != nil {
		return nil, named(s.id, err)
	}
	return res, nil
}

var _ router.LogSources = (*Fleet)(nil)
