// Package nodewire turns calls, answers and failures into the messages that routers and controllers on different machines
// exchange, and back. It sends nothing and decides nothing: controller/noderpc serves, router/remote asks.
package nodewire

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Versions of the protocol between routers and controllers. A version is spoken by the next one as well, so that a service can be
// upgraded process by process, in any order: what a version adds are fields that the one before passes over, and whose absence says what
// it did. 1 is what said nothing of versions; 2 adds the refusals by which a controller gives a tenant up.
const (
	Protocol       = 2
	OldestProtocol = 1
)

// Understands says whether a peer that speaks the versions from oldest to newest, 0 being 1, has one in common with this process.
func Understands(newest, oldest int32) bool {
	return max(newest, 1) >= OldestProtocol && max(oldest, 1) <= Protocol
}

// NothingTaken is the status of a stream that the controller ended between two calls: one that was under way has not started.
const NothingTaken = codes.Aborted

// PartBytes is how much of a body, of code or of a value goes in one message.
const PartBytes = 256 << 10

// Call is the head of a call without sources and body. Deadlines travel as what is left of them; under a millisecond is one.
func Call(req *call.Request, now time.Time) *pb.NodeCall {
	out := &pb.NodeCall{
		Id: string(req.ID), Tenant: string(req.Tenant), Runtime: req.Runtime, Function: req.Function, Version: req.Version,
		Code: codeRef(&req.Code), Pipeline: req.Pipeline, Revision: req.Revision, Fresh: req.Fresh, Idempotent: req.Idempotent,
		Secrets: secrets(req.Secrets, req.SecretsRev), Outside: req.Outside, Config: req.Config, Extra: req.Extra, Spill: req.Spill,
		RemainingMs: max(1, req.Deadline.Sub(now).Milliseconds()), CompileOnly: req.CompileOnly,
	}
	for i := range req.Steps {
		out.Steps = append(out.Steps, step(&req.Steps[i]))
	}
	if req.Via == call.ViaHTTP && req.HTTP != nil {
		out.Http = &pb.HTTPHead{Method: req.HTTP.Method, Url: req.HTTP.URL, Headers: Headers(req.HTTP.Headers)}
	}
	return out
}

// Request is what Call made of a request, its deadline counted from now. Sources and body are the caller's to add.
func Request(c *pb.NodeCall, now time.Time) (*call.Request, error) {
	id, err := tenant.ParseID(c.GetTenant())
	if err != nil {
		return nil, errs.Wrap(errs.Internal, "node call", err, "a router sent a call of no tenant")
	}
	req := &call.Request{
		ID: call.ID(c.GetId()), Tenant: id, Runtime: c.GetRuntime(), Function: c.GetFunction(), Version: c.GetVersion(),
		Code: code(c.GetCode()), Pipeline: c.GetPipeline(), Revision: c.GetRevision(), Fresh: c.GetFresh(),
		Idempotent: c.GetIdempotent(), Secrets: c.GetSecrets().GetValues(), SecretsRev: c.GetSecrets().GetRevision(),
		CompileOnly: c.GetCompileOnly(), Outside: c.GetOutside(), Config: c.GetConfig(), Extra: c.GetExtra(), Spill: c.GetSpill(), Deadline: now.Add(time.Duration(c.GetRemainingMs()) * time.Millisecond),
	}
	for _, s := range c.GetSteps() {
		req.Steps = append(req.Steps, stepOf(s))
	}
	if h := c.GetHttp(); h != nil {
		req.Via = call.ViaHTTP
		req.HTTP = &call.HTTPHead{Method: h.GetMethod(), URL: h.GetUrl(), Headers: HeadersOf(h.GetHeaders())}
	}
	return req, nil
}

// Codes calls f with each piece of code that a request names, in the order in which it runs.
func Codes(req *call.Request, f func(*call.Code)) {
	if len(req.Steps) == 0 {
		f(&req.Code)
		return
	}
	for i := range req.Steps {
		f(&req.Steps[i].Code)
		if fallback := req.Steps[i].Fallback; fallback != nil {
			f(&fallback.Code)
		}
	}
}

func secrets(values map[string]string, revision string) *pb.Secrets {
	if values == nil && revision == "" {
		return nil
	}
	return &pb.Secrets{Values: values, Revision: revision}
}

func codeRef(c *call.Code) *pb.CodeRef {
	return &pb.CodeRef{Hash: c.Hash, Kind: string(c.Kind), Name: c.Name}
}

func code(r *pb.CodeRef) call.Code {
	return call.Code{Hash: r.GetHash(), Kind: call.Kind(r.GetKind()), Name: r.GetName()}
}

func step(s *call.Step) *pb.NodeStep {
	out := &pb.NodeStep{
		Function: s.Function, Version: s.Version, Code: codeRef(&s.Code), TimeoutMs: s.Timeout.Milliseconds(),
		OnFailure: string(s.OnFailure), Secrets: secrets(s.Secrets, s.SecretsRev),
	}
	if s.Fallback != nil {
		out.FallbackVersion, out.Fallback = s.Fallback.Version, codeRef(&s.Fallback.Code)
	}
	return out
}

func stepOf(s *pb.NodeStep) call.Step {
	out := call.Step{
		Function: s.GetFunction(), Version: s.GetVersion(), Code: code(s.GetCode()),
		Timeout: time.Duration(s.GetTimeoutMs()) * time.Millisecond, OnFailure: call.FailurePolicy(s.GetOnFailure()),
		Secrets: s.GetSecrets().GetValues(), SecretsRev: s.GetSecrets().GetRevision(),
	}
	if s.GetFallback() != nil {
		out.Fallback = &call.Fallback{Version: s.GetFallbackVersion(), Code: code(s.GetFallback())}
	}
	return out
}

// Headers turns header fields into messages.
func Headers(all []call.Header) []*pb.HeaderField {
	out := make([]*pb.HeaderField, len(all))
	for i, h := range all {
		out[i] = &pb.HeaderField{Name: h.Name, Value: h.Value}
	}
	return out
}

// HeadersOf turns messages into header fields.
func HeadersOf(all []*pb.HeaderField) []call.Header {
	out := make([]call.Header, len(all))
	for i, h := range all {
		out[i] = call.Header{Name: h.GetName(), Value: h.GetValue()}
	}
	return out
}

// Result is an answer, without a value that goes before it.
func Result(res *call.Result, e *errs.Error) *pb.NodeResult {
	out := &pb.NodeResult{}
	if e != nil {
		out.Error = Failure(e)
		if e.Err != nil || e.Op != "" {
			out.Detail = e.Error()
		}
	}
	if res == nil {
		return out
	}
	out.Value, out.Streamed, out.Container, out.Start = res.Value, res.Streamed, string(res.Container), string(res.Start)
	out.Isolation, out.CpuUs, out.Warnings = string(res.Isolation), res.CPU.Microseconds(), res.Warnings
	s := res.Stages
	out.Stages = &pb.Stages{
		QueueUs: s.Queue.Microseconds(), AssignUs: s.Assign.Microseconds(), LoadUs: s.Load.Microseconds(), RunUs: s.Run.Microseconds(),
	}
	for i := range res.Steps {
		out.Steps = append(out.Steps, stepResult(&res.Steps[i]))
	}
	return out
}

// ResultOf is what Result made of an answer. A failure comes with what is known of where the call ran.
func ResultOf(r *pb.NodeResult) (*call.Result, *errs.Error) {
	s := r.GetStages()
	res := &call.Result{
		Value: r.GetValue(), Streamed: r.GetStreamed(), Container: call.ContainerID(r.GetContainer()), Start: call.StartKind(r.GetStart()),
		Isolation: tenant.Isolation(r.GetIsolation()), CPU: micros(r.GetCpuUs()), Warnings: r.GetWarnings(),
		Stages: call.Stages{Queue: micros(s.GetQueueUs()), Assign: micros(s.GetAssignUs()), Load: micros(s.GetLoadUs()), Run: micros(s.GetRunUs())},
	}
	for _, step := range r.GetSteps() {
		res.Steps = append(res.Steps, stepResultOf(step))
	}
	if r.GetError() == nil {
		return res, nil
	}
	return res, FailureOf(r.GetError(), r.GetDetail())
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func stepResult(s *call.StepResult) *pb.StepResult {
	out := &pb.StepResult{
		Function: s.Function, Version: s.Version, Outcome: string(s.Outcome), RunUs: s.Took.Microseconds(), Fallback: s.Fallback,
	}
	if s.Err != nil {
		out.Error = Failure(s.Err)
	}
	return out
}

func stepResultOf(s *pb.StepResult) call.StepResult {
	out := call.StepResult{
		Function: s.GetFunction(), Version: s.GetVersion(), Outcome: call.StepOutcome(s.GetOutcome()), Took: micros(s.GetRunUs()),
		Fallback: s.GetFallback(),
	}
	if s.GetError() != nil {
		out.Err = FailureOf(s.GetError(), "")
	}
	return out
}

// Failure is an error as it travels, all of its fields but the operator's text.
func Failure(e *errs.Error) *pb.CallError {
	out := &pb.CallError{
		Kind: string(e.Kind), Message: e.Message, Started: string(e.WhetherStarted()), Fault: string(e.WhoseFault()), Cause: e.Cause,
	}
	if t := e.Thrown; t != nil {
		out.Thrown = &pb.Thrown{
			Name: t.Name, Message: t.Message, Stack: t.Stack, Code: t.Code, Denied: t.Denied, Line: int32(t.Line),
			Column: int32(t.Column), Excerpt: t.Excerpt, StatusCode: int32(t.StatusCode),
		}
	}
	if e.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return out
}

// FailureOf is what Failure made of an error. A kind that is not known here, of a newer controller, is internal.
func FailureOf(f *pb.CallError, detail string) *errs.Error {
	e := &errs.Error{
		Kind: errs.Kind(f.GetKind()), Message: f.GetMessage(), Started: errs.Started(f.GetStarted()), Fault: errs.Fault(f.GetFault()),
		Cause: f.GetCause(),
	}
	if errs.Lookup(e.Kind) == errs.Lookup(errs.Internal) {
		e.Kind = errs.Internal
	}
	if t := f.GetThrown(); t != nil {
		e.Thrown = &errs.Thrown{
			Name: t.GetName(), Message: t.GetMessage(), Stack: t.GetStack(), Code: t.GetCode(), Denied: t.GetDenied(),
			Line: int(t.GetLine()), Column: int(t.GetColumn()), Excerpt: t.GetExcerpt(), StatusCode: int(t.GetStatusCode()),
		}
	}
	if f.GetRetryAfter() != nil {
		e.RetryAfter = f.GetRetryAfter().AsDuration()
	}
	if detail != "" {
		e.Op, e.Err = "controller", detailError(detail)
	}
	return e
}

// detailError is the operator's text of a failure on another machine.
type detailError string

func (d detailError) Error() string { return string(d) }

// LogLine turns a line into a message; its tenant is the call's.
func LogLine(l *call.LogLine) *pb.LogLine {
	return &pb.LogLine{
		Time: timestamppb.New(l.Time), Level: l.Level, Text: l.Text, CallId: string(l.Call), Function: l.Function,
		ContainerId: string(l.Container), Dropped: l.Dropped,
	}
}

// LogLineOf is what LogLine made of a line of tenant t.
func LogLineOf(l *pb.LogLine, t tenant.ID) call.LogLine {
	return call.LogLine{
		Call: call.ID(l.GetCallId()), Tenant: t, Function: l.GetFunction(), Container: call.ContainerID(l.GetContainerId()),
		Level: l.GetLevel(), Time: l.GetTime().AsTime(), Text: l.GetText(), Dropped: l.GetDropped(),
	}
}
