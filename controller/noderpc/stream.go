package noderpc

import (
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"paddock/internal/errs"
	"paddock/internal/nodewire"
	pb "paddock/proto/paddock/v1"
)

// errNothingTaken ends a stream on which no call was taken since the last answer: one that is under way has not started.
var errNothingTaken = status.Error(nodewire.NothingTaken, "the controller takes no more calls on this stream")

// Invoke implements paddock.v1.Node. Whatever becomes of a call is told by a NodeResult; the stream's own status says only
// that the two sides do not understand each other, or that the controller is about to leave.
func (s *Server) Invoke(stream grpc.BidiStreamingServer[pb.NodeRequest, pb.NodeResponse]) error {
	again, err := s.serve(stream, func() bool { return true })
	if !again || err != nil {
		return err
	}
	t := &turns{}
	done := make(chan error, 1)
	go func() { done <- t.follow(s, stream) }()
	select {
	case err := <-done:
		return err
	case <-s.leaving:
	}
	if t.endIdle() {
		return errNothingTaken // the reader ends with the stream
	}
	return <-done
}

// Leave ends the streams that carry no call, now or behind the answer that is due. A new stream still carries one.
func (s *Server) Leave() { s.leave.Do(func() { close(s.leaving) }) }

func (s *Server) leaves() bool {
	select {
	case <-s.leaving:
		return true
	default:
		return false
	}
}

// serve does one call, if it is let begin when its head has come. again says that the router was told to send another one.
func (s *Server) serve(stream grpc.BidiStreamingServer[pb.NodeRequest, pb.NodeResponse], begin func() bool) (again bool, err error) {
	first, err := stream.Recv()
	if err != nil || !begin() {
		return false, err
	}
	head := first.GetCall()
	if head == nil {
		return false, errs.New(errs.Invalid, "the first message of a call is its head")
	}
	x := &exchange{server: s, stream: stream, head: head, logs: head.GetWithLogs()}
	res, err := x.run()
	return x.answer(res, errs.From(err))
}

// turns are the calls behind the first on one stream, one at a time. Whether the stream is ended or a call begins is decided once.
type turns struct {
	mu    sync.Mutex
	busy  bool
	ended bool
}

// follow serves them.
func (t *turns) follow(s *Server, stream grpc.BidiStreamingServer[pb.NodeRequest, pb.NodeResponse]) error {
	for {
		again, err := s.serve(stream, t.begin)
		if errors.Is(err, io.EOF) {
			return nil // the router has no more
		}
		if err != nil || !again {
			return err
		}
		if t.finish(); s.leaves() && t.endIdle() {
			return errNothingTaken
		}
	}
}

func (t *turns) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = !t.ended
	return t.busy
}

func (t *turns) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = false
}

// endIdle lets no call begin any more, unless one has.
func (t *turns) endIdle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = t.ended || !t.busy
	return t.ended
}
