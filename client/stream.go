package client

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

// Stream carries many calls at once on one gRPC stream: the cheapest way to make many small ones. Answers come as they are
// ready. It opens with the first call; when the service announces that it goes, or the stream breaks, later calls open another one,
// and those that had not started are made again there as RetryPolicy says. Safe for concurrent use. Close ends it.
//
// The service takes up to 1,024 calls at once on a stream; most tenants' own limit is lower.
type Stream struct {
	client *Client
	ctx    context.Context // of the stream's life; cancelled by Close
	cancel context.CancelFunc

	mu      sync.Mutex
	current *session
	closed  bool
	open    sync.WaitGroup // sessions that have not ended
}

// Stream makes a Stream. Its calls act for whom the Client's do.
func (c *Client) Stream() *Stream {
	ctx, cancel := context.WithCancel(context.Background())
	return &Stream{client: c, ctx: ctx, cancel: cancel}
}

// Do runs a call, among others in flight, and returns when it is answered. When ctx ends, the service is told to cancel it.
func (s *Stream) Do(ctx context.Context, call Call) (res *Result, err error) {
	if _, err := call.message(); err != nil {
		return nil, err
	}
	err = s.client.repeat(ctx, func(ctx context.Context) *Error {
		m, _ := call.message() // one of its own for each attempt: the one before may still be on its way
		if end, ok := ctx.Deadline(); ok && m.Timeout != nil {
			m.Timeout = durationpb.New(max(min(call.Timeout, time.Until(end)), time.Millisecond))
		}
		on, e := s.session()
		if e != nil {
			return e
		}
		res, e = on.do(ctx, m, call.OnLog)
		return e
	})
	call.logs(res)
	return res, err
}

// Pending is a call that Start began.
type Pending struct {
	done chan struct{}
	res  *Result
	err  error
}

// Start begins a call and returns at once; it ends when ctx does at the latest.
func (s *Stream) Start(ctx context.Context, call Call) *Pending {
	p := &Pending{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.res, p.err = s.Do(ctx, call)
	}()
	return p
}

// Done is closed when the call has ended.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait returns what Do would have.
func (p *Pending) Wait() (*Result, error) {
	<-p.done
	return p.res, p.err
}

// Close ends the stream. Calls in flight fail; it returns when nothing of it is left.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.open.Wait()
	return nil
}

// session returns the one that takes calls, or begins it.
func (s *Stream) session() (*session, *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, &Error{Kind: Cancelled, Message: "the stream is closed", Started: StartedNo, Err: context.Canceled}
	}
	if s.current == nil || !s.current.takes() {
		s.current = newSession(s.ctx, s.client.conn)
		s.open.Go(s.current.run)
	}
	return s.current, nil
}
