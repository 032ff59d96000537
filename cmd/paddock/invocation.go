package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/cmd/paddock/bundle"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// callFlags are what `run` and `invoke` share.
type callFlags struct {
	input      string
	timeout    time.Duration
	timeoutSet bool
	fresh      bool
	idempotent bool
}

// call runs one call and prints its logs as they come, then its value or its failure. It goes over a stream because there
// logs arrive while the code runs and a failure of every kind comes with all its fields.
func (a *app) call(ctx context.Context, f callFlags, req *pb.InvokeRequest) error {
	input, err := a.readInput(f.input)
	if err != nil {
		return err
	}
	req.Input, req.Fresh, req.Idempotent, req.WithLogs = input, f.fresh, f.idempotent, true
	if f.timeoutSet {
		req.Timeout = durationpb.New(f.timeout)
	}
	return a.withTenant(ctx, func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
		began := time.Now()
		resp, err := a.exchangeShowing(ctx, cc, req)
		if err != nil {
			return err
		}
		return a.answer(resp, time.Since(began))
	})
}

// exchangeShowing is exchange with the logs on standard error as they come, or in the answer where JSON is printed.
func (a *app) exchangeShowing(ctx context.Context, cc *grpc.ClientConn, req *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	var logs []*pb.LogLine
	shown := map[string]bool{}
	resp, err := exchange(ctx, cc, req, func(l *pb.LogLine) {
		if a.jsonOut {
			logs = append(logs, l)
			return
		}
		a.printLog(l)
		shown[l.GetText()] = true
	})
	if err != nil {
		return nil, err
	}
	resp.Logs = append(logs, resp.Logs...)
	// What the runtime warns of stands in the log as well: once is enough.
	resp.Warnings = slices.DeleteFunc(resp.Warnings, func(w string) bool { return shown[w] })
	return resp, nil
}

// exchange sends the call and returns its outcome; onLog gets the lines that come before it.
func exchange(
	ctx context.Context, cc *grpc.ClientConn, req *pb.InvokeRequest, onLog func(*pb.LogLine),
) (*pb.InvokeResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewSandboxClient(cc).InvokeStream(ctx)
	if err != nil {
		return nil, err
	}
	const tag = 1
	if err := stream.Send(&pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: req}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, lostOnTheWay(err)
		}
		switch b := m.GetBody().(type) {
		case *pb.InvokeStreamResponse_Log:
			onLog(b.Log)
		case *pb.InvokeStreamResponse_Result:
			return b.Result, nil
		}
	}
}

// lostOnTheWay is the error of a call that was sent and whose answer cannot come any more.
func lostOnTheWay(err error) error {
	st, ok := status.FromError(err)
	switch {
	case errors.Is(err, io.EOF):
		return platformError("the service ended the stream without an answer: the call may have run (started: maybe)")
	case ok && st.Code() == codes.Unavailable && len(st.Details()) == 0:
		return platformError("the connection to the service was lost before the answer came: the call may have run (started: maybe); %s",
			reasonOfWay(st.Message()))
	}
	return err
}

// printLog shows a line of the code's log apart from its value.
func (a *app) printLog(l *pb.LogLine) {
	if l.GetDropped() > 0 {
		fmt.Fprintf(a.stderr, "… %s of log dropped\n", sizeText(l.GetDropped()))
	}
	fmt.Fprintf(a.stderr, "%-5s %s\n", l.GetLevel(), a.safeText(strings.TrimSuffix(l.GetText(), "\n")))
}

// answer prints the outcome of a call and returns its error, if it failed, as one that is shown already.
func (a *app) answer(r *pb.InvokeResponse, took time.Duration) error {
	if a.jsonOut {
		if err := a.printJSON(answerJSON(r)); err != nil {
			return err
		}
	} else {
		a.printAnswer(r, took)
	}
	if e := r.GetError(); e != nil {
		return &exitError{code: codeOfFault(errs.Fault(e.GetFault())), err: errors.New(e.GetMessage()), silent: true}
	}
	return nil
}

func (a *app) printAnswer(r *pb.InvokeResponse, took time.Duration) {
	for _, l := range r.GetLogs() {
		a.printLog(l)
	}
	for _, w := range r.GetWarnings() {
		fmt.Fprintf(a.stderr, "warning: %s\n", a.safeText(w))
	}
	fmt.Fprint(a.stderr, a.stepsText(r.GetSteps()))
	if e := r.GetError(); e != nil {
		a.printFailure(e)
	} else {
		a.printValue(r.GetOutput())
	}
	if a.stderrTTY {
		where := strings.Join(nonEmpty(r.GetStart(), r.GetIsolation()), ", ")
		fmt.Fprintf(a.stderr, "call %s: %s in the service, %s here (%s)\n", shortID(r.GetCallId()),
			brief(time.Duration(r.GetStages().GetTotalUs())*time.Microsecond), brief(took), orDash(where))
	}
}

// printValue prints the value, indented on a terminal and byte for byte elsewhere.
func (a *app) printValue(value []byte) {
	var b bytes.Buffer
	if !a.stdoutTTY || json.Indent(&b, value, "", "  ") != nil {
		b.Reset()
		b.Write(value)
	}
	text := b.String()
	if a.stdoutTTY {
		text = safe(text)
	}
	fmt.Fprintln(a.stdout, text)
}

// printFailure shows what the code threw, or the compiler said, as a programmer wants to read it.
func (a *app) printFailure(e *pb.CallError) {
	var b strings.Builder
	th := e.GetThrown()
	switch {
	case e.GetKind() == string(errs.LoadError) && th != nil:
		b.WriteString(placeText(th))
	case th != nil:
		fmt.Fprintf(&b, "%s: %s", orDefault(th.GetName(), "Error"), th.GetMessage())
		if th.GetCode() != "" {
			fmt.Fprintf(&b, " (%s)", th.GetCode())
		}
		b.WriteString(framesOf(th.GetStack()))
	default:
		b.WriteString(e.GetMessage())
	}
	fmt.Fprintf(a.stderr, "paddock: %s\n", a.safeText(b.String()))
	tail := e.GetKind()
	if e.GetCause() != "" {
		tail += " (" + e.GetCause() + ")"
	}
	if e.GetStarted() != "" {
		tail += ", started: " + e.GetStarted()
	}
	if e.GetRetryAfter() != nil {
		tail += fmt.Sprintf(", try again in %s", e.GetRetryAfter().AsDuration())
	}
	fmt.Fprintf(a.stderr, "%s\n", tail)
}

// placeText is what a compiler says, with the place and an excerpt.
func placeText(th *pb.Thrown) string {
	text := fmt.Sprintf("%s: %s", orDefault(th.GetName(), "SyntaxError"), th.GetMessage())
	if th.GetLine() > 0 {
		text += fmt.Sprintf(" (line %d, column %d)", th.GetLine(), th.GetColumn())
	}
	if th.GetExcerpt() != "" {
		text += fmt.Sprintf("\n\n%s\n", strings.TrimRight(th.GetExcerpt(), "\n"))
	}
	return text
}

// framesOf returns a stack's frames without the head that repeats name and message.
func framesOf(stack string) string {
	i := strings.Index(stack, "\n    at ")
	if i < 0 {
		return ""
	}
	return strings.TrimRight(stack[i:], "\n")
}

// readInput reads --input: JSON itself, @file, or - for standard input. It must be JSON: finding out here names the place.
func (a *app) readInput(input string) ([]byte, error) {
	var b []byte
	var err error
	switch file, isFile := strings.CutPrefix(input, "@"); {
	case input == "":
		return nil, nil
	case input == "-":
		b, err = io.ReadAll(a.stdin)
	case isFile:
		b, err = os.ReadFile(file)
	default:
		b = []byte(input)
	}
	if err != nil {
		return nil, usageError("input: %w", err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, usageError("input is not JSON: %w (a string needs its quotes: --input '\"text\"')", err)
	}
	return b, nil
}

// readSource reads a file of source text, or standard input for "-". Files that are not plain JavaScript are bundled.
func (a *app) readSource(file string) (b bundle.Result, name string, err error) {
	if file == "-" {
		if b.Code, err = io.ReadAll(a.stdin); err != nil {
			return b, "", usageError("source: %w", err)
		}
		return b, "stdin.js", nil
	}
	build, err := bundler()
	if err != nil {
		return b, "", err
	}
	if b, err = build(file); err != nil {
		return b, "", usageError("source: %w", err)
	}
	if b.Bundled && a.stderrTTY {
		fmt.Fprintf(a.stderr, "bundled %d files (%s)\n", len(b.Files), sizeText(int64(len(b.Code))))
	}
	return b, filepath.Base(file), nil
}

func nonEmpty(all ...string) (some []string) {
	for _, s := range all {
		if s != "" {
			some = append(some, s)
		}
	}
	return some
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
