package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// The exit codes, by whose it is to mend.
const (
	exitOK       = 0
	exitUser     = 1 // the code that ran failed
	exitUsage    = 2 // the command or the request is wrong, or not allowed
	exitPlatform = 3 // Paddock, the machine or the way there
)

// exitError is an error that knows the exit code it deserves.
type exitError struct {
	code   int
	err    error
	silent bool // has been shown already
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) *exitError {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

func platformError(format string, args ...any) *exitError {
	return &exitError{code: exitPlatform, err: fmt.Errorf(format, args...)}
}

// runE makes a command's body return only errors that know their exit code.
func runE(body func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := body(cmd, args); err != nil {
			return classify(err)
		}
		return nil
	}
}

// classify finds the exit code of an error that comes from a call, from the file system or from ourselves.
func classify(err error) *exitError {
	var known *exitError
	if errors.As(err, &known) {
		return known
	}
	var failure *errs.Error
	if errors.As(err, &failure) {
		return &exitError{code: codeOfFault(failure.WhoseFault()), err: errors.New(failure.Message)}
	}
	if st, ok := status.FromError(err); ok {
		return &exitError{code: codeOfStatus(st), err: errors.New(textOfStatus(st))}
	}
	if errors.Is(err, context.Canceled) {
		return &exitError{code: exitUsage, err: errors.New("interrupted")}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return &exitError{code: exitUsage, err: err}
	}
	return &exitError{code: exitPlatform, err: err}
}

func codeOfFault(f errs.Fault) int {
	switch f {
	case errs.FaultTenant:
		return exitUser
	case errs.FaultCaller:
		return exitUsage
	}
	return exitPlatform
}

// codeOfStatus prefers what the server says of the fault; a status that did not come from the server has only its code.
func codeOfStatus(st *status.Status) int {
	for _, d := range st.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok {
			continue
		}
		if f := info.GetMetadata()["fault"]; f != "" {
			return codeOfFault(errs.Fault(f))
		}
	}
	switch st.Code() {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.Aborted, codes.Unauthenticated,
		codes.PermissionDenied, codes.ResourceExhausted, codes.FailedPrecondition, codes.OutOfRange, codes.Canceled:
		return exitUsage
	case codes.DeadlineExceeded:
		return exitUser
	}
	return exitPlatform
}

// reasonOfWay takes out of what gRPC says of its own insides what somebody else can use.
func reasonOfWay(text string) string {
	_, quoted, ok := strings.Cut(text, "desc = ")
	if !ok {
		return text
	}
	if quoted, err := strconv.QuotedPrefix(quoted); err == nil {
		if why, err := strconv.Unquote(quoted); err == nil {
			text = strings.TrimPrefix(strings.TrimPrefix(why, "transport: "), "Error while dialing: ")
		}
	}
	return text
}

// textOfWay says what kept a request from the service.
func textOfWay(text string) string {
	text = reasonOfWay(text)
	remedy := "is this where it serves? say where with --url or PADDOCK_URL"
	switch {
	case strings.Contains(text, "tls: ") || strings.Contains(text, "x509: "):
		remedy = "name the authority that signed its certificate with --ca, or use http:// if it serves without TLS"
	case strings.Contains(text, "server preface"):
		remedy = "if it serves with TLS, use https://"
	}
	return fmt.Sprintf("the service was not reached: %s; %s", text, remedy)
}

func textOfStatus(st *status.Status) string {
	text := st.Message()
	if st.Code() == codes.Unavailable && len(st.Details()) == 0 { // nothing that the service says comes without
		return textOfWay(text)
	}
	for _, d := range st.Details() {
		if th, ok := d.(*pb.Thrown); ok {
			text += "\n" + placeText(th) // of several files it says which
		}
		if retry, ok := d.(*errdetails.RetryInfo); ok && retry.GetRetryDelay() != nil {
			text += fmt.Sprintf(" (try again in %s)", retry.GetRetryDelay().AsDuration())
		}
	}
	switch {
	case strings.Contains(text, "Paddock-Tenant"):
		text += " (--tenant or PADDOCK_TENANT)"
	case st.Code() == codes.Unauthenticated:
		text += "; give a key with --key or PADDOCK_KEY"
	case st.Code() == codes.Canceled:
		text = "interrupted"
	}
	return text
}
