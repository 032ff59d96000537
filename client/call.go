package client

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "paddock/proto/paddock/v1"
)

// The messages of calls, as the service defines them.
type (
	// Result is what came of a call: output, logs, stages, the container that served it, a pipeline's steps.
	Result = pb.InvokeResponse
	// Thrown is what the code threw, or its compiler said.
	Thrown = pb.Thrown
	// LogLine is a line of a code's log.
	LogLine = pb.LogLine
	// StepResult is what became of a step of a pipeline.
	StepResult = pb.StepResult
	// Source is text to run once.
	Source = pb.Source
	// Draft is a pipeline that is not stored, to run once.
	Draft = pb.Draft
)

// Call is one call. Exactly one of Function, Pipeline, Source and Draft is set.
type Call struct {
	Function string // "name" or "name@version"
	Pipeline string
	Source   *Source
	Draft    *Draft

	// Input is JSON; empty means null. It must not be changed any more: a Stream may still be sending what Do has given up.
	Input json.RawMessage
	// Timeout bounds the call; it must be at most the tenant's maximum. 0: the context's deadline, which the tenant's maximum
	// shortens, or else the tenant's usual one. On a Stream the context only shortens: there 0 is the tenant's usual one.
	Timeout time.Duration
	// Fresh runs it in a container of its own, which is destroyed before the answer comes.
	Fresh bool
	// Idempotent lets the service repeat it although it may have started. This package does not.
	Idempotent bool
	// WithLogs asks for its log lines, in the result.
	WithLogs bool
	// OnLog, if set, gets its log lines instead, on a Stream as they come. It must not block.
	OnLog func(*LogLine)
	// MinRevision makes the service wait until it has seen that revision: the one that a write returned.
	MinRevision int64
}

// Caller runs calls: a Client, one request each, or a Stream.
type Caller interface {
	Do(ctx context.Context, call Call) (*Result, error)
}

var (
	_ Caller = (*Client)(nil)
	_ Caller = (*Stream)(nil)
)

// message is the call as it is sent.
func (c *Call) message() (*pb.InvokeRequest, error) {
	m := &pb.InvokeRequest{
		Input: c.Input, Fresh: c.Fresh, Idempotent: c.Idempotent, WithLogs: c.WithLogs || c.OnLog != nil, MinRevision: c.MinRevision,
	}
	if c.Timeout != 0 {
		m.Timeout = durationpb.New(c.Timeout)
	}
	targets := 0
	if c.Function != "" {
		targets++
		m.Target = &pb.InvokeRequest_Function{Function: c.Function}
	}
	if c.Pipeline != "" {
		targets++
		m.Target = &pb.InvokeRequest_Pipeline{Pipeline: c.Pipeline}
	}
	if c.Source != nil {
		targets++
		m.Target = &pb.InvokeRequest_Source{Source: c.Source}
	}
	if c.Draft != nil {
		targets++
		m.Target = &pb.InvokeRequest_Draft{Draft: c.Draft}
	}
	if targets != 1 {
		return nil, invalid("a call has exactly one of Function, Pipeline, Source and Draft")
	}
	return m, nil
}

// invalid is the failure of a request that is not sent.
func invalid(text string) *Error {
	return &Error{Kind: Invalid, Message: text, Started: StartedNo, Fault: "caller"}
}

// logs hands the lines of a result to OnLog.
func (c *Call) logs(res *Result) {
	if c.OnLog == nil || res == nil {
		return
	}
	for _, l := range res.Logs {
		c.OnLog(l)
	}
	res.Logs = nil
}

// outcome is the failure that stands in an answer, nil if none does.
func outcome(res *Result) *Error {
	if e := res.GetError(); e != nil {
		return errorInAnswer(e, res.GetCallId())
	}
	return nil
}

// Do runs a call. Failures are *Error; with one of the code's own the result is there as well.
func (c *Client) Do(ctx context.Context, call Call) (res *Result, err error) {
	m, err := call.message()
	if err != nil {
		return nil, err
	}
	err = c.repeat(ctx, func(ctx context.Context) *Error {
		ctx, gone := withDeparture(ctx)
		var err error
		if res, err = pb.NewSandboxClient(c.conn).Invoke(ctx, m); err != nil {
			res = nil
			return errorOfStatus(err, gone.left.Load())
		}
		return outcome(res)
	})
	call.logs(res)
	return res, err
}

// Invoke runs a function ("name" or "name@version") with an input, JSON, and returns its value, JSON.
func (c *Client) Invoke(ctx context.Context, function string, input json.RawMessage) (json.RawMessage, error) {
	return valueOf(c.Do(ctx, Call{Function: function, Input: input}))
}

// Pipeline runs a pipeline with an input, JSON, and returns its value, JSON. A step that denies access is a failure of the
// kind Refused.
func (c *Client) Pipeline(ctx context.Context, pipeline string, input json.RawMessage) (json.RawMessage, error) {
	return valueOf(c.Do(ctx, Call{Pipeline: pipeline, Input: input}))
}

// Run runs JavaScript text once with an input, JSON, and returns its value, JSON.
func (c *Client) Run(ctx context.Context, source string, input json.RawMessage) (json.RawMessage, error) {
	return valueOf(c.Do(ctx, Call{Source: &Source{Code: []byte(source)}, Input: input}))
}

func valueOf(res *Result, err error) (json.RawMessage, error) {
	if err != nil {
		return nil, err
	}
	return res.GetOutput(), nil
}

// Func is a deployed function as a Go function: the input goes out and the value comes back as JSON. A value that does not fit
// Out is an *Error of the kind Invalid that says StartedYes.
func Func[In, Out any](c Caller, function string) func(context.Context, In) (Out, error) {
	return typed[In, Out](c, Call{Function: function})
}

// PipelineFunc is Func of a pipeline.
func PipelineFunc[In, Out any](c Caller, pipeline string) func(context.Context, In) (Out, error) {
	return typed[In, Out](c, Call{Pipeline: pipeline})
}

func typed[In, Out any](c Caller, call Call) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (out Out, err error) {
		call := call // several calls at once each have their own input
		if call.Input, err = json.Marshal(in); err != nil {
			e := invalid("the input cannot be JSON: " + err.Error())
			e.Err = err
			return out, e
		}
		res, err := c.Do(ctx, call)
		if err != nil {
			return out, err
		}
		if err := json.Unmarshal(res.GetOutput(), &out); err != nil {
			return out, &Error{Kind: Invalid, Message: "the value is not what was expected: " + err.Error(), Started: StartedYes,
				Fault: "caller", CallID: res.GetCallId(), Err: err}
		}
		return out, nil
	}
}
