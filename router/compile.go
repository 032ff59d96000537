package router

import (
	"context"
	"fmt"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// compileTime bounds how long it may take to find out whether code compiles, the wait for a sandbox included.
const compileTime = 10 * time.Second

// Compile returns what asks the nodes which would run the code. Each piece is compiled in a container
// of the tenant's, which costs a claim if it has none.
func Compile(nodes Nodes) catalog.Compiler {
	return func(ctx context.Context, t tenant.ID, policy *tenant.Policy, runtime string, code []call.Code) error {
		for _, c := range code {
			req := &call.Request{
				ID: newCallID(), Tenant: t, Policy: policy, Runtime: runtime, Code: c, CompileOnly: true,
				Deadline: time.Now().Add(compileTime),
			}
			if e := compileAt(ctx, nodes, req); e != nil {
				return uncompiled(c.Name, e)
			}
		}
		return nil
	}
}

func compileAt(ctx context.Context, nodes Nodes, req *call.Request) *errs.Error {
	e := errs.New(errs.NoCapacity, "no controller can take it now")
	e.RetryAfter = time.Second
	var last Node
	next := nodes.Route(req)
	for try := 0; mayAsk(try, e); try++ {
		node, ok := next()
		if !ok || e.Kind == errs.NoCapacity && node == last {
			break
		}
		_, err := node.Invoke(ctx, req, nil)
		if err == nil {
			return nil
		}
		last, e = node, errs.From(err)
		another := try == 0 && e.Kind == errs.OutOfMemory // calls in the same sandbox may have used it up, and nothing of the code has run
		if !mayRepeat(e, req) && !another || ctx.Err() != nil || !time.Now().Before(req.Deadline) {
			break
		}
	}
	return e
}

// uncompiled says of which code it is that e is the failure. Nothing of it has run.
func uncompiled(name string, e *errs.Error) *errs.Error {
	out := *e
	out.Started = errs.StartedNo
	switch e.Kind {
	case errs.LoadError:
		out.Message = name + " does not compile" + place(e.Thrown)
	case errs.Timeout:
		out.Message = fmt.Sprintf("%s was not compiled within %v: the tenant's sandbox is busy; nothing was deployed, try again", name, compileTime)
	case errs.OutOfMemory:
		out.Message = name + " does not compile in the memory that the tenant's sandboxes have; nothing was deployed"
	default:
		out.Message = name + " could not be compiled, and nothing was deployed: " + e.Message
	}
	return &out
}

func place(t *errs.Thrown) string {
	switch {
	case t == nil || t.Line == 0:
		return ""
	case t.Column == 0:
		return fmt.Sprintf(": line %d", t.Line)
	}
	return fmt.Sprintf(": line %d, column %d", t.Line, t.Column)
}
