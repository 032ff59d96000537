package router

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// stream joins one HTTP exchange to a call: it is the call's body reader and its sink. The node reads and writes from its
// own goroutines; close waits until they are out of net/http's hands and lets none in again.
type stream struct {
	x       *exchange
	control *http.ResponseController
	cancel  context.CancelCauseFunc
	idle    time.Duration
	hardEnd time.Time
	noBody  bool // the answer may have none
	duplex  bool // the body is read while the answer is written

	mu      sync.Mutex
	left    sync.Cond // a reader or writer left
	reading int       // goroutines inside net/http for the body
	writing int       // and for the answer
	closed  bool
	read    bool // somebody has begun to read the body
	eof     bool // the body was read to its end
	headed  bool
	refused *errs.Error
	timer   *time.Timer
	touched time.Time // when something last moved
}

func newStream(x *exchange, inv *invocation, cancel context.CancelCauseFunc, headBy time.Time) *stream {
	s := &stream{
		x: x, control: http.NewResponseController(x.w), cancel: cancel, idle: x.router.cfg.StreamIdle,
		hardEnd: inv.req.Deadline,
	}
	s.left.L = &s.mu
	s.mu.Lock()
	s.timer = time.AfterFunc(time.Until(headBy), s.headLate)
	s.mu.Unlock()
	return s
}

func (s *stream) headLate() {
	s.mu.Lock()
	late := !s.headed && !s.closed
	s.mu.Unlock()
	if late {
		s.cancel(errHeadLate)
	}
}

// watch ends the stream once nothing has moved for the idle time.
func (s *stream) watch() {
	s.mu.Lock()
	quiet := time.Since(s.touched)
	over := !s.closed && quiet >= s.idle
	if !s.closed && !over {
		s.timer.Reset(s.idle - quiet)
	}
	s.mu.Unlock()
	if over {
		s.cancel(errStreamIdle)
	}
}

// enter lets a goroutine of the node into net/http, unless the exchange is over. inside is &s.reading or &s.writing.
func (s *stream) enter(inside *int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	*inside++
	return true
}

func (s *stream) leave(inside *int, moved bool) {
	s.mu.Lock()
	*inside--
	if moved {
		s.touched = time.Now()
	}
	s.mu.Unlock()
	s.left.Broadcast()
}

// close shuts the exchange to the node's goroutines and waits for those inside: net/http's objects must not be
// touched after the handler's return. It belongs to the handler's goroutine. A goroutine that waits for the network
// is woken by a deadline in the past; after that the connection serves nothing more, which is right, since its body
// was left unread. Where only the body's reader was waiting, the answer can still be written.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.timer.Stop()
	past := time.Unix(1, 0)
	if s.reading+s.writing > 0 {
		_ = s.control.SetReadDeadline(past)
	}
	if s.writing > 0 {
		_ = s.control.SetWriteDeadline(past)
	}
	for s.reading+s.writing > 0 {
		s.left.Wait()
	}
	s.x.cut = s.headed
}

// Read implements io.Reader for the call's body.
func (s *stream) Read(p []byte) (int, error) {
	if !s.enter(&s.reading) {
		return 0, io.ErrClosedPipe
	}
	s.mu.Lock()
	s.read = true
	s.mu.Unlock()
	_ = s.control.SetReadDeadline(s.until())
	n, err := s.x.r.Body.Read(p)
	if err == io.EOF {
		_ = s.control.SetReadDeadline(time.Time{}) // what waits for the caller's going has no limit
		s.mu.Lock()
		s.eof = true
		s.mu.Unlock()
	}
	s.leave(&s.reading, n > 0)
	return n, err
}

// smallStream is the size up to which a body of known length is read before the call: it goes with the call's first bytes
// then, and the connection is done with it.
const smallStream = 64 << 10

// attachBody gives the request's body to the call.
func (s *stream) attachBody(inv *invocation) (err error) {
	switch length := s.x.r.ContentLength; {
	case length == 0:
	case 0 < length && length <= smallStream:
		inv.req.Body, err = s.x.readRaw(smallStream, "request", inv.req.Deadline)
	default:
		s.duplex = true
		inv.req.Stream = s
		_ = s.control.EnableFullDuplex() // HTTP/2 always is
	}
	return err
}

// closeUnlessRead makes the answer the connection's last if the body may be left unread: net/http keeps a connection
// whose body it could not discard in full duplex, and would take the rest of it for the next request.
func (s *stream) closeUnlessRead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.duplex && !s.eof && s.x.r.ProtoMajor == 1 {
		s.x.w.Header()["Connection"] = closeField
	}
}

// mostDiscarded bounds what is read of a body that the function did not want.
const mostDiscarded = 256 << 10

// discard reads the rest of a body, within bounds, while the handler still runs: the caller gets to read the answer, and
// net/http's own discarding afterwards would start a read that nobody ends.
func (s *stream) discard() {
	if !s.duplex || s.eof || s.x.r.ProtoMajor != 1 {
		return
	}
	_ = s.control.Flush()
	_ = s.control.SetReadDeadline(time.Now().Add(s.x.router.discardFor))
	_, _ = io.CopyN(io.Discard, s.x.r.Body, mostDiscarded)
}

// until is when a read or write that does not move is over.
func (s *stream) until() time.Time {
	t := time.Now().Add(s.idle)
	if s.hardEnd.Before(t) {
		return s.hardEnd
	}
	return t
}

// Head implements call.Sink.
func (s *stream) Head(status int, headers []call.Header) error {
	if !s.enter(&s.writing) {
		return errSinkClosed
	}
	defer s.leave(&s.writing, true)
	s.mu.Lock()
	if s.headed {
		s.mu.Unlock()
		return errSinkClosed
	}
	if !validStatus(status) {
		s.refused = badStatus(status)
		s.mu.Unlock()
		return s.refused
	}
	s.headed = true
	s.touched = time.Now()
	s.timer.Stop()
	s.timer = time.AfterFunc(s.idle, s.watch)
	s.mu.Unlock()
	s.noBody = !bodyAllowed(s.x.r.Method, status)
	s.closeUnlessRead()
	h := s.x.w.Header()
	s.x.router.metrics.HeadersDropped(s.x.copyAnswerHeaders(headers))
	if h["Content-Type"] == nil && !s.noBody {
		h["Content-Type"] = octetStream // never sniffed out of a tenant's bytes
	}
	_ = s.control.SetWriteDeadline(s.until())
	s.x.w.WriteHeader(status)
	return s.control.Flush()
}

var octetStream = []string{"application/octet-stream"}

// Data implements call.Sink. What comes is sent on at once.
func (s *stream) Data(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if !s.enter(&s.writing) {
		return errSinkClosed
	}
	defer s.leave(&s.writing, true)
	if s.noBody {
		return nil
	}
	_ = s.control.SetWriteDeadline(s.until())
	if _, err := s.x.w.Write(p); err != nil {
		return err
	}
	return s.control.Flush()
}

// Log implements call.Sink; live logs go by the log hub.
func (s *stream) Log(call.LogLine) {}

// untouched says that the call can still be handed to another node: nothing of its body was read, no answer has begun.
func (s *stream) untouched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.read && !s.headed && s.refused == nil
}
