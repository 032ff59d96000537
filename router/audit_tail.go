package router

import (
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/audit"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// Bounds on the records that a tail of the audit log starts with.
const (
	defaultAuditLines = 100
	maxAuditLines     = 10_000
)

// auditServer shows operators the audit log.
type auditServer struct {
	pb.UnimplementedAuditServer
	log *audit.Log
}

// Tail implements paddock.v1.Audit.
func (s *auditServer) Tail(req *pb.TailAuditRequest, stream grpc.ServerStreamingServer[pb.AuditRecord]) error {
	n := int(req.GetLines())
	switch {
	case n < 0:
		return errs.New(errs.Invalid, "lines %d: use 0 (the newest %d) or more", n, defaultAuditLines)
	case n == 0:
		n = defaultAuditLines
	}
	q := audit.Query{Last: min(n, maxAuditLines), Follow: req.GetFollow(), Match: auditFilter(req)}
	return s.log.Tail(stream.Context(), q, func(r *audit.Record) error { return stream.Send(auditRecord(r)) })
}

func auditFilter(req *pb.TailAuditRequest) func(*audit.Record) bool {
	t, action := req.GetTenant(), req.GetAction()
	return func(r *audit.Record) bool {
		return (t == "" || r.Tenant == t) &&
			(action == "" || r.Action == action || strings.HasSuffix(action, ".") && strings.HasPrefix(r.Action, action))
	}
}

func auditRecord(r *audit.Record) *pb.AuditRecord {
	return &pb.AuditRecord{
		Seq: r.Seq, Time: timestamppb.New(r.Time), Key: r.Key, Role: r.Role, Source: r.Source, Tenant: r.Tenant,
		Action: r.Action, Object: r.Object, Decision: r.Decision, Result: r.Result, CallId: r.Call, Detail: r.Detail,
		Dropped: r.Dropped, Prev: r.Prev, Hash: r.Hash,
	}
}

// serveAudit is GET /v1/audit: Audit.Tail as server-sent events; follow is on unless said otherwise.
func serveAudit(x *exchange) error {
	query, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return errs.New(errs.Invalid, "the query string cannot be read: escape its values")
	}
	req := &pb.TailAuditRequest{Follow: true}
	for name, values := range query {
		switch value := values[0]; name {
		case "follow":
			if req.Follow, err = parseFlag(name, value); err != nil {
				return err
			}
		case "lines":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil || n < 0 {
				return errs.New(errs.Invalid, "lines %.40q: use a number from 0", value)
			}
			req.Lines = int32(n)
		case "tenant":
			req.Tenant = value
		case "action":
			req.Action = value
		default:
			return errs.New(errs.Invalid, "there is no query parameter %.40q: use follow, lines, tenant or action", name)
		}
	}
	s := &auditServer{log: x.router.cfg.Audit}
	return serveEvents(x, req, func(out grpc.ServerStreamingServer[pb.AuditRecord]) error { return s.Tail(req, out) })
}

// serveRecycle is POST /v1/pool/recycle: Pools.Recycle with its progress as server-sent events.
func serveRecycle(x *exchange) error {
	req := &pb.RecycleRequest{}
	body, err := x.readBody(managementBytes, "request", x.began.Add(managementTime))
	if err != nil {
		return err
	}
	if err := restUnmarshal.Unmarshal(body, req); err != nil {
		return errs.Wrap(errs.Invalid, "recycle", err, "the body is not a request: send JSON with all, or with tenant or runtime")
	}
	return serveEvents(x, req, func(out grpc.ServerStreamingServer[pb.RecycleProgress]) error {
		return x.router.cfg.Pools.Recycle(req, out)
	})
}
