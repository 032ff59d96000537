package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"paddock/internal/errs"
)

// Shutdown says "not ready", announces goaway on open streams, lets what is in flight finish and closes. When ctx ends
// first, the calls that are left end as sandbox_lost, and their callers have cutTime to take that; what is open even then
// is closed, and the error says so. Later calls wait for the first.
func (r *Router) Shutdown(ctx context.Context) error {
	r.shutdown.Do(func() {
		defer close(r.down)
		r.draining.Store(true)
		r.SetReady(false)
		r.drain.start("shutdown")
		r.endLife()
		longer, done := r.cutAfter(ctx)
		defer done()
		r.downErr = r.close(longer)
	})
	<-r.down
	return r.downErr
}

// errCut ends the contexts of calls that Shutdown does not wait for.
var errCut = errors.New("the service stops")

// cutTime is how long the answers of calls that were cut may take to be taken off.
const cutTime = time.Second

// cutAfter ends the calls in flight when ctx ends, and returns a context that lasts for their answers. done must be called.
func (r *Router) cutAfter(ctx context.Context) (longer context.Context, done func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if n := r.InFlight(); n > 0 {
			r.log.Warn("calls did not end in time: they are ended", "calls", n)
		}
		r.cut(errCut)
		late := time.AfterFunc(cutTime, cancel)
		context.AfterFunc(longer, func() { late.Stop() })
	})
	return longer, func() { stop(); cancel() }
}

// cuttable is a context of a call over gRPC, whose transport makes contexts of its own. done must be called.
func (r *Router) cuttable(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(r.calls, func() { cancel(errCut) })
	return ctx, func() { detach(); cancel(nil) }
}

// cutError is what a call in flight ends with when the service stops before it.
func cutError(err error) *errs.Error {
	if e := errs.From(err); e.WhetherStarted() == errs.StartedNo {
		return errDraining()
	}
	return &errs.Error{
		Kind: errs.SandboxLost, Cause: "controller", Fault: errs.FaultPlatform, Started: errs.StartedMaybe, Op: "router", Err: errCut,
		Message: "the service stopped before the call had ended; it may have run",
	}
}

func (r *Router) close(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.grpc.GracefulStop()
	}()
	httpErr := r.closeHTTP(ctx)
	r.onHTTP.Stop()
	r.awaitGRPC(ctx, stopped)
	r.grpc.Stop()
	select {
	case <-stopped:
	case <-ctx.Done(): // a handler that heeds nothing: the caller's side is closed
	}
	r.health.Shutdown()
	if r.denials != nil {
		r.denials.Close()
	}
	r.proofs.wait()
	if err := ctx.Err(); err != nil && (httpErr != nil || r.InFlight() > 0) {
		return fmt.Errorf("router: shutdown cut what was in flight: %w", err)
	}
	return nil
}

// closeHTTP lets both ways over HTTP finish, or cuts them when ctx ends.
func (r *Router) closeHTTP(ctx context.Context) error {
	plain := make(chan error, 1)
	go func() { plain <- r.lane.Shutdown(ctx) }()
	err := errors.Join(r.http.Shutdown(ctx), <-plain)
	if err != nil {
		_ = r.lane.Close()
		_ = r.http.Close()
	}
	return err
}

// lingering is how long a stream that is no call may keep the gRPC server open after the last call has ended.
const lingering = 250 * time.Millisecond

// awaitGRPC returns when the server has stopped by itself, or when only streams are left that carry no calls (a client
// that holds reflection open), or when ctx ends.
func (r *Router) awaitGRPC(ctx context.Context, stopped <-chan struct{}) {
	tick := time.NewTicker(lingering / 10)
	defer tick.Stop()
	quiet := time.Now()
	for {
		select {
		case <-stopped:
			return
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if r.InFlight() > 0 || r.drain.open() > 0 {
				quiet = now
			} else if now.Sub(quiet) > lingering {
				return
			}
		}
	}
}
