package pool

import (
	"context"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// compile has f's container compile the call's code and nothing more: LOAD runs nothing of it. It counts as a call while it
// lasts, and the container has the code for the calls that follow.
func (p *Pool) compile(ctx context.Context, f *flight, req *call.Request) (*call.Result, error) {
	defer f.settled() // after the slot was given back: what never ran cannot go on running
	began := time.Now()
	err := p.load(ctx, f.c, req)
	if err == nil {
		p.giveBack(f, nil)
		return p.finish(f, &call.Result{Stages: call.Stages{Load: time.Since(began)}}, nil, began)
	}
	return p.finish(f, nil, p.failed(f, req, errs.From(err)), began)
}

func (p *Pool) load(ctx context.Context, c *container, req *call.Request) error {
	l, ok := c.conn.(Loader)
	if !ok {
		return errs.New(errs.Internal, "this link takes code with its first call only")
	}
	if ctx.Err() != nil { // LOADED may be faster than the link's look at ctx
		e := errs.New(errs.Cancelled, "the caller went away before the code was compiled")
		e.Started = errs.StartedNo
		return e
	}
	if !req.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, req.Deadline)
		defer cancel()
	}
	return l.Load(ctx, req.Code)
}
