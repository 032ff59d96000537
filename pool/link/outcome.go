package link

import (
	"context"
	"errors"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// RESULT's outcomes.
const (
	outcomeOK        = "ok"
	outcomeError     = "error"
	outcomeLoadError = "load_error"
	outcomeTooLarge  = "output_too_large"
	outcomeCancelled = "cancelled"
	outcomeInvalid   = "invalid"
	outcomeRefused   = "refused" // of a pipeline
	outcomeTimeout   = "timeout" // a step's own
)

func succeeded(outcome string) bool { return outcome == "" || outcome == outcomeOK }

func knownOutcome(s string, pipeline bool) bool {
	switch s {
	case "", outcomeOK, outcomeError, outcomeLoadError, outcomeTooLarge, outcomeCancelled, outcomeInvalid:
		return true
	case outcomeRefused, outcomeTimeout:
		return pipeline
	}
	return false
}

// outcome turns a complete answer into what Do returns, without secrets in what the agent said of it.
func (c *Conn) outcome(ctx context.Context, x *exchange) (*call.Result, *errs.Error) {
	r, e := c.answer(ctx, x)
	if e != nil {
		c.redactThrown(e)
		return nil, e
	}
	c.redactWarnings(r)
	return r, nil
}

// answer reads a complete answer. The reader writes nothing of what is read here any more.
func (c *Conn) answer(ctx context.Context, x *exchange) (*call.Result, *errs.Error) {
	if !x.answered {
		started := errs.StartedMaybe
		if !x.sent {
			started = errs.StartedNo
		}
		if x.stuck && x.clock.step == x.piped.next { // which is why it was lost
			return nil, stepTimeout(&x.req.Steps[x.clock.step])
		}
		return nil, lostError(x.lost, started)
	}
	if e := x.stepFailure(); e != nil {
		return nil, e
	}
	switch x.result.Outcome {
	case outcomeError:
		e := errs.New(errs.UserError, "the code failed; the error says how")
		e.Thrown = x.result.Error.thrown()
		if e.Thrown.Denied {
			e.Message = "the code denied access"
		}
		return nil, e
	case outcomeLoadError:
		return nil, loadError(x.result.Error)
	case outcomeTooLarge:
		return nil, tooLargeError(x)
	case outcomeInvalid:
		if x.piped != nil {
			return nil, errs.New(errs.Invalid, "the input is not what a pipeline takes: {\"user\": {…}, \"context\": {…}} for rules, "+
				"the event, a JSON object, for actions")
		}
		return nil, errs.New(errs.Invalid, "the input is not valid JSON")
	case outcomeCancelled: // by our own watch, while the sink was blocked
		if ctx.Err() != nil {
			return nil, contextError(ctx, x, errs.StartedMaybe)
		}
		return nil, timeoutError(x, errs.StartedMaybe)
	}
	return c.result(x), nil
}

func (c *Conn) result(x *exchange) *call.Result {
	const mostCPU = 1e12 // microseconds: eleven days is a lie
	r := &call.Result{
		Value: x.value, Streamed: x.headSeen, Container: c.o.Container, Warnings: x.result.Warnings,
		CPU: time.Duration(min(max(x.result.CPU, 0), mostCPU)) * time.Microsecond,
	}
	if !x.headSeen && r.Value == nil {
		r.Value = []byte{}
	}
	r.OutputBytes = x.streamed + int64(len(r.Value))
	r.Stages.Load = x.load
	r.Stages.Run = time.Since(x.invoked)
	return r
}

func timeoutError(x *exchange, started errs.Started) *errs.Error {
	e := errs.New(errs.Timeout, "the call did not end within its time (it had %v in the sandbox)",
		max(x.deadline.Sub(x.began), 0).Round(time.Millisecond))
	if started == errs.StartedNo {
		e.Message = "the call's time was over before its code could start"
		e.Fault = errs.FaultPlatform
	}
	e.Started = started
	return e
}

func contextError(ctx context.Context, x *exchange, started errs.Started) *errs.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timeoutError(x, started)
	}
	e := errs.Wrap(errs.Cancelled, "link.Do", context.Cause(ctx), "the caller went away before the answer was there")
	e.Started = started
	return e
}

func loadError(h *ErrorHead) *errs.Error {
	e := errs.New(errs.LoadError, "the code does not compile; the error says where")
	e.Started = errs.StartedNo
	e.Thrown = h.thrown()
	return e
}

func queueFullError() *errs.Error {
	return &errs.Error{
		Kind: errs.Limited, Cause: "link", RetryAfter: time.Second,
		Message: "the sandbox does not take its input as fast as it comes; try again",
	}
}

func exhaustedError() *errs.Error {
	return &errs.Error{Kind: errs.NoCapacity, RetryAfter: time.Second, Message: "the sandbox is being replaced; try again"}
}

func tooLargeError(x *exchange) *errs.Error {
	return errs.New(errs.OutputTooLarge, "the answer is larger than the %d bytes that are allowed", x.limits.maxOutput)
}

// lostError is for calls whose connection is over. For a plain loss the pool knows better why.
func lostError(err error, started errs.Started) *errs.Error {
	e := &errs.Error{Kind: errs.SandboxLost, Started: started, Op: "link.Do", Err: err}
	switch {
	case errors.Is(err, ErrBreach):
		e.Cause, e.Message = "protocol", "the sandbox broke the protocol that it speaks with Paddock and was destroyed"
	case errors.Is(err, ErrClosed):
		e.Cause, e.Message, e.Fault = "killed", "the sandbox was shut down during the call", errs.FaultPlatform
	default:
		e.Cause, e.Message = "crashed", "the sandbox ended during the call"
	}
	return e
}
