package pool

import (
	"context"
	"io"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// tries decides whether a failed call is tried again by the pool itself.
type tries struct {
	unstarted, repeats int
	body               *touchedReader // nil if the body is not a stream
	sink               *touchedSink   // nil if it does not matter
}

// watch wraps what must not have been touched for another try.
func (tr *tries) watch(req *call.Request, sink call.Sink) (*call.Request, call.Sink) {
	if req.Stream != nil {
		tr.body = &touchedReader{r: req.Stream}
		own := *req
		own.Stream = tr.body
		req = &own
	}
	if req.Idempotent && sink != nil {
		tr.sink = &touchedSink{Sink: sink}
		sink = tr.sink
	}
	return req, sink
}

// again says whether one more try is right after e, and counts it.
func (tr *tries) again(ctx context.Context, req *call.Request, e *errs.Error) bool {
	if e.Kind != errs.SandboxLost || ctx.Err() != nil || tr.body != nil && tr.body.touched {
		return false
	}
	if !req.Deadline.IsZero() && !time.Now().Before(req.Deadline) {
		return false
	}
	if e.WhetherStarted() == errs.StartedNo {
		tr.unstarted++
		return tr.unstarted < maxUnstarted
	}
	if !req.Idempotent || tr.sink != nil && tr.sink.touched {
		return false
	}
	tr.repeats++
	return tr.repeats <= maxRepeats
}

// touchedReader knows whether anything was read. Read by one goroutine, which has ended when a try has returned.
type touchedReader struct {
	r       io.Reader
	touched bool
}

func (t *touchedReader) Read(b []byte) (int, error) {
	t.touched = true
	return t.r.Read(b)
}

// touchedSink knows whether the answer has begun.
type touchedSink struct {
	call.Sink
	touched bool
}

func (t *touchedSink) Head(status int, headers []call.Header) error {
	t.touched = true
	return t.Sink.Head(status, headers)
}
