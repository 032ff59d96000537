package router

import (
	"context"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// Node is one controller as the router sees it. Invoke returns a Result or an *errs.Error, also when req.Deadline
// passes or ctx ends; the sink is not used after it has returned. With an error a Result may say where the call ran.
type Node interface {
	Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error)
}

// Nodes says whom to ask. Safe for concurrent use.
type Nodes interface {
	// Route begins the search for a node to run a call. Each call of what it returns, by one goroutine at a time, is the next
	// one to ask; false says that there is none any more. The same node may come again.
	Route(req *call.Request) (next func() (Node, bool))
}

// OneNode returns the Nodes of a router that has a single node.
func OneNode(n Node) Nodes {
	return oneNode{func() (Node, bool) { return n, true }}
}

type oneNode struct{ next func() (Node, bool) }

func (o oneNode) Route(*call.Request) func() (Node, bool) { return o.next }

// maxResolves bounds how often a call is handed to a node.
const maxResolves = 3

// mayAsk says whether a call may be handed to a node once more: where the last of maxResolves had no room it may wait at another one.
func mayAsk(attempt int, last *errs.Error) bool {
	return attempt < maxResolves || attempt == maxResolves && last.Kind == errs.NoCapacity
}

// resolve hands the call to nodes until one has served it or refused it for good. untouched says whether neither the
// request's stream nor the sink has been used: only then can the call be handed on. budget is whose retries it costs.
func (r *Router) resolve(ctx context.Context, req *call.Request, budget *admitted, sink call.Sink, untouched func() bool) (*call.Result, error) {
	var last Node
	var lastErr *errs.Error
	var lastRes *call.Result
	next := r.cfg.Nodes.Route(req)
	for attempt := 0; mayAsk(attempt, lastErr); attempt++ {
		node, ok := next()
		if !ok || lastErr != nil && lastErr.Kind == errs.NoCapacity && node == last {
			break
		}
		if attempt > 0 {
			r.metrics.Retried()
		}
		res, err := node.Invoke(ctx, req, sink)
		if err == nil {
			return res, nil
		}
		last, lastRes, lastErr = node, res, errs.From(err)
		finished := res != nil && len(res.Steps) > 0 // steps of a pipeline, which never run again
		if finished || !mayRepeat(lastErr, req) || ctx.Err() != nil || !time.Now().Before(req.Deadline) || !untouched() {
			break
		}
		if lastErr.Kind != errs.NoCapacity && attempt+1 < maxResolves && !r.admission.spendRetry(budget) {
			r.metrics.RetryRefused()
			break
		}
	}
	if lastErr == nil {
		e := errs.New(errs.NoCapacity, "no controller can take the call now: try again")
		e.RetryAfter = time.Second
		return nil, e
	}
	if lastErr.Kind == errs.SandboxLost && lastErr.Cause == "controller" && lastErr.WhetherStarted() == errs.StartedNo && (lastRes == nil || len(lastRes.Steps) == 0) {
		// Nothing ran and no sandbox was lost: it says so in the way that clients and proxies repeat by themselves.
		return lastRes, &errs.Error{Kind: errs.NoCapacity, Cause: lastErr.Cause, Op: lastErr.Op, Err: lastErr.Err, Message: lastErr.Message + ": try again", RetryAfter: time.Second}
	}
	return lastRes, lastErr
}

// mayRepeat says whether another attempt can do better and cannot run the code twice against the caller's will.
func mayRepeat(e *errs.Error, req *call.Request) bool {
	switch e.Kind {
	case errs.NoCapacity:
		return true
	case errs.SandboxLost:
		return e.WhetherStarted() == errs.StartedNo || req.Idempotent && innocent(e.Cause)
	}
	return false
}

// innocent says whether a sandbox was lost for a reason that is not the code's own: what killed one container would kill
// the next.
func innocent(cause string) bool { return cause == "controller" || cause == "killed" }
