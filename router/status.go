package router

import (
	"errors"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/call"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// errorDomain is ErrorInfo's.
const errorDomain = "paddock"

// grpcStatus turns a failure into a status with google.rpc.ErrorInfo, and RetryInfo where there is a time. Kinds that
// stand in the answer itself where there is one (user_error …) are Unknown here: OK would hide them.
func grpcStatus(err error, id call.ID) error {
	e := errs.From(err)
	code := errs.Lookup(e.Kind).GRPC
	if code == codes.OK {
		code = codes.Unknown
	}
	st := status.New(code, validText(publicText(e, id)))
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: string(e.Kind), Domain: errorDomain,
		Metadata: map[string]string{
			"started": string(e.WhetherStarted()), "fault": string(e.WhoseFault()), "cause": e.Cause, "call_id": string(id),
		},
	}}
	if e.Kind == errs.LoadError && e.Thrown != nil { // short, unlike a stack: trailers are
		details = append(details, protoadapt.MessageV1Of(thrown(e.Thrown)))
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st.Err()
}

// kindsByCode reads the statuses of services that do not speak in our kinds.
var kindsByCode = map[codes.Code]errs.Kind{
	codes.InvalidArgument: errs.Invalid, codes.OutOfRange: errs.Invalid, codes.FailedPrecondition: errs.Conflict,
	codes.NotFound: errs.NotFound, codes.AlreadyExists: errs.Conflict, codes.Aborted: errs.Conflict,
	codes.PermissionDenied: errs.Denied, codes.Unauthenticated: errs.Unauthenticated,
	codes.ResourceExhausted: errs.Limited, codes.Unavailable: errs.NoCapacity, codes.DeadlineExceeded: errs.Timeout,
	codes.Canceled: errs.Cancelled, codes.Unimplemented: errs.NotFound,
}

// fromService returns what a management service answered as one of our errors.
func fromService(err error) error {
	if err == nil {
		return nil
	}
	var own *errs.Error
	if errors.As(err, &own) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok || st.Code() == codes.Unknown || st.Code() == codes.Internal {
		return errs.From(err)
	}
	kind, ok := kindsByCode[st.Code()]
	if !ok {
		return errs.From(err)
	}
	e := &errs.Error{Kind: kind, Message: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Cause = d.Metadata["cause"]
			e.Started = errs.Started(d.Metadata["started"])
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		}
	}
	return e
}

// callError is a failure in the answer itself.
func callError(e *errs.Error, id call.ID) *pb.CallError {
	out := &pb.CallError{
		Kind: string(e.Kind), Message: validText(publicText(e, id)), Started: string(e.WhetherStarted()), Fault: string(e.WhoseFault()),
		Cause: e.Cause,
	}
	if e.Thrown != nil {
		out.Thrown = thrown(e.Thrown)
	}
	if e.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return out
}

func thrown(what *errs.Thrown) *pb.Thrown {
	t := validThrown(*what)
	return &pb.Thrown{
		Name: t.Name, Message: t.Message, Stack: t.Stack, Code: t.Code, Denied: t.Denied, Line: int32(t.Line), Column: int32(t.Column),
		Excerpt: t.Excerpt,
	}
}

func retryField(d time.Duration) string { return strconv.FormatInt(retrySeconds(d), 10) }
