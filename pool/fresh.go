package pool

import (
	"bytes"
	"context"
	"errors"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// freshGrace is how long after its deadline a fresh call may still wait for its container's end.
const freshGrace = 400 * time.Millisecond

// doFresh runs the call that f's container exists for. Nothing of the container is left when the last byte of the answer
// is released: the result, or the last piece of a streamed one, is held back until then.
func (p *Pool) doFresh(ctx context.Context, f *flight, req *call.Request, sink call.Sink) (*call.Result, error) {
	var held *lastPiece
	if sink != nil {
		held = &lastPiece{Sink: sink}
		sink = held
	}
	began := time.Now()
	res, err := f.c.conn.Do(ctx, f.outside(req), sink, f.settled)
	if err != nil { // before the container goes, so that why it was lost can be told
		err = p.explainLoss(f.c, p.explainTimeout(f.c, errs.From(err)), req.Deadline)
	}
	p.mu.Lock()
	p.drainLocked(f.c, CauseFresh, time.Now())
	p.unlock()
	p.giveBack(f, nil)
	if gone := p.awaitGone(f.c, req.Deadline); err == nil {
		err = gone
	}
	if err == nil && held != nil {
		if gone := held.release(); gone != nil {
			err = errs.Wrap(errs.Cancelled, "pool.Do", gone, "the caller went away")
		}
	}
	return p.finish(f, res, err, began)
}

var errStays = errors.New("the container of a fresh call was not destroyed in time")

// awaitGone waits until nothing of c is left.
func (p *Pool) awaitGone(c *container, deadline time.Time) error {
	limit := destroyTimeout
	if !deadline.IsZero() {
		limit = max(0, time.Until(deadline)) + freshGrace
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c.gone:
		return nil
	case <-p.stopped:
		return loss{kind: lossController}.fails(errs.StartedYes, errStays)
	case <-t.C:
	}
	e := errs.Wrap(errs.Timeout, "pool.Do", errStays, "the call ended, but its sandbox was not gone before the deadline")
	e.Started, e.Fault = errs.StartedYes, errs.FaultPlatform
	return e
}

// lastPiece is a Sink that keeps the newest piece of data back.
type lastPiece struct {
	call.Sink
	held bytes.Buffer
	any  bool
}

func (l *lastPiece) Data(b []byte) error {
	if err := l.release(); err != nil {
		return err
	}
	l.held.Write(b)
	l.any = true
	return nil
}

func (l *lastPiece) release() error {
	if !l.any {
		return nil
	}
	l.any = false
	defer l.held.Reset()
	return l.Sink.Data(l.held.Bytes())
}
