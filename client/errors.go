package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "paddock/proto/paddock/v1"
)

// Kind says what sort of failure it is. Switch on it; a later service may have kinds that this package has no name for.
type Kind string

// The kinds. docs/api.md says more of each.
const (
	UserError       Kind = "user_error"       // the code threw, rejected or called back an error: Error.Thrown
	Refused         Kind = "refused"          // a step of a pipeline denied access: an outcome
	LoadError       Kind = "load_error"       // the code does not compile: Error.Thrown has line and column
	Timeout         Kind = "timeout"          // the time was up
	OutOfMemory     Kind = "out_of_memory"    // the code used more than it may
	OutputTooLarge  Kind = "output_too_large" // the value is larger than it may be
	SandboxLost     Kind = "sandbox_lost"     // the container ended before the call did
	Limited         Kind = "limited"          // a limit of the tenant's: Error.Cause says which
	NoCapacity      Kind = "no_capacity"      // nothing could take the call in time, or the service was not reached
	NotFound        Kind = "not_found"        // there is no such thing
	Invalid         Kind = "invalid"          // the request is not as it must be
	Conflict        Kind = "conflict"         // the thing exists, or has changed since it was read
	Unauthenticated Kind = "unauthenticated"  // no key, or one that does not count
	Denied          Kind = "denied"           // the key may not do that
	Cancelled       Kind = "cancelled"        // the context was cancelled
	Internal        Kind = "internal"         // the service failed, or the connection to it
)

// Started says whether the code of a call may have begun to run.
type Started string

// Values of Started.
const (
	StartedNo    Started = "no"
	StartedMaybe Started = "maybe"
	StartedYes   Started = "yes"
)

// Error is a failure as the service tells it, or of the way to the service. errors.Is finds context.DeadlineExceeded in each Timeout, the
// service's own too, which come a little before the context's, and context.Canceled in those Cancelled that are the caller's own.
type Error struct {
	Kind       Kind
	Message    string // what happened, to what, what to do
	Started    Started
	Fault      string        // who can mend it: tenant, caller or platform; "" where nobody said
	Cause      string        // of Limited and SandboxLost
	CallID     string        // under which the service's log has it; "" if it never came there
	RetryAfter time.Duration // 0: none stated
	Thrown     *Thrown       // what the code threw or its compiler said; nil if nothing
	Err        error         // of the transport

	final bool // not to be repeated: the body of the request is consumed
}

// Error says kind, what happened and the call.
func (e *Error) Error() string {
	text := e.Message
	if e.Thrown != nil {
		text = e.Thrown.GetName() + ": " + e.Thrown.GetMessage()
		if line := e.Thrown.GetLine(); line > 0 {
			text = fmt.Sprintf("%s (line %d, column %d)", text, line, e.Thrown.GetColumn())
		}
	}
	if e.CallID != "" {
		text += " (call " + e.CallID + ")"
	}
	return "paddock: " + string(e.Kind) + ": " + text
}

// Is implements errors.Is.
func (e *Error) Is(target error) bool { return e.Kind == Timeout && target == context.DeadlineExceeded }

// Unwrap returns what the transport said.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of an error of this package, "" of nil and Internal of others.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	}
	return Internal
}

// repeatable says whether a failure is one that goes away, of a call that has not started.
func (e *Error) repeatable() bool {
	return e.Started == StartedNo && !e.final && (e.Kind == Limited || e.Kind == NoCapacity)
}

// ErrorOf reads what a service on Client.Conn answered. nil stays nil, an *Error as it is.
func ErrorOf(err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return errorOfStatus(err, true)
}

// errorInAnswer reads a failure that stands in the answer itself.
func errorInAnswer(e *pb.CallError, id string) *Error {
	return &Error{
		Kind: Kind(e.GetKind()), Message: e.GetMessage(), Started: Started(e.GetStarted()), Fault: e.GetFault(), Cause: e.GetCause(),
		CallID: id, RetryAfter: e.GetRetryAfter().AsDuration(), Thrown: e.GetThrown(),
	}
}

// errorOfStatus reads a status. left says that something of the request has left for the service: where the service did not
// speak itself, that decides whether it may have started.
func errorOfStatus(err error, left bool) *Error {
	st := status.Convert(err)
	e := &Error{Kind: kindOfCode(st.Code()), Message: st.Message(), Started: StartedMaybe, Err: err}
	if !left {
		e.Started = StartedNo
	} else if e.Kind == NoCapacity { // only the service's own word is that nothing has started
		e.Kind, e.Message = Internal, "the connection to the service was lost before the answer came: "+st.Message()
	}
	switch st.Code() {
	case codes.Canceled:
		e.Err = errors.Join(context.Canceled, err)
	case codes.DeadlineExceeded:
		e.Err = errors.Join(context.DeadlineExceeded, err)
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			said := d.GetMetadata()
			e.Kind, e.Message, e.Err = Kind(d.GetReason()), st.Message(), err
			e.Started, e.Fault, e.Cause, e.CallID = Started(said["started"]), said["fault"], said["cause"], said["call_id"]
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		case *pb.Thrown:
			e.Thrown = d
		}
	}
	return e
}

// kindOfCode is the kind of a status that says no kind itself: gRPC's own, or a proxy's.
func kindOfCode(c codes.Code) Kind {
	switch c {
	case codes.DeadlineExceeded:
		return Timeout
	case codes.Canceled:
		return Cancelled
	case codes.Unavailable:
		return NoCapacity
	case codes.InvalidArgument, codes.OutOfRange:
		return Invalid
	case codes.NotFound, codes.Unimplemented:
		return NotFound
	case codes.AlreadyExists, codes.Aborted, codes.FailedPrecondition:
		return Conflict
	case codes.PermissionDenied:
		return Denied
	case codes.Unauthenticated:
		return Unauthenticated
	case codes.ResourceExhausted: // an answer larger than MaxAnswerBytes
		return OutputTooLarge
	}
	return Internal
}

// errorOfContext is the failure of a call that its caller gave up.
func errorOfContext(ctx context.Context, started Started) *Error {
	e := &Error{Kind: Cancelled, Message: "the context was cancelled before the answer came", Started: started, Err: ctx.Err()}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e.Kind, e.Message = Timeout, "the context's deadline passed before the answer came"
	}
	return e
}
