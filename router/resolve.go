package router

import (
	"context"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// Node is one controller as the router sees it. Invoke returns a Result or an *errs.Error, also when req.Deadline
// passes or ctx ends; the sink is not used after it has returned. With an error a Result may say where the call ran.
type Node interface {
	Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error)
}

// Nodes says whom to ask. Safe for concurrent use.
type Nodes interface {
	// Node returns the node to ask at the given attempt, from 0, at a call of t; false if there is none (any more). The
	// same node may be returned again.
	Node(t tenant.ID, attempt int) (Node, bool)
}

// OneNode returns the Nodes of a router that has a single node.
func OneNode(n Node) Nodes { return oneNode{n} }

type oneNode struct{ node Node }

func (o oneNode) Node(tenant.ID, int) (Node, bool) { return o.node, true }

// maxResolves bounds how often a call is handed to a node.
const maxResolves = 3

// resolve hands the call to nodes until one has served it or refused it for good. untouched says whether neither the
// request's stream nor the sink has been used: only then can the call be handed on.
func (r *Router) resolve(ctx context.Context, req *call.Request, sink call.Sink, untouched func() bool) (*call.Result, error) {
	var last Node
	var lastErr *errs.Error
	var lastRes *call.Result
	for attempt := range maxResolves {
		node, ok := r.cfg.Nodes.Node(req.Tenant, attempt)
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
		if !mayRepeat(lastErr, req) || ctx.Err() != nil || !time.Now().Before(req.Deadline) || !untouched() {
			break
		}
	}
	if lastErr == nil {
		e := errs.New(errs.NoCapacity, "no controller can take the call now: try again")
		e.RetryAfter = time.Second
		return nil, e
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
