package controller

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/controller/logs"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// Bounds on the kept lines that a tail starts with.
const (
	defaultTailLines = 100
	maxTailLines     = 10_000
)

// LogsServer shows tenants what their code wrote.
type LogsServer struct {
	pb.UnimplementedLogsServer
	c *Controller
}

// LogTails returns the server of the Logs API.
func (c *Controller) LogTails() *LogsServer { return &LogsServer{c: c} }

// Tail sends kept lines of the credential's tenant, then, with follow, live ones until the caller goes away or the tenant
// is deleted.
func (s *LogsServer) Tail(req *pb.TailRequest, stream grpc.ServerStreamingServer[pb.LogLine]) error {
	who, ok := identity.From(stream.Context())
	if !ok || who.Tenant == "" {
		return errs.New(errs.Invalid, "name the tenant whose logs you want: --tenant, or Paddock-Tenant")
	}
	if _, ok := s.c.cfg.Catalogue.Tenant(who.Tenant); !ok {
		return errs.New(errs.NotFound, "there is no tenant %s", who.Tenant)
	}
	level, ok := logs.ParseLevel(req.GetLevel())
	if !ok {
		return errs.New(errs.Invalid, "level %.20q: use debug, info, warn or error", req.GetLevel())
	}
	n := int(req.GetLines())
	switch {
	case n < 0:
		return errs.New(errs.Invalid, "lines %d: use 0 (the newest %d) or more", n, defaultTailLines)
	case n == 0:
		n = defaultTailLines
	}
	filter := logs.Filter{Function: req.GetFunction(), Call: call.ID(req.GetCallId()), Level: level}
	if !req.GetFollow() {
		return send(stream, s.c.logs.Kept(who.Tenant, filter, min(n, maxTailLines)))
	}
	kept, live := s.c.logs.Subscribe(who.Tenant, filter, min(n, maxTailLines))
	defer live.Close()
	if err := send(stream, kept); err != nil {
		return err
	}
	return follow(stream, live)
}

func send(stream grpc.ServerStreamingServer[pb.LogLine], lines []call.LogLine) error {
	for _, l := range lines {
		if err := stream.Send(logLine(l)); err != nil {
			return err
		}
	}
	return nil
}

func follow(stream grpc.ServerStreamingServer[pb.LogLine], live *logs.Subscription) error {
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case l, open := <-live.Lines():
			if !open {
				return nil
			}
			if err := stream.Send(logLine(l)); err != nil {
				return err
			}
		}
	}
}

func logLine(l call.LogLine) *pb.LogLine {
	return &pb.LogLine{
		Time: timestamppb.New(l.Time), Level: l.Level, Text: l.Text, CallId: string(l.Call), Function: l.Function,
		ContainerId: string(l.Container), Dropped: l.Dropped,
	}
}
