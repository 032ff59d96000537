package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// small is a call that is one message: the controller has its code.
func (r *rig) small(t *testing.T) {
	t.Helper()
	if _, err := r.node.Invoke(t.Context(), request(), &sink{}); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) idle() int {
	r.node.idle.mu.Lock()
	defer r.node.idle.mu.Unlock()
	return len(r.node.idle.all)
}

// answering is a rig whose controller answers with the body, and has the code.
func answering(t *testing.T) *rig {
	r := newRig(t)
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		return &call.Result{Value: req.Body}, nil
	}
	r.small(t) // asks for the code
	r.streams.Store(0)
	return r
}

func TestOneStreamCarriesCallAfterCall(t *testing.T) {
	r := answering(t)
	for i := range 100 {
		req := request()
		req.Body = fmt.Appendf(nil, "%d", i)
		res, err := r.node.Invoke(t.Context(), req, &sink{})
		if err != nil || string(res.Value) != string(req.Body) {
			t.Fatalf("call %d: %+v, %v", i, res, err)
		}
	}
	if n := r.streams.Load(); n != 1 || r.idle() != 1 {
		t.Errorf("%d streams for 100 calls, %d idle", n, r.idle())
	}
	r.node.idle.endSince(time.Now())
	testenv.Await(t, "the stream's end at the controller", func() bool { return r.open.Load() == 0 })
}

// A failure is an answer as well.
func TestFailuresEndNoStream(t *testing.T) {
	r := answering(t)
	r.controller.invoke = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		return nil, errs.New(errs.NoCapacity, "full")
	}
	for range 3 {
		if _, err := r.node.Invoke(t.Context(), request(), &sink{}); !errs.Is(err, errs.NoCapacity) {
			t.Fatal(err)
		}
	}
	if n := r.streams.Load(); n != 1 {
		t.Errorf("%d streams", n)
	}
}

// Calls at the same time have a stream each, and no more are kept than are worth keeping.
func TestCallsAtTheSameTime(t *testing.T) {
	r := answering(t)
	const calls = mostIdle + 8
	var in sync.WaitGroup
	in.Add(calls)
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		in.Done()
		in.Wait() // all are there
		return &call.Result{Value: req.Body}, nil
	}
	var out sync.WaitGroup
	for i := range calls {
		out.Go(func() {
			req := request()
			req.Body = fmt.Appendf(nil, "%d", i)
			if res, err := r.node.Invoke(t.Context(), req, &sink{}); err != nil || string(res.Value) != string(req.Body) {
				t.Errorf("call %d: %+v, %v", i, res, err)
			}
		})
	}
	out.Wait()
	if r.idle() != mostIdle {
		t.Errorf("%d streams are kept", r.idle())
	}
	testenv.Await(t, "the end of the others", func() bool { return r.open.Load() == mostIdle })
}

// What has not come to its end in good order ends its stream: nothing of it may get into the next call.
func TestStreamsThatAreNotUsedAgain(t *testing.T) {
	long := []byte(strings.Repeat("x", 600<<10))
	for name, one := range map[string]func(t *testing.T, r *rig){
		"cancelled": func(t *testing.T, r *rig) {
			ctx, cancel := context.WithCancel(t.Context())
			r.controller.invoke = func(own context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
				cancel()
				<-own.Done() // although the stream was used before
				return nil, own.Err()
			}
			if _, err := r.node.Invoke(ctx, request(), &sink{}); !errs.Is(err, errs.Cancelled) {
				t.Error(err)
			}
		},
		"out of time": func(t *testing.T, r *rig) {
			ended := make(chan struct{})
			r.controller.invoke = func(own context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
				<-own.Done()
				close(ended)
				return nil, own.Err()
			}
			req := request()
			req.Deadline = time.Now().Add(20 * time.Millisecond)
			if _, err := r.node.Invoke(t.Context(), req, &sink{}); !errs.Is(err, errs.Timeout) {
				t.Error(err)
			}
			<-ended
		},
		"its caller takes nothing": func(t *testing.T, r *rig) {
			r.controller.invoke = func(_ context.Context, _ *call.Request, s call.Sink) (*call.Result, error) {
				return nil, s.Head(200, nil)
			}
			if _, err := r.node.Invoke(t.Context(), request(), &sink{fail: errors.New("gone")}); !errs.Is(err, errs.Cancelled) {
				t.Error(err)
			}
		},
		"a long body": func(t *testing.T, r *rig) {
			req := request()
			req.Body = long
			if res, err := r.node.Invoke(t.Context(), req, &sink{}); err != nil || len(res.Value) != len(long) {
				t.Error(err)
			}
		},
		"a body that nobody reads": func(t *testing.T, r *rig) {
			r.controller.invoke = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { return &call.Result{}, nil }
			body, feed := io.Pipe()
			defer feed.Close()
			req := request()
			req.Via, req.HTTP, req.Body, req.Stream = call.ViaHTTP, &call.HTTPHead{Method: "PUT", URL: "/"}, nil, body
			if _, err := r.node.Invoke(t.Context(), req, &sink{}); err != nil {
				t.Error(err)
			}
		},
		"code that is asked for": func(t *testing.T, r *rig) {
			req := request()
			req.Code = source("other code")
			if _, err := r.node.Invoke(t.Context(), req, &sink{}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := answering(t)
			answer := r.controller.invoke
			r.small(t)
			one(t, r)
			r.controller.invoke = answer
			if r.idle() != 0 {
				t.Error("the stream is kept")
			}
			r.small(t)
			if n := r.streams.Load(); n != 2 {
				t.Errorf("%d streams", n)
			}
		})
	}
}

// What a call's code says behind its answer reaches nobody.
func TestLateWordsReachNoOtherCall(t *testing.T) {
	r := answering(t)
	var before call.Sink
	r.controller.invoke = func(_ context.Context, _ *call.Request, s call.Sink) (*call.Result, error) {
		if before == nil {
			before = s
			return &call.Result{}, nil
		}
		before.Log(call.LogLine{Text: "late"})
		if before.Head(200, nil) == nil || before.Data([]byte("late")) == nil {
			t.Error("the call before can still speak")
		}
		return &call.Result{Value: []byte("own")}, nil
	}
	r.small(t)
	var out sink
	res, err := r.node.Invoke(t.Context(), request(), &out)
	if err != nil || string(res.Value) != "own" || len(out.logs) != 0 || out.status != 0 || r.streams.Load() != 1 {
		t.Errorf("%+v, %v, %+v, %d streams", res, err, &out, r.streams.Load())
	}
}

// A router or a controller of the version before has a stream for each call.
func TestOlderSides(t *testing.T) {
	for _, who := range []string{"router", "controller"} {
		t.Run(who, func(t *testing.T) {
			r := answering(t)
			r.node.idle.endSince(time.Now())
			r.older.Store(who)
			for range 3 {
				r.small(t)
			}
			if n := r.streams.Load(); n != 3 || r.idle() != 0 {
				t.Errorf("%d streams for 3 calls, %d kept", n, r.idle())
			}
			testenv.Await(t, "the streams' end at the controller", func() bool { return r.open.Load() == 0 })
		})
	}
}

// A router that does something else than it has said is refused.
func TestOtherThanACallBehindAnAnswer(t *testing.T) {
	r := answering(t)
	st, err := r.node.Client().Invoke(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{node: r.node, req: request(), sink: &sink{}}
	if err := st.Send(&pb.NodeRequest{Part: &pb.NodeRequest_Call{Call: x.head(r.node, 0)}}); err != nil {
		t.Fatal(err)
	}
	if m, err := st.Recv(); err != nil || !m.GetResult().GetAgain() {
		t.Fatalf("%v, %v", m, err)
	}
	if err := st.Send(&pb.NodeRequest{Part: &pb.NodeRequest_Body{Body: &pb.BodyPart{Last: true}}}); err != nil {
		t.Fatal(err)
	}
	if m, err := st.Recv(); err == nil {
		t.Errorf("answered %v", m)
	}
	testenv.Await(t, "the stream's end at the controller", func() bool { return r.open.Load() == 0 })
}

// A controller that leaves waits for no idle stream, and no call is lost with one.
func TestLeavingControllers(t *testing.T) {
	r := answering(t)
	r.small(t)
	r.served.Leave()
	testenv.Await(t, "the end of the idle stream", func() bool { return r.open.Load() == 0 })
	r.small(t) // on another stream
	if r.streams.Load() != 2 || r.idle() != 0 {
		t.Errorf("%d streams, %d kept", r.streams.Load(), r.idle())
	}
	r.server.GracefulStop()
	_, err := r.node.Invoke(t.Context(), request(), &sink{})
	if e := errs.From(err); e.Kind != errs.SandboxLost || e.WhetherStarted() != errs.StartedNo {
		t.Errorf("nobody there: %v, started %s", err, e.WhetherStarted())
	}
}

// A call that is under way when its controller leaves comes to its end, also if its stream carried others before.
func TestLeavingDuringACall(t *testing.T) {
	r := answering(t)
	r.small(t)
	running, finish := make(chan struct{}), make(chan struct{})
	r.controller.invoke = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		close(running)
		<-finish
		return &call.Result{Value: []byte("whole")}, nil
	}
	done := make(chan error, 1)
	go func() {
		res, err := r.node.Invoke(t.Context(), request(), &sink{})
		if err == nil && string(res.Value) != "whole" {
			err = fmt.Errorf("answer %q", res.Value)
		}
		done <- err
	}()
	<-running
	r.served.Leave()
	close(finish)
	if err := <-done; err != nil || r.streams.Load() != 1 || r.idle() != 0 {
		t.Errorf("%v, %d streams, %d kept", err, r.streams.Load(), r.idle())
	}
	testenv.Await(t, "the stream's end", func() bool { return r.open.Load() == 0 })
}

// Controllers that are replaced under load run every call once if it was answered, and not at all if it is said not to have started.
func TestNoCallIsLostOrRepeatedWhenControllersAreReplaced(t *testing.T) {
	r := answering(t)
	var runs sync.Map // by call
	r.controller.invoke = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		n, _ := runs.LoadOrStore(req.ID, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		return &call.Result{Value: []byte(req.ID)}, nil
	}
	var over atomic.Bool
	var answered, refused atomic.Int64
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			for i := 0; !over.Load(); i++ {
				req := request()
				req.ID = call.ID(fmt.Sprintf("%d-%d", c, i))
				res, err := r.node.Invoke(t.Context(), req, &sink{})
				ran := int64(0)
				if n, ok := runs.Load(req.ID); ok {
					ran = n.(*atomic.Int64).Load()
				}
				switch e := errs.From(err); {
				case err == nil && ran == 1 && string(res.Value) == string(req.ID):
					answered.Add(1)
				case err != nil && ran == 0 && e.WhetherStarted() == errs.StartedNo:
					refused.Add(1) // there is no controller at the moment
				default:
					t.Errorf("call %s ran %d times: %+v, %v", req.ID, ran, res, err)
					return
				}
			}
		})
	}
	for range 5 {
		before := answered.Load()
		testenv.Await(t, "some calls", func() bool { return answered.Load() > before+200 || t.Failed() })
		r.served.Leave()
		r.server.GracefulStop()
		r.start(t)
	}
	over.Store(true)
	callers.Wait()
	t.Logf("%d calls answered, %d not begun, %d streams", answered.Load(), refused.Load(), r.streams.Load())
}

// Streams that ended with their connection cost no call.
func TestStreamsOfALostConnection(t *testing.T) {
	r := answering(t)
	r.small(t)
	idle := r.node.idle.all[0]
	r.server.Stop()
	testenv.Await(t, "the loss to be noticed", func() bool { return r.conn.GetState() != connectivity.Ready })
	if _, err := idle.Recv(); status.Code(err) != codes.Unavailable { // returns when the stream has ended
		t.Errorf("the idle stream: %v", err)
	}
	r.start(t)
	testenv.Await(t, "an answer", func() bool {
		_, err := r.node.Invoke(t.Context(), request(), &sink{})
		if e := errs.From(err); e != nil && e.WhetherStarted() != errs.StartedNo {
			t.Fatal(err)
		}
		return err == nil
	})
}

// A caller that does not take its answer holds nobody else's on the same connection, and its controller no more than a window of it.
func TestSlowReadersHoldNobody(t *testing.T) {
	r := answering(t)
	answer := r.controller.invoke
	var sent atomic.Int64
	piece := make([]byte, 64<<10)
	const pieces = 200
	r.controller.invoke = func(ctx context.Context, req *call.Request, s call.Sink) (*call.Result, error) {
		if string(req.Body) != "much" {
			return answer(ctx, req, s)
		}
		err := s.Head(200, nil)
		for i := 0; i < pieces && err == nil; i++ {
			err = s.Data(piece)
			sent.Add(1)
		}
		return &call.Result{Streamed: true}, err
	}
	slow := &heldSink{held: make(chan struct{}), begun: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		req := request()
		req.Body = []byte("much")
		req.Deadline = time.Now().Add(time.Minute)
		_, err := r.node.Invoke(t.Context(), req, slow)
		done <- err
	}()
	<-slow.begun
	for range 100 {
		r.small(t)
	}
	if n := sent.Load(); n > pieces/2 {
		t.Errorf("%d of %d pieces went to a reader that takes none", n, pieces)
	}
	close(slow.held)
	if err := <-done; err != nil || slow.body.Len() != pieces*len(piece) {
		t.Errorf("%v, %d bytes", err, slow.body.Len())
	}
}

// heldSink takes nothing before it is let.
type heldSink struct {
	sink
	held, begun chan struct{}
	once        sync.Once
}

func (s *heldSink) Data(p []byte) error {
	s.once.Do(func() { close(s.begun) })
	<-s.held
	return s.sink.Data(p)
}
