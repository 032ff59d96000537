package router

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"paddock/internal/errs"
)

// Bounds on bodies that come slowly: each stretch of bodyStall must bring something.
const (
	bodyStall     = 10 * time.Second
	bodyFirstRead = 256 << 10 // allocated before anything has come
	bodyDiscard   = 5 * time.Second
)

// readDeadliner is what net/http's response writers can do; asked for directly, it costs no allocation.
type readDeadliner interface{ SetReadDeadline(time.Time) error }

// readBody reads a whole body of at most limit bytes that has to be there by the deadline. what names it in errors.
func (x *exchange) readBody(limit int64, what string, deadline time.Time) ([]byte, error) {
	if enc := x.header("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, withStatus(http.StatusUnsupportedMediaType,
			errs.New(errs.Invalid, "Content-Encoding %.40q is not supported: send the %s as it is", enc, what))
	}
	return x.readRaw(limit, what, deadline)
}

// readRaw is readBody for a body whose encoding is none of our business.
func (x *exchange) readRaw(limit int64, what string, deadline time.Time) ([]byte, error) {
	length := x.r.ContentLength
	if length == 0 {
		return nil, nil
	}
	if length > limit {
		return nil, tooLarge(what, length, limit)
	}
	pace := pacer{w: x.w, stall: x.router.bodyStall, deadline: deadline}
	pace.renew()
	defer pace.stop()
	var body []byte
	var err error
	if length > 0 {
		body, err = readKnown(x.r.Body, length, &pace)
	} else {
		body, err = readUnknown(x.r.Body, limit, &pace)
	}
	switch {
	case err == nil && int64(len(body)) > limit:
		return nil, tooLarge(what, -1, limit)
	case err == nil:
		x.bodyRead = true
		return body, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		e := errs.New(errs.Invalid, "the %s came too slowly: %d bytes, then nothing for a while", what, len(body))
		return nil, withStatus(http.StatusRequestTimeout, e)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errs.New(errs.Invalid, "the %s ended after %d of %d bytes", what, len(body), length)
	}
	return nil, &errs.Error{Kind: errs.Cancelled, Started: errs.StartedNo, Message: "the request's body could not be read",
		Op: "read body", Err: err}
}

// readKnown reads length bytes, and allocates for all of them only once a good part has come.
func readKnown(r io.Reader, length int64, pace *pacer) ([]byte, error) {
	first := make([]byte, min(length, bodyFirstRead))
	n, err := readFull(r, first, pace)
	if err != nil || int64(n) == length {
		return first[:n], err
	}
	all := make([]byte, length)
	copy(all, first)
	m, err := readFull(r, all[n:], pace)
	return all[:n+m], err
}

func readFull(r io.Reader, p []byte, pace *pacer) (n int, err error) {
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if n == len(p) {
			return n, nil
		}
		if err == io.EOF {
			return n, io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, err
		}
		pace.progress()
	}
	return n, nil
}

// readUnknown reads until the end, and one byte beyond limit at most.
func readUnknown(r io.Reader, limit int64, pace *pacer) ([]byte, error) {
	body := make([]byte, 0, min(limit+1, 4096))
	for {
		if len(body) == cap(body) {
			grown := make([]byte, len(body), min(limit+1, int64(2*cap(body))))
			copy(grown, body)
			body = grown
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF || int64(len(body)) > limit {
			return body, nil
		}
		if err != nil {
			return body, err
		}
		pace.progress()
	}
}

// pacer keeps the connection's read deadline ahead of a body that makes progress. A fixed one would end slow honest
// callers, none would let others hold a slot for nothing.
type pacer struct {
	w        http.ResponseWriter
	stall    time.Duration
	deadline time.Time // the hard end; zero: none
	set      time.Time
}

// renew grants another stretch.
func (p *pacer) renew() {
	p.set = time.Now()
	until := p.set.Add(p.stall)
	if !p.deadline.IsZero() && p.deadline.Before(until) {
		until = p.deadline
	}
	p.put(until)
}

// progress is told that bytes have come.
func (p *pacer) progress() {
	if time.Since(p.set) > p.stall/10 {
		p.renew()
	}
}

// stop lifts the deadline: it would otherwise be taken for the caller having gone.
func (p *pacer) stop() { p.put(time.Time{}) }

func (p *pacer) put(t time.Time) { setReadDeadline(p.w, t) }

func setReadDeadline(w http.ResponseWriter, t time.Time) {
	if d, ok := w.(readDeadliner); ok {
		_ = d.SetReadDeadline(t)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(t)
}
