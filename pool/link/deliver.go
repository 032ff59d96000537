package link

import (
	"context"
	"time"

	"golang.org/x/net/http/httpguts"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// parcel is what came for the caller since it last looked.
type parcel struct {
	logs     []call.LogLine
	response *ResponseHead
	data     []byte
	final    bool
	tooLarge bool
	inputErr error
}

func (c *Conn) takeParcel(x *exchange) parcel {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := parcel{logs: x.logs, response: x.response, data: x.data, final: x.final(), tooLarge: x.tooLarge, inputErr: x.inputErr}
	x.logs, x.response = nil, nil
	x.data, x.spare = x.spare[:0], x.data // two buffers in turn: the reader fills one while the sink reads the other
	return p
}

// deliver passes on what has come. final means that the answer is complete and delivered.
func (c *Conn) deliver(ctx context.Context, x *exchange) (final bool, err *errs.Error) {
	p := c.takeParcel(x)
	for _, line := range p.logs {
		x.sink.Log(line)
	}
	if p.response != nil {
		if err := c.deliverHead(ctx, x, p.response); err != nil {
			return true, err
		}
	}
	if len(p.data) > 0 {
		if err := c.deliverData(x, p.data); err != nil {
			return true, err
		}
	}
	if p.tooLarge {
		c.giveUp(x, reasonGone)
		return true, tooLargeError(x)
	}
	if p.inputErr != nil && !p.final {
		c.giveUp(x, reasonGone)
		return true, errs.Wrap(errs.Cancelled, "link.Do", p.inputErr, "the request's body could not be read to its end")
	}
	return p.final, nil
}

func (c *Conn) deliverHead(ctx context.Context, x *exchange, h *ResponseHead) *errs.Error {
	if x.sink == nil {
		c.giveUp(x, reasonGone)
		return errs.New(errs.UserError, "the function answers HTTP requests (it has a response to write to), but it was called for a "+
			"value: call it by its http path")
	}
	c.startWatch(ctx, x)
	headers := make([]call.Header, len(h.Headers))
	for i, f := range h.Headers {
		headers[i] = call.Header{Name: f[0], Value: f[1]}
	}
	if err := x.sink.Head(h.Status, headers); err != nil {
		return c.sinkGone(x, err)
	}
	return nil
}

func (c *Conn) deliverData(x *exchange, p []byte) *errs.Error {
	x.streamed += int64(len(p))
	if x.req.Via == call.ViaValue && x.streamed > x.limits.maxOutput {
		c.giveUp(x, reasonGone)
		return tooLargeError(x)
	}
	if err := x.sink.Data(p); err != nil {
		return c.sinkGone(x, err)
	}
	c.mu.Lock()
	if !x.over {
		c.consumedLocked(x, len(p))
	}
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
	return nil
}

func (c *Conn) sinkGone(x *exchange, err error) *errs.Error {
	c.giveUp(x, reasonGone)
	return errs.Wrap(errs.Cancelled, "link.Do", err, "the caller went away while the answer was being sent")
}

func (c *Conn) giveUp(x *exchange, reason string) {
	c.mu.Lock()
	c.giveUpLocked(x, reason)
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
}

// consumedLocked gives credit back for n bytes, in portions of a quarter of the window.
func (c *Conn) consumedLocked(x *exchange, n int) {
	x.ungranted += int64(n)
	if x.ungranted < c.o.StreamWindow/4 || x.answered && x.bodyDone {
		return
	}
	c.w.pending = AppendWindow(c.w.pending, x.stream, uint32(x.ungranted))
	x.credit += x.ungranted
	x.ungranted = 0
}

// discardLocked drops n bytes that nobody wants, and grants them again only as far as an honest agent needs to finish.
func (c *Conn) discardLocked(x *exchange, n int) {
	if x.excess <= 0 {
		return
	}
	x.excess -= int64(n)
	c.consumedLocked(x, n)
}

// watch tells the agent of the end of a call's time while its caller's goroutine is held up in the sink.
type watch struct {
	timer *time.Timer
	stop  func() bool
}

func (c *Conn) startWatch(ctx context.Context, x *exchange) {
	s := x.stream // x itself may be another call's by then
	cancel := func(reason string) {
		c.mu.Lock()
		if x := c.table[s]; x != nil && !x.returned {
			c.cancelLocked(x, reason)
		}
		flush := c.w.startLocked()
		c.mu.Unlock()
		if flush {
			c.flush()
		}
	}
	x.watch = &watch{
		timer: time.AfterFunc(time.Until(x.deadline), func() { cancel(reasonDeadline) }),
		stop:  context.AfterFunc(ctx, func() { cancel(reasonGone) }),
	}
}

func stopWatch(x *exchange) {
	if x.watch != nil {
		x.watch.timer.Stop()
		x.watch.stop()
		x.watch = nil
	}
}

// clean drops fields that are no HTTP fields, so that nobody after us can be led to write them, and says how many.
func (h *ResponseHead) clean() (dropped int64) {
	kept := h.Headers[:0]
	for _, f := range h.Headers {
		if httpguts.ValidHeaderFieldName(f[0]) && httpguts.ValidHeaderFieldValue(f[1]) {
			kept = append(kept, f)
		} else {
			dropped++
		}
	}
	h.Headers = kept
	return dropped
}
