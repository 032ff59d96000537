package router

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/metrics"
	"paddock/internal/tenant"
)

// newCallID returns 128 random bits as hex. The generator is the runtime's own ChaCha8; ids are names, not secrets.
func newCallID() call.ID {
	var raw [16]byte
	a, b := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	var text [32]byte
	hex.Encode(text[:], raw[:])
	return call.ID(text[:])
}

// invocation is one admitted call: it holds a slot of its tenant from admit to finish. Used by one goroutine.
type invocation struct {
	router    *Router
	req       call.Request
	slot      *admitted
	keyID     string
	role      identity.Role
	transport metrics.Transport
	began     time.Time
	stages    call.Stages
	trace     *tracing
	version   *catalog.VersionView      // of the function; nil for other calls
	pipeline  *catalog.ResolvedPipeline // nil for other calls
	draft     bool                      // the pipeline is stored nowhere
	done      bool
}

// admit takes the tenant's rate and concurrency for a call. finish must follow. It blocks only where a tenant is refused too
// often, at most as long as ctx.
func (r *Router) admit(ctx context.Context, id call.ID, who identity.Identity, tr metrics.Transport, began time.Time) (*invocation,
	error) {
	if r.draining.Load() {
		r.metrics.Refused("draining")
		return nil, errDraining()
	}
	t, ok := r.cfg.Catalogue.Tenant(who.Tenant)
	if !ok {
		return nil, errs.New(errs.NotFound, "there is no tenant %q", who.Tenant)
	}
	policy := t.Policy
	if policy.Suspended {
		r.metrics.Refused("suspended")
		return nil, errs.New(errs.Denied, "tenant %s is suspended: ask the operator", who.Tenant)
	}
	slot, e := r.admission.take(who.Tenant, policy, who.Role == public, began)
	if e != nil {
		return nil, r.refuse(ctx, who.Tenant, e)
	}
	r.metrics.Accepted()
	inv := &invocation{router: r, slot: slot, keyID: who.KeyID, role: who.Role, transport: tr, began: began}
	inv.req.ID, inv.req.Tenant, inv.req.Policy = id, who.Tenant, policy
	return inv, nil
}

// admitStream takes a place among the tenant's streams of calls. leave must follow.
func (r *Router) admitStream(ctx context.Context, id tenant.ID) (leave func(), err error) {
	t, ok := r.cfg.Catalogue.Tenant(id)
	if !ok {
		return nil, errs.New(errs.NotFound, "there is no tenant %q", id)
	}
	leave, e := r.admission.openStream(id, t.Policy, time.Now())
	if e != nil {
		return nil, r.refuse(ctx, id, e)
	}
	return leave, nil
}

func errDraining() *errs.Error {
	e := errs.New(errs.NoCapacity, "this router is shutting down: try again, another one will answer")
	e.Cause, e.RetryAfter = "draining", time.Second
	return e
}

// policy is what the call runs under.
func (inv *invocation) policy() *tenant.Policy { return inv.req.Policy }

// deadline sets the call's deadline, counted from when the request came. asked 0 is the tenant's default.
func (inv *invocation) deadline(asked time.Duration) {
	if asked == 0 {
		asked = inv.policy().Timeout
	}
	inv.req.Deadline = inv.began.Add(asked)
}

// invoke resolves the call. The result's stages are completed with the router's own total.
func (inv *invocation) invoke(ctx context.Context, sink call.Sink, untouched func() bool) (*call.Result, error) {
	if err := inv.setOutside(ctx); err != nil {
		return nil, err
	}
	ctx, end := inv.trace.node(ctx)
	res, err := inv.router.resolve(ctx, &inv.req, inv.slot, sink, untouched)
	switch {
	case !errs.Is(err, errs.Cancelled):
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		// The transport's deadline and the call's are the same moment; which of them was seen first says nothing.
		err = &errs.Error{Kind: errs.Timeout, Message: "the deadline passed"}
	case errors.Is(context.Cause(ctx), errCut):
		err = cutError(err)
	}
	end(err)
	if errs.Is(err, errs.Limited) { // by the node, with the slot held: what is held back stays within what may be in flight
		inv.router.slowDown(ctx, inv.req.Tenant)
	}
	if res != nil {
		res.Stages.Total = time.Since(inv.began)
		inv.stages = res.Stages
	}
	return res, err
}

// finish ends the call: gives the slot back, counts and logs. Later calls of it do nothing, so that a deferred one covers
// panics. res is nil where no container answered.
func (inv *invocation) finish(ctx context.Context, res *call.Result, err error) {
	if inv.done {
		return
	}
	inv.done = true
	r := inv.router
	r.admission.release(inv.slot, inv.role == public)
	if inv.stages.Total == 0 {
		inv.stages.Total = time.Since(inv.began)
	}
	var kind errs.Kind
	var start call.StartKind
	e := errs.From(err)
	if e != nil {
		kind = e.Kind
	}
	if res != nil {
		start = res.Start
	}
	r.metrics.Ended(kind, start, inv.transport, &inv.stages)
	r.proofs.ended(inv, res, e)
	inv.trace.end(res, e)
	inv.log(ctx, res, e)
}

// abandoned is what a deferred finish reports when nobody said how the call ended: a panic.
var errAbandoned = errors.New("the request ended without an outcome")

// log writes the call's line. Tenant's text never goes in: of an error only what Paddock itself has said.
func (inv *invocation) log(ctx context.Context, res *call.Result, e *errs.Error) {
	r, level, outcome := inv.router, inv.router.cfg.CallLevel, "ok"
	if e != nil {
		outcome = string(e.Kind)
		if e.Kind == errs.Internal {
			level = max(level, slog.LevelError)
		}
	}
	if !r.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 20)
	attrs = append(attrs,
		slog.String("call", string(inv.req.ID)),
		slog.String("tenant", string(inv.req.Tenant)),
		slog.String("function", inv.req.Function),
		slog.String("outcome", outcome),
		slog.String("transport", inv.transport.String()),
		slog.String("key", inv.keyID),
		slog.Int64("total_us", inv.stages.Total.Microseconds()))
	if res != nil {
		attrs = append(attrs, slog.String("container", string(res.Container)), slog.String("start", string(res.Start)))
		attrs = appendStages(attrs, &res.Stages)
	}
	if inv.req.Version != 0 {
		attrs = append(attrs, slog.Int64("version", inv.req.Version))
	}
	if e != nil {
		attrs = append(attrs, slog.String("started", string(e.WhetherStarted())), slog.String("fault", string(e.WhoseFault())))
		if e.Cause != "" {
			attrs = append(attrs, slog.String("cause", e.Cause))
		}
		if e.Err != nil {
			attrs = append(attrs, slog.String("op", e.Op), slog.String("err", e.Err.Error()))
		}
	}
	line := slog.NewRecord(time.Now(), level, "call", 0) // where in the source it comes from says nothing
	line.AddAttrs(attrs...)
	_ = r.log.Handler().Handle(ctx, line)
}

// appendStages appends the stages that took place.
func appendStages(attrs []slog.Attr, s *call.Stages) []slog.Attr {
	for _, stage := range [...]struct {
		name string
		took time.Duration
	}{{"queue_us", s.Queue}, {"assign_us", s.Assign}, {"load_us", s.Load}, {"run_us", s.Run}} {
		if stage.took > 0 {
			attrs = append(attrs, slog.Int64(stage.name, stage.took.Microseconds()))
		}
	}
	return attrs
}
