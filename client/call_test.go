package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// echo answers with the input.
func echo(_ int, r *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	return &pb.InvokeResponse{CallId: "c1", Output: r.GetInput()}, nil
}

func TestWhoAsks(t *testing.T) {
	s := &service{unary: echo}
	c := serve(t, s)
	if out, err := c.Invoke(t.Context(), "f@2", []byte("1")); err != nil || string(out) != "1" {
		t.Fatalf("%s %v", out, err)
	}
	md := s.heads[0]
	if md.Get("authorization")[0] != "Bearer k" || md.Get("paddock-tenant")[0] != "acme" ||
		!strings.HasPrefix(md.Get("user-agent")[0], "test/1 "+userAgent) {
		t.Errorf("%v", md)
	}
}

func TestOnlyWhatHasNotStartedIsRepeated(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		times int
	}{
		{"limited", failure(codes.ResourceExhausted, Limited, StartedNo, time.Millisecond), 3},
		{"no capacity, no time stated", failure(codes.Unavailable, NoCapacity, StartedNo, 0), 3},
		{"may have started", failure(codes.Unavailable, NoCapacity, StartedMaybe, 0), 1},
		{"of another kind", failure(codes.NotFound, NotFound, StartedNo, 0), 1},
		{"a longer wait than the policy's", failure(codes.ResourceExhausted, Limited, StartedNo, time.Hour), 1},
		{"lost on the way", status.Error(codes.Unavailable, "error reading from server: EOF"), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &service{unary: func(int, *pb.InvokeRequest) (*pb.InvokeResponse, error) { return nil, c.err }}
			_, err := serve(t, s).Invoke(t.Context(), "f", nil)
			if n := s.counted(&s.calls); n != c.times || err == nil {
				t.Errorf("%d times, %v; want %d", n, err, c.times)
			}
		})
	}
}

func TestRepeatedUntilItSucceeds(t *testing.T) {
	s := &service{unary: func(n int, r *pb.InvokeRequest) (*pb.InvokeResponse, error) {
		if n < 3 {
			return nil, failure(codes.ResourceExhausted, Limited, StartedNo, time.Millisecond)
		}
		return echo(n, r)
	}}
	if out, err := serve(t, s).Invoke(t.Context(), "f", []byte("1")); err != nil || string(out) != "1" {
		t.Errorf("%s %v", out, err)
	}
}

func TestNothingIsRepeatedWhenMostFails(t *testing.T) {
	s := &service{unary: func(int, *pb.InvokeRequest) (*pb.InvokeResponse, error) {
		return nil, failure(codes.Unavailable, NoCapacity, StartedNo, 0)
	}}
	c := serve(t, s)
	const calls = 100
	for range calls {
		if _, err := c.Invoke(t.Context(), "f", nil); KindOf(err) != NoCapacity {
			t.Fatal(err)
		}
	}
	if n := s.counted(&s.calls); n > calls+budgetTokens {
		t.Errorf("%d calls were sent %d times", calls, n)
	}
}

// What never left this machine has not started, whatever it was.
func TestServiceThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := clientOf(t, l.Addr().String())
	for name, call := range map[string]func() error{
		"unary": func() error { _, err := c.Invoke(t.Context(), "f", nil); return err },
		"stream": func() error {
			s := c.Stream()
			defer s.Close()
			_, err := s.Do(t.Context(), Call{Function: "f"})
			return err
		},
		"web": func() error {
			w := c.Web("f")
			req, err := w.Request(t.Context(), "POST", "/", strings.NewReader("x"), WebOptions{})
			if err != nil {
				return err
			}
			_, err = w.Do(req)
			return err
		},
		"management": func() error { _, err := c.Functions().Get(t.Context(), "f"); return err },
	} {
		var e *Error
		if err := call(); !errors.As(err, &e) || e.Kind != NoCapacity || e.Started != StartedNo {
			t.Errorf("%s: %+v", name, err)
		}
	}
}

func TestWhatTheCodeThrew(t *testing.T) {
	s := &service{unary: func(int, *pb.InvokeRequest) (*pb.InvokeResponse, error) {
		return &pb.InvokeResponse{CallId: "c7", Logs: []*pb.LogLine{{Text: "hm"}}, Error: &pb.CallError{Kind: "user_error", Started: "yes",
			Fault: "tenant", Thrown: &pb.Thrown{Name: "TypeError", Message: "x"}}}, nil
	}}
	var lines []string
	res, err := serve(t, s).Do(t.Context(), Call{Function: "f", OnLog: func(l *LogLine) { lines = append(lines, l.GetText()) }})
	var e *Error
	if !errors.As(err, &e) || e.Kind != UserError || e.Started != StartedYes || e.CallID != "c7" || e.Fault != "tenant" {
		t.Fatalf("%+v", err)
	}
	if got := err.Error(); got != "paddock: user_error: TypeError: x (call c7)" {
		t.Error(got)
	}
	if res.GetCallId() != "c7" || len(lines) != 1 || lines[0] != "hm" {
		t.Errorf("%v %q", res, lines)
	}
}

func TestGivenUp(t *testing.T) {
	came, leave := make(chan struct{}), make(chan struct{})
	s := &service{unary: func(int, *pb.InvokeRequest) (*pb.InvokeResponse, error) {
		close(came)
		<-leave
		return &pb.InvokeResponse{}, nil
	}}
	c := serve(t, s)
	defer close(leave)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	_, err := c.Invoke(ctx, "f", nil)
	var e *Error
	if !errors.As(err, &e) || e.Kind != Cancelled || e.Started != StartedMaybe || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v", err)
	}
	done, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := c.Invoke(done, "f", nil); KindOf(err) != Timeout || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) ||
		e.Started != StartedNo {
		t.Errorf("%+v", err)
	}
}

func TestCallsThatAreNotSent(t *testing.T) {
	c := serve(t, &service{})
	for _, call := range []Call{{}, {Function: "f", Pipeline: "p"}, {Source: &Source{}, Draft: &Draft{}}} {
		if _, err := c.Do(t.Context(), call); KindOf(err) != Invalid {
			t.Errorf("%+v: %v", call, err)
		}
	}
}

func TestTyped(t *testing.T) {
	c := serve(t, &service{unary: echo})
	type point struct{ X, Y int }
	if out, err := Func[point, point](c, "f")(t.Context(), point{1, 2}); err != nil || out != (point{1, 2}) {
		t.Errorf("%v %v", out, err)
	}
	var e *Error
	if _, err := Func[point, int](c, "f")(t.Context(), point{}); !errors.As(err, &e) || e.Kind != Invalid || e.Started != StartedYes {
		t.Errorf("a value of another type: %v", err)
	}
	if _, err := PipelineFunc[any, int](c, "p")(t.Context(), func() {}); !errors.As(err, &e) || e.Kind != Invalid || e.Started != StartedNo {
		t.Errorf("an input that is no JSON: %v", err)
	}
}

func TestKindsAreTheServices(t *testing.T) {
	known := map[Kind]bool{}
	for _, k := range []Kind{UserError, Refused, LoadError, Timeout, OutOfMemory, OutputTooLarge, SandboxLost, Limited, NoCapacity,
		NotFound, Invalid, Conflict, Unauthenticated, Denied, Cancelled, Internal} {
		known[k] = true
	}
	for _, k := range errs.Kinds() {
		if !known[Kind(k)] {
			t.Errorf("%s has no name here", k)
		}
		delete(known, Kind(k))
	}
	if len(known) > 0 {
		t.Errorf("the service has no %v", known)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ address, want, err string }{
		{address: "h:1", want: "h:1"},
		{address: "http://h", want: "h:80"},
		{address: "https://h/", want: "h:443"},
		{address: "https://[::1]:8443", want: "[::1]:8443"},
		{address: "", err: "Address is empty"},
		{address: "h", err: "missing port"},
		{address: "ftp://h", err: "http or https"},
		{address: "http://h/path", err: "more than scheme"},
		{address: "http://user:secret@h", err: "more than scheme"},
	} {
		o, err := Options{Address: c.address, Key: "k"}.complete()
		switch {
		case c.err == "" && (err != nil || o.Address != c.want || strings.HasPrefix(c.address, "https:") != (o.TLS != nil)):
			t.Errorf("%q: %q %v", c.address, o.Address, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%q: %v", c.address, err)
		}
	}
	if _, err := New(Options{Address: "h:1", Key: "k\n"}); err == nil || strings.Contains(err.Error(), "k\n") {
		t.Errorf("%v", err)
	}
}

// Services that are called on the connection itself say statuses; ErrorOf reads them as the client's own calls are read.
func TestErrorOfTheConnection(t *testing.T) {
	c := serve(t, &service{unary: func(int, *pb.InvokeRequest) (*pb.InvokeResponse, error) {
		return nil, failure(codes.ResourceExhausted, Limited, StartedNo, time.Second)
	}})
	_, err := pb.NewSandboxClient(c.Conn()).Invoke(t.Context(), &pb.InvokeRequest{})
	var e *Error
	if err = ErrorOf(err); !errors.As(err, &e) || e.Kind != Limited || e.Started != StartedNo || e.RetryAfter != time.Second || e.CallID != "c1" {
		t.Errorf("%#v", err)
	}
	if again := ErrorOf(fmt.Errorf("again: %w", err)); again != error(e) {
		t.Errorf("%v", again)
	}
	if err := ErrorOf(nil); err != nil {
		t.Errorf("%v", err)
	}
}
