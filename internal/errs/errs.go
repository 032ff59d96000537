// Package errs is the one table of failures: a kind decides HTTP status, gRPC code, whose fault it is and whether the call may
// have started. The user's text (Message) and the operator's text (the wrapped error) are different fields. It writes no
// response and logs nothing.
package errs

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
)

// Kind decides how a failure is treated.
type Kind string

// The kinds.
const (
	UserError       Kind = "user_error"
	Refused         Kind = "refused" // a pipeline's code denied access: an outcome, never subject to a policy
	LoadError       Kind = "load_error"
	Timeout         Kind = "timeout"
	OutOfMemory     Kind = "out_of_memory"
	OutputTooLarge  Kind = "output_too_large"
	SandboxLost     Kind = "sandbox_lost"
	Limited         Kind = "limited"
	NoCapacity      Kind = "no_capacity"
	NotFound        Kind = "not_found"
	Invalid         Kind = "invalid"
	Conflict        Kind = "conflict" // a guarded write lost: the thing exists, or changed since it was read
	Unauthenticated Kind = "unauthenticated"
	Denied          Kind = "denied"
	Cancelled       Kind = "cancelled" // the caller went away
	Internal        Kind = "internal"
)

// Causes of no_capacity by which a controller sends a call to another one; nothing has started.
const (
	CauseMoved    = "moved"    // the tenant is served elsewhere
	CauseDraining = "draining" // the controller takes no new work
	CauseFull     = "full"     // the tenant's containers there have as many calls as they take, and it may have no more of them there
)

// Started says whether the caller's code may have begun to run.
type Started string

// Values of Started.
const (
	StartedNo    Started = "no"
	StartedMaybe Started = "maybe"
	StartedYes   Started = "yes"
)

// Fault says who can mend it.
type Fault string

// Values of Fault.
const (
	FaultTenant   Fault = "tenant"
	FaultCaller   Fault = "caller"
	FaultPlatform Fault = "platform"
)

// Row is a kind's line in the table.
type Row struct {
	HTTP    int
	GRPC    codes.Code
	Started Started // default; an Error may narrow it to StartedNo
	Fault   Fault   // default; the cause may change it
	Title   string
	// InBand: over gRPC the call itself is OK and the failure stands in the response's error field.
	InBand bool
}

var table = map[Kind]Row{
	UserError:       {HTTP: 500, GRPC: codes.OK, Started: StartedYes, Fault: FaultTenant, Title: "The code failed", InBand: true},
	Refused:         {HTTP: 403, GRPC: codes.OK, Started: StartedYes, Fault: FaultTenant, Title: "The code refused", InBand: true},
	LoadError:       {HTTP: 422, GRPC: codes.OK, Started: StartedNo, Fault: FaultTenant, Title: "The code does not compile", InBand: true},
	Timeout:         {HTTP: 504, GRPC: codes.DeadlineExceeded, Started: StartedMaybe, Fault: FaultTenant, Title: "The deadline passed"},
	OutOfMemory:     {HTTP: 500, GRPC: codes.OK, Started: StartedYes, Fault: FaultTenant, Title: "The code ran out of memory", InBand: true},
	OutputTooLarge:  {HTTP: 500, GRPC: codes.OK, Started: StartedYes, Fault: FaultTenant, Title: "The answer is too large", InBand: true},
	SandboxLost:     {HTTP: 502, GRPC: codes.Unknown, Started: StartedMaybe, Fault: FaultTenant, Title: "The sandbox was lost"},
	Limited:         {HTTP: 429, GRPC: codes.ResourceExhausted, Started: StartedNo, Fault: FaultCaller, Title: "A limit was reached"},
	NoCapacity:      {HTTP: 503, GRPC: codes.Unavailable, Started: StartedNo, Fault: FaultPlatform, Title: "No capacity"},
	NotFound:        {HTTP: 404, GRPC: codes.NotFound, Started: StartedNo, Fault: FaultCaller, Title: "Not found"},
	Invalid:         {HTTP: 400, GRPC: codes.InvalidArgument, Started: StartedNo, Fault: FaultCaller, Title: "The request is not valid"},
	Conflict:        {HTTP: 409, GRPC: codes.Aborted, Started: StartedNo, Fault: FaultCaller, Title: "The thing exists or has changed"},
	Unauthenticated: {HTTP: 401, GRPC: codes.Unauthenticated, Started: StartedNo, Fault: FaultCaller, Title: "Not authenticated"},
	Denied:          {HTTP: 403, GRPC: codes.PermissionDenied, Started: StartedNo, Fault: FaultCaller, Title: "Not allowed"},
	Cancelled:       {HTTP: 499, GRPC: codes.Canceled, Started: StartedMaybe, Fault: FaultCaller, Title: "The caller went away"},
	Internal:        {HTTP: 500, GRPC: codes.Internal, Started: StartedMaybe, Fault: FaultPlatform, Title: "Internal error"},
}

// Lookup returns a kind's row; an unknown kind is Internal's.
func Lookup(k Kind) Row {
	if r, ok := table[k]; ok {
		return r
	}
	return table[Internal]
}

// Kinds lists all kinds of the table, in no order.
func Kinds() []Kind {
	all := make([]Kind, 0, len(table))
	for k := range table {
		all = append(all, k)
	}
	return all
}

// Thrown is what the tenant's code threw, or what its compiler said. Every field is the tenant's own text: bounded,
// hostile, never for the operator's eyes as anything but quoted data.
type Thrown struct {
	Name       string `json:"name,omitempty"`
	Message    string `json:"message,omitempty"`
	Stack      string `json:"stack,omitempty"`
	Code       string `json:"code,omitempty"`
	StatusCode int    `json:"statusCode,omitempty"`
	Denied     bool   `json:"denied,omitempty"` // UnauthorizedError: an outcome, never subject to a policy
	Line       int    `json:"line,omitempty"`   // from 1, load errors
	Column     int    `json:"column,omitempty"` // from 1
	Excerpt    string `json:"excerpt,omitempty"`
}

// Error is a failure on its way to the caller. Make one with New or Wrap.
type Error struct {
	Kind       Kind
	Message    string  // for the caller: what happened, to what, what to do
	Started    Started // empty: the kind's default
	Fault      Fault   // empty: the kind's default
	Cause      string  // sandbox_lost: crashed, pids, protocol, killed, controller; limited: rate, concurrency, claims, quarantine
	Thrown     *Thrown
	RetryAfter time.Duration // 0 = none given
	Op         string        // where, for the log
	Err        error         // for the operator's log only
}

// New makes an Error of a kind with the caller's text.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes an Error whose operator's text is err; the caller sees only the formatted message.
func Wrap(k Kind, op string, err error, format string, args ...any) *Error {
	return &Error{Kind: k, Op: op, Err: err, Message: fmt.Sprintf(format, args...)}
}

// Error returns the operator's text.
func (e *Error) Error() string {
	s := string(e.Kind)
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Cause != "" {
		s += " (" + e.Cause + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// WhetherStarted returns Started, or the kind's default.
func (e *Error) WhetherStarted() Started {
	if e.Started != "" {
		return e.Started
	}
	return Lookup(e.Kind).Started
}

// WhoseFault returns Fault, or the kind's default.
func (e *Error) WhoseFault() Fault {
	if e.Fault != "" {
		return e.Fault
	}
	return Lookup(e.Kind).Fault
}

// HTTPStatus returns the kind's status.
func (e *Error) HTTPStatus() int { return Lookup(e.Kind).HTTP }

// From returns err as an *Error: itself if it is or wraps one, else an Internal one whose cause is for the log only. nil
// stays nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Internal, Message: "something went wrong inside Paddock; the operator's log has the details", Err: err}
}

// KindOf returns the kind of From(err), or "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	return From(err).Kind
}

// Is says whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
