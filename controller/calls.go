package controller

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"paddock/controller/logs"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// limitsOf is what of a tenant is kept here.
func limitsOf(p *tenant.Policy) logs.Limits {
	return logs.Limits{Bytes: p.LogKeptBytes, Retention: p.LogRetention, Inputs: p.RecordInputs}
}

// limits is limitsOf a tenant that may be gone.
func (c *Controller) limits(t tenant.ID) (logs.Limits, bool) {
	view, ok := c.cfg.Catalogue.Tenant(t)
	if !ok {
		return logs.Limits{}, false
	}
	return limitsOf(view.Policy), true
}

// do runs a call and keeps how it ended.
func (c *Controller) do(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	if req.CompileOnly { // a deployment, not a call
		return c.pool.Do(ctx, req, sink)
	}
	began := time.Now()
	var body *countedBody
	if req.Stream != nil {
		body = &countedBody{r: req.Stream}
		own := *req
		own.Stream = body
		req = &own
	}
	res, err := c.pool.Do(ctx, req, sink)
	c.note(ctx, req, body, began, res, err)
	return res, err
}

// note keeps a call that ended. It is done here and not in the router: a tenant's calls are then where its lines are, whichever
// router they came by, and one that a router has given up and another controller has taken is kept by both as they saw it.
func (c *Controller) note(ctx context.Context, req *call.Request, body *countedBody, began time.Time, res *call.Result, err error) {
	l, ok := c.limits(req.Tenant)
	if !ok || l.Bytes == 0 {
		return
	}
	one := logs.Call{
		ID: req.ID, Function: req.Function, Version: req.Version, Pipeline: req.Pipeline, Outcome: logs.OutcomeOK,
		Ended: time.Now(), InputBytes: int64(len(req.Body)),
	}
	if body != nil {
		one.InputBytes = body.n.Load()
	}
	if res != nil {
		one.Stages, one.Start, one.Container = res.Stages, res.Start, res.Container
		one.Steps, one.OutputBytes = logs.StepsOf(res.Steps), max(res.OutputBytes, int64(len(res.Value)))
	}
	one.Stages.Total = one.Ended.Sub(began)
	if err != nil {
		e := whyEnded(ctx, errs.From(err))
		one.Outcome, one.Message = string(e.Kind), logs.MessageOf(e)
	}
	var input []byte
	if req.Via == call.ViaValue {
		input = req.Body
	}
	c.calls.Note(req.Tenant, one, input, l)
}

// whyEnded is e, or what the caller was told in its stead: a call that the router ended, for time or for the size of its answer,
// looks from here like one whose caller went away.
func whyEnded(ctx context.Context, e *errs.Error) *errs.Error {
	if e.Kind != errs.Cancelled {
		return e
	}
	var own *errs.Error
	if errors.As(e.Err, &own) || errors.As(context.Cause(ctx), &own) {
		return own
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &errs.Error{Kind: errs.Timeout, Message: "the deadline passed"}
	}
	return e
}

// countedBody counts what is read of a streamed body. Its reader may still run when the call has ended.
type countedBody struct {
	r io.Reader
	n atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// sweepEvery is how often what is kept is looked through for what is too old. Nobody is shown it meanwhile.
const sweepEvery = time.Minute

// sweepKept drops what is kept of calls and lines for too long, until ctx ends.
func (c *Controller) sweepKept(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.logs.Sweep(now, c.limits)
			c.calls.Sweep(now, c.limits)
		}
	}
}
