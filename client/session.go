package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

// session is one gRPC stream of a Stream, from its opening to its end. run owns it; one goroutine more receives.
type session struct {
	ctx    context.Context
	cancel context.CancelFunc
	conn   grpc.ClientConnInterface
	out    chan *outgoing // to run, which alone sends
	over   chan struct{}  // closed when nothing more is sent or received

	mu    sync.Mutex
	calls map[uint64]*inflight // by tag
	last  uint64               // tag
	away  bool                 // no later call is served on it
	err   *Error               // why it is over, for what was in flight and had been sent
}

// inflight is a call of a session. Whoever takes it out of session.calls answers it.
type inflight struct {
	onLog func(*LogLine)
	sent  atomic.Bool  // it may have left
	done  chan *Result // buffered; one answer
}

// outgoing is a message that waits to be sent. of is the call, nil of a cancel.
type outgoing struct {
	msg *pb.InvokeStreamRequest
	of  *inflight
}

func newSession(ctx context.Context, conn grpc.ClientConnInterface) *session {
	ctx, cancel := context.WithCancel(ctx)
	return &session{ctx: ctx, cancel: cancel, conn: conn, out: make(chan *outgoing), over: make(chan struct{}),
		calls: map[uint64]*inflight{}}
}

// takes says whether calls may be begun on it.
func (s *session) takes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.away
}

// run opens the gRPC stream, sends what comes and returns when the session is over and its receiver gone.
func (s *session) run() {
	defer s.cancel()
	ctx, gone := withDeparture(s.ctx)
	stream, err := pb.NewSandboxClient(s.conn).InvokeStream(ctx)
	if err != nil {
		s.end(errorOfStatus(err, gone.left.Load()))
		return
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		s.end(s.receive(stream))
	}()
	defer func() { <-received }()
	for {
		select {
		case o := <-s.out:
			if o.of != nil {
				o.of.sent.Store(true)
			}
			if stream.Send(o.msg) != nil {
				return // the receiver hears why
			}
		case <-s.over:
			return
		}
	}
}

// receive hands out answers until the stream ends, and returns what that means for calls that have none.
func (s *session) receive(stream pb.Sandbox_InvokeStreamClient) *Error {
	for heard := false; ; heard = true {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF): // the service ends a stream well only when it has answered all that it took
			return &Error{Kind: NoCapacity, Message: "the service ended the stream before the call began", Started: StartedNo,
				Fault: "platform", Err: err}
		case err != nil:
			e := errorOfStatus(err, true)
			if heard { // its word is about the stream, not about what is in flight
				e.Started = StartedMaybe
			}
			return e
		}
		switch body := m.GetBody().(type) {
		case *pb.InvokeStreamResponse_Log:
			if c := s.call(m.GetTag()); c != nil && c.onLog != nil {
				c.onLog(body.Log)
			}
		case *pb.InvokeStreamResponse_Result:
			if c := s.take(m.GetTag()); c != nil {
				c.done <- body.Result
			}
		case *pb.InvokeStreamResponse_Goaway:
			s.leave()
		}
	}
}

// leave lets no later call begin here. The service answers what is in flight and ends the stream.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = true
}

// end notes why the session is over and wakes everybody who waits for it.
func (s *session) end(why *Error) {
	s.mu.Lock()
	s.away, s.err = true, why
	s.mu.Unlock()
	close(s.over)
}

// call is the call of a tag, nil if it is not in flight any more.
func (s *session) call(tag uint64) *inflight {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[tag]
}

// take takes the call of a tag out; nil if somebody else has.
func (s *session) take(tag uint64) *inflight {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[tag]
	delete(s.calls, tag)
	return c
}

// begin notes a call; false if the session takes none any more.
func (s *session) begin(c *inflight) (tag uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return 0, false
	}
	s.last++
	s.calls[s.last] = c
	return s.last, true
}

// do runs one call.
func (s *session) do(ctx context.Context, m *pb.InvokeRequest, onLog func(*LogLine)) (*Result, *Error) {
	c := &inflight{onLog: onLog, done: make(chan *Result, 1)}
	tag, ok := s.begin(c)
	if !ok {
		return nil, s.notBegun()
	}
	defer s.take(tag)
	msg := &pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: m}}
	select {
	case s.out <- &outgoing{msg: msg, of: c}:
	case <-ctx.Done():
		return nil, errorOfContext(ctx, StartedNo)
	case <-s.over:
		return nil, s.notBegun()
	}
	select {
	case res := <-c.done:
		return res, outcome(res)
	case <-ctx.Done():
		s.giveUp(tag)
		return nil, errorOfContext(ctx, c.started())
	case <-s.over:
	}
	select { // its answer may have come right before the end
	case res := <-c.done:
		return res, outcome(res)
	default:
		return nil, s.lost(c)
	}
}

func (c *inflight) started() Started {
	if c.sent.Load() {
		return StartedMaybe
	}
	return StartedNo
}

// giveUp tells the service that nobody waits for a call any more. It does not wait to be rid of it for longer than the session
// lasts.
func (s *session) giveUp(tag uint64) {
	msg := &pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Cancel{Cancel: &pb.CancelCall{}}}
	go func() {
		select {
		case s.out <- &outgoing{msg: msg}:
		case <-s.over:
		}
	}()
}

// notBegun is the failure of a call that the session did not take: another session may.
func (s *session) notBegun() *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return &Error{Kind: NoCapacity, Message: "the service takes no more calls on this stream", Started: StartedNo, Fault: "platform"}
	}
	e := *s.err // why there is no stream: no such key, no way to the service
	e.Started = StartedNo
	if e.Kind == Internal {
		e.Kind = NoCapacity
	}
	return &e
}

// lost is the failure of a call whose answer cannot come any more.
func (s *session) lost(c *inflight) *Error {
	if c.started() == StartedNo {
		return s.notBegun()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := *s.err
	return &e
}
