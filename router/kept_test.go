package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// fakeSources are controllers that come and go.
type fakeSources struct {
	mu      sync.Mutex
	there   []LogSource
	missing []string
}

func (f *fakeSources) LogSources() ([]LogSource, []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.there), slices.Clone(f.missing)
}

func (f *fakeSources) set(there []LogSource, missing ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.there, f.missing = there, missing
}

var errGone = errors.New("the machine is gone")

// gone is a controller that says nothing until it is not waited for any more.
func gone(name string) *fakeSource {
	return &fakeSource{name: name,
		tail: func(ctx context.Context, _ *pb.TailRequest, _ func([]*pb.LogLine) error, _ func(*pb.LogLine) error) error {
			<-ctx.Done()
			return ctx.Err()
		},
		calls: func(ctx context.Context, _ *pb.ListCallsRequest) ([]*pb.CallRecord, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		call: func(ctx context.Context, _ string) (*pb.GetCallResponse, error) { <-ctx.Done(); return nil, ctx.Err() },
	}
}

func callRecord(second int64, id, controller string) *pb.CallRecord {
	return &pb.CallRecord{CallId: id, Time: &timestamppb.Timestamp{Seconds: second}, Controller: controller}
}

func keeps(calls ...*pb.CallRecord) *fakeSource {
	return &fakeSource{name: calls[0].GetController(),
		calls: func(context.Context, *pb.ListCallsRequest) ([]*pb.CallRecord, error) { return calls, nil },
		call: func(_ context.Context, id string) (*pb.GetCallResponse, error) {
			for _, c := range calls {
				if c.GetCallId() == id {
					return &pb.GetCallResponse{Call: c, Input: []byte(c.GetController())}, nil
				}
			}
			return nil, errs.New(errs.NotFound, "no")
		},
	}
}

// asked is a server of kept things over sources, and a context of acme's.
func asked(t *testing.T, sources LogSources) (*keptServer, context.Context) {
	ctx := identity.With(t.Context(), identity.Identity{Role: identity.RoleInvoke, Tenant: "acme"})
	return &keptServer{sources: sources, known: newCatalogue()}, ctx
}

// TestCallsOfAllControllers: those of two are one list, and of a call that moved the last word counts; the controller that is
// gone and the one that does not answer are named.
func TestCallsOfAllControllers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := keeps(callRecord(9, "e", "c1"), callRecord(4, "c", "c1"), callRecord(1, "a", "c1"))
		two := keeps(callRecord(6, "d", "c2"), callRecord(5, "c", "c2"), callRecord(2, "b", "c2"))
		sources := &fakeSources{there: []LogSource{one, gone("c4"), two}, missing: []string{"c3"}}
		s, ctx := asked(t, sources)
		res, err := s.ListCalls(ctx, &pb.ListCallsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range res.GetCalls() {
			got = append(got, c.GetCallId()+"@"+c.GetController())
		}
		if s := strings.Join(got, " "); s != "e@c1 d@c2 c@c2 b@c2 a@c1" || strings.Join(res.GetMissing(), " ") != "c3 c4" {
			t.Errorf("%s, missing %v", s, res.GetMissing())
		}
		if res, err := s.ListCalls(ctx, &pb.ListCallsRequest{Limit: 2}); err != nil || len(res.GetCalls()) != 2 {
			t.Errorf("%v %v", res, err)
		}
		if res, err := s.GetCall(ctx, &pb.GetCallRequest{Id: "c"}); err != nil || string(res.GetInput()) != "c2" {
			t.Errorf("%v %v", res, err)
		}
		if _, err := s.GetCall(ctx, &pb.GetCallRequest{Id: "x"}); !errs.Is(err, errs.NoCapacity) || !strings.Contains(err.Error(), "c3, c4") {
			t.Errorf("%v", err)
		}
		sources.set([]LogSource{one, two})
		if _, err := s.GetCall(ctx, &pb.GetCallRequest{Id: "x"}); !errs.Is(err, errs.NotFound) {
			t.Errorf("%v", err)
		}
		for _, bad := range []*pb.ListCallsRequest{{Outcome: "good"}, {Limit: -1}} {
			if _, err := s.ListCalls(ctx, bad); !errs.Is(err, errs.Invalid) {
				t.Errorf("%v: %v", bad, err)
			}
		}
	})
}

// liveSource keeps some lines, then sends what comes by its channel; it breaks off when that is closed.
type liveSource struct {
	fakeSource
	kept  []*pb.LogLine
	lines chan string
}

func newLiveSource(name string, kept ...int64) *liveSource {
	s := &liveSource{fakeSource: fakeSource{name: name}, lines: make(chan string)}
	for _, at := range kept {
		s.kept = append(s.kept, &pb.LogLine{Time: &timestamppb.Timestamp{Seconds: at}, Text: fmt.Sprintf("%s:%d", name, at)})
	}
	s.tail = func(ctx context.Context, req *pb.TailRequest, kept func([]*pb.LogLine) error, live func(*pb.LogLine) error) error {
		if err := kept(s.kept[max(0, len(s.kept)-int(req.GetLines())):]); err != nil {
			return err
		}
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case text, open := <-s.lines:
				if !open {
					return errGone
				}
				if err := live(&pb.LogLine{Text: text}); err != nil {
					return err
				}
			}
		}
	}
	return s
}

// lineSink is where a tail sends to.
type lineSink struct {
	pb.Logs_TailServer
	ctx  context.Context
	came chan string
}

func (s *lineSink) Context() context.Context { return s.ctx }
func (s *lineSink) Send(l *pb.LogLine) error {
	text := l.GetText()
	if l.GetMissing() != "" {
		text = "missing " + l.GetMissing()
	}
	s.came <- text
	return nil
}

// TestTailOfAllControllers: kept lines by time, then live ones as they come. A controller that is lost is named once, the other
// goes on, and what comes back goes on as well.
func TestTailOfAllControllers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, late := newLiveSource("c1", 1, 4, 5), newLiveSource("c2", 2, 3, 6), newLiveSource("c3", 9)
		sources := &fakeSources{there: []LogSource{one, two, gone("c4")}}
		s, ctx := asked(t, sources)
		ctx, cancel := context.WithCancel(ctx)
		sink := &lineSink{ctx: ctx, came: make(chan string, 100)}
		ended := make(chan error, 1)
		go func() { ended <- s.Tail(&pb.TailRequest{Follow: true, Lines: 5}, headless{sink}) }()
		expect := func(want ...string) {
			t.Helper()
			for _, w := range want {
				if got := <-sink.came; got != w {
					t.Fatalf("came %q, want %q", got, w)
				}
			}
		}
		expect("missing c4", "c2:2", "c2:3", "c1:4", "c1:5", "c2:6")
		one.lines <- "x"
		expect("x")
		two.lines <- "y"
		expect("y")
		sources.set([]LogSource{one, gone("c2")}, "c4")
		close(two.lines)
		expect("missing c2")
		time.Sleep(5 * rejoinEvery) // it is asked again, and not named again
		one.lines <- "z"
		expect("z")
		sources.set([]LogSource{one, late}, "c4", "c5")
		expect("missing c5")
		late.lines <- "new"
		expect("new")
		close(late.lines)
		expect("missing c3")
		back := newLiveSource("c3", 6)
		sources.set([]LogSource{one, back}, "c4", "c5")
		back.lines <- "again"
		expect("again")
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%v", err)
		}
		select {
		case more := <-sink.came:
			t.Errorf("and %q", more)
		default:
		}
	})
}

// headless is a stream whose head is of no interest.
type headless struct{ *lineSink }

func (headless) SendHeader(metadata.MD) error { return nil }

// TestTailEndsWithItsSources: a tail of a tenant that is deleted ends.
func TestTailEndsWithItsSources(t *testing.T) {
	s, ctx := asked(t, OneLogSource(&fakeSource{name: "c1"}))
	if err := s.Tail(&pb.TailRequest{Follow: true}, headless{&lineSink{ctx: ctx}}); err != nil {
		t.Errorf("%v", err)
	}
	for _, bad := range []*pb.TailRequest{{Level: "loud"}, {Lines: -1}} {
		if err := s.Tail(bad, headless{&lineSink{ctx: ctx}}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	nobody := identity.With(t.Context(), identity.Identity{Role: identity.RoleOperator})
	if err := s.Tail(&pb.TailRequest{}, headless{&lineSink{ctx: nobody}}); !errs.Is(err, errs.Invalid) {
		t.Errorf("an operator who names no tenant: %v", err)
	}
}

// TestCallsOverHTTP: what REST shows of calls, and that inputs need the deploy role.
func TestCallsOverHTTP(t *testing.T) {
	g := newRig(t, nil)
	g.source.calls = func(_ context.Context, r *pb.ListCallsRequest) ([]*pb.CallRecord, error) {
		return []*pb.CallRecord{{CallId: "c", Outcome: r.GetOutcome(), Function: r.GetFunction()}}, nil
	}
	g.source.call = func(_ context.Context, id string) (*pb.GetCallResponse, error) {
		return &pb.GetCallResponse{Call: callRecord(1, id, "c1"), Input: []byte(`{"a":1}`)}, nil
	}
	a := g.do("GET", "/v1/calls?outcome=failed&function=rule&limit=3", "")
	if a.status != 200 || !strings.Contains(a.body, `"outcome":"failed"`) || !strings.Contains(a.body, `"function":"rule"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a = g.do("GET", "/v1/calls?outcome=good", ""); a.status != 400 || !strings.Contains(a.problem.Detail, "out_of_memory") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a = g.do("GET", "/v1/calls/c", ""); a.status != 403 {
		t.Errorf("an input for the invoke role: %d %s", a.status, a.body)
	}
	if a = g.do("GET", "/v1/calls/c", "", "Authorization: "+bearerOf("acme-deploy")); a.status != 200 || !strings.Contains(a.body, "eyJhIjoxfQ==") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
