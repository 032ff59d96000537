package router

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// LogSource is what one controller keeps of its tenants' calls and log lines. A question has been checked when it comes there;
// lines and limit are what they say, 0 is none. Every method ends when ctx does. Safe for concurrent use.
type LogSource interface {
	// Name is the controller's.
	Name() string
	// Tail gives kept the newest lines that match, oldest first and exactly once, then, with follow, live each that comes
	// after them, one at a time. It returns nil when there are no more to come, and what either of the two fails with.
	Tail(ctx context.Context, t tenant.ID, req *pb.TailRequest, kept func([]*pb.LogLine) error, live func(*pb.LogLine) error) error
	// Calls returns the newest calls that match, newest first.
	Calls(ctx context.Context, t tenant.ID, req *pb.ListCallsRequest) ([]*pb.CallRecord, error)
	// Call returns one call, with its input if that is kept; errs.NotFound if the call is not.
	Call(ctx context.Context, t tenant.ID, id string) (*pb.GetCallResponse, error)
}

// LogSources says who keeps calls and lines. Safe for concurrent use.
type LogSources interface {
	// LogSources returns those that can be asked now, and the names of those that cannot and may have something.
	LogSources() (there []LogSource, missing []string)
}

// OneLogSource returns the LogSources of a router that has a single controller.
func OneLogSource(s LogSource) LogSources { return oneLogSource{s} }

type oneLogSource struct{ source LogSource }

// LogSources implements LogSources.
func (o oneLogSource) LogSources() ([]LogSource, []string) { return []LogSource{o.source}, nil }

// sourceTimeout is how long a controller may take to say what it keeps; who takes longer is missing.
const sourceTimeout = 3 * time.Second

// Bounds on what is asked for.
const (
	defaultTailLines = 100
	maxTailLines     = 10_000
	defaultCalls     = 100
	maxCalls         = 1000
)

// keptServer shows tenants what their code wrote and which calls there were, from all controllers together.
type keptServer struct {
	pb.UnimplementedLogsServer
	sources LogSources
	known   Catalogue
}

// tenantOf is whose lines and calls the request is about.
func (s *keptServer) tenantOf(ctx context.Context) (tenant.ID, error) {
	who, ok := identity.From(ctx)
	if !ok || who.Tenant == "" {
		return "", errs.New(errs.Invalid, "name the tenant whose logs you want: --tenant, or Paddock-Tenant")
	}
	if _, ok := s.known.Tenant(who.Tenant); !ok {
		return "", errs.New(errs.NotFound, "there is no tenant %s", who.Tenant)
	}
	return who.Tenant, nil
}

// Tail implements paddock.v1.Logs.
func (s *keptServer) Tail(req *pb.TailRequest, stream pb.Logs_TailServer) error {
	t, err := s.tenantOf(stream.Context())
	if err != nil {
		return err
	}
	switch req.GetLevel() {
	case "", "debug", "info", "warn", "error":
	default:
		return errs.New(errs.Invalid, "level %.20q: use debug, info, warn or error", req.GetLevel())
	}
	n, err := amount("lines", req.GetLines(), defaultTailLines, maxTailLines)
	if err != nil {
		return err
	}
	asked := proto.Clone(req).(*pb.TailRequest)
	asked.Lines = n
	// The caller learns that it is being listened to, if there was no line that told it.
	return newTail(stream.Context(), s.sources, t, asked, stream.Send, func() { _ = stream.SendHeader(nil) }).run()
}

// amount is how much is asked for.
func amount(what string, n, unsaid, most int32) (int32, error) {
	switch {
	case n < 0:
		return 0, errs.New(errs.Invalid, "%s %d: use 0 (the newest %d) or more", what, n, unsaid)
	case n == 0:
		return unsaid, nil
	}
	return min(n, most), nil
}

// ListCalls implements paddock.v1.Logs.
func (s *keptServer) ListCalls(ctx context.Context, req *pb.ListCallsRequest) (*pb.ListCallsResponse, error) {
	t, err := s.tenantOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkOutcome(req.GetOutcome()); err != nil {
		return nil, err
	}
	asked := proto.Clone(req).(*pb.ListCallsRequest)
	if asked.Limit, err = amount("limit", req.GetLimit(), defaultCalls, maxCalls); err != nil {
		return nil, err
	}
	parts, missing := askAll(ctx, s.sources, func(ctx context.Context, from LogSource) ([]*pb.CallRecord, error) {
		return from.Calls(ctx, t, asked)
	})
	return &pb.ListCallsResponse{Calls: mergeCalls(parts, int(asked.Limit)), Missing: missing}, nil
}

// checkOutcome refuses an outcome that no call has.
func checkOutcome(s string) error {
	known := []string{"ok", "failed"}
	for _, k := range errs.Kinds() {
		known = append(known, string(k))
	}
	if s == "" || slices.Contains(known, s) {
		return nil
	}
	slices.Sort(known[2:])
	return errs.New(errs.Invalid, "outcome %.40q: use %s", s, strings.Join(known, ", "))
}

// mergeCalls is the newest n of all, newest first. Of a call that two controllers had, one after the other, the last word counts.
func mergeCalls(parts [][]*pb.CallRecord, n int) []*pb.CallRecord {
	all := slices.Concat(parts...)
	slices.SortStableFunc(all, func(a, b *pb.CallRecord) int { return b.GetTime().AsTime().Compare(a.GetTime().AsTime()) })
	seen := make(map[string]bool, len(all))
	all = slices.DeleteFunc(all, func(c *pb.CallRecord) bool {
		again := seen[c.GetCallId()]
		seen[c.GetCallId()] = true
		return again
	})
	return all[:min(n, len(all))]
}

// GetCall implements paddock.v1.Logs.
func (s *keptServer) GetCall(ctx context.Context, req *pb.GetCallRequest) (*pb.GetCallResponse, error) {
	t, err := s.tenantOf(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetId() == "" {
		return nil, errs.New(errs.Invalid, "name the call: its id is on its answer as Paddock-Call-Id, and in `paddock calls`")
	}
	parts, missing := askAll(ctx, s.sources, func(ctx context.Context, from LogSource) (*pb.GetCallResponse, error) {
		res, err := from.Call(ctx, t, req.GetId())
		if errs.Is(err, errs.NotFound) {
			return nil, nil
		}
		return res, err
	})
	var found *pb.GetCallResponse
	for _, p := range parts {
		if p != nil && (found == nil || p.GetCall().GetTime().AsTime().After(found.GetCall().GetTime().AsTime())) {
			found = p
		}
	}
	switch {
	case found != nil:
		return found, nil
	case len(missing) > 0:
		e := errs.New(errs.NoCapacity, "call %.80q is not kept by any controller that answers; it may be by %s: try again", req.GetId(),
			strings.Join(missing, ", "))
		e.RetryAfter = time.Second
		return nil, e
	}
	return nil, errs.New(errs.NotFound, "call %.80q is not kept: `paddock calls` lists those that are, the oldest go first", req.GetId())
}

// askAll asks every source at the same time. missing are those that did not answer, by name; parts are in the order of sources.
func askAll[T any](ctx context.Context, sources LogSources, ask func(context.Context, LogSource) (T, error)) (parts []T, missing []string) {
	there, missing := sources.LogSources()
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	answers, failed := make([]T, len(there)), make([]bool, len(there))
	var wg sync.WaitGroup
	for i, s := range there {
		wg.Go(func() {
			var err error
			answers[i], err = ask(ctx, s)
			failed[i] = err != nil
		})
	}
	wg.Wait()
	missing = slices.Clone(missing)
	for i, s := range there {
		if failed[i] {
			missing = append(missing, s.Name())
			continue
		}
		parts = append(parts, answers[i])
	}
	slices.Sort(missing)
	return parts, missing
}
