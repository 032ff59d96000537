package router

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/metrics"
	pb "paddock/proto/paddock/v1"
)

// sandboxServer is the data plane over gRPC.
type sandboxServer struct {
	pb.UnimplementedSandboxServer
	router *Router
}

// Invoke implements paddock.v1.Sandbox. Failures of the code stand in the answer, all others are the status.
func (s *sandboxServer) Invoke(ctx context.Context, req *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	ctx, done := s.router.cuttable(ctx)
	defer done()
	q := requestFrom(ctx)
	sink := &collector{wantLogs: req.GetWithLogs()}
	c := grpcCall{router: s.router, id: q.id, who: q.who, transport: metrics.GRPC, began: q.began, slot: q.slot}
	res, err := c.run(ctx, req, sink)
	e := errs.From(err)
	if e != nil && !errs.Lookup(e.Kind).InBand {
		md := metadata.Pairs(mdTiming, serverTiming(&c.stages))
		if res != nil && res.Container != "" {
			md.Set(mdContainer, string(res.Container))
		}
		q.setTrailer(md)
		return nil, err
	}
	md := metadata.MD{mdCallID: {string(q.id)}}
	if e != nil {
		md[mdError], md[mdStarted] = []string{string(e.Kind)}, []string{startedField(e)}
	}
	q.setTrailer(md)
	return invokeResponse(q.id, res, e, sink), nil
}

// grpcCall is a call that came as an InvokeRequest.
type grpcCall struct {
	router    *Router
	id        call.ID
	who       identity.Identity
	transport metrics.Transport
	began     time.Time
	slot      *invocation // nil: not admitted yet
	stages    call.Stages
}

// run admits the call if need be, runs it and accounts for it.
func (c *grpcCall) run(ctx context.Context, req *pb.InvokeRequest, sink *collector) (*call.Result, error) {
	inv := c.slot
	if inv == nil {
		var err error
		if inv, err = c.router.admit(ctx, c.id, c.who, c.transport, c.began); err != nil {
			return nil, err
		}
	}
	if c.router.tracer != nil {
		md, _ := metadata.FromIncomingContext(ctx)
		inv.trace = c.router.tracer.start(ctx, inv, metadataCarrier(md))
	}
	var res *call.Result
	outcome := error(errAbandoned)
	defer func() {
		inv.finish(ctx, res, outcome)
		c.stages = inv.stages
	}()
	if outcome = inv.prepare(ctx, req); outcome != nil {
		return nil, outcome
	}
	sink.limit, sink.maxLogs = inv.policy().OutputBytes, inv.policy().LogBytes
	res, outcome = inv.invoke(ctx, sink, sink.untouched)
	outcome = sink.close(outcome)
	inv.completePipeline(res)
	sink.revision = inv.req.Revision
	return res, outcome
}

// prepare fills the call from its message.
func (inv *invocation) prepare(ctx context.Context, req *pb.InvokeRequest) error {
	if err := inv.grpcDeadline(ctx, req); err != nil {
		return err
	}
	inv.req.Fresh, inv.req.Idempotent = req.GetFresh(), req.GetIdempotent()
	switch target := req.GetTarget().(type) {
	case *pb.InvokeRequest_Function:
		input, err := checkInput(req.GetInput(), inv.policy())
		if err != nil {
			return err
		}
		inv.req.Body = input
		return inv.setFunction(ctx, target.Function, req.GetMinRevision())
	case *pb.InvokeRequest_Source:
		kind, err := parseKind(target.Source.GetKind())
		if err != nil {
			return err
		}
		return inv.setSource(ctx, target.Source.GetCode(), req.GetInput(), options{
			kind: kind, name: target.Source.GetName(), configuration: target.Source.GetConfiguration(), function: target.Source.GetFunction(),
		})
	case *pb.InvokeRequest_Draft:
		input, err := checkInput(req.GetInput(), inv.policy())
		if err != nil {
			return err
		}
		inv.req.Body = input
		_, has := ctx.Deadline()
		return inv.setDraft(ctx, target.Draft, req.GetMinRevision(), has || req.GetTimeout() != nil)
	case *pb.InvokeRequest_Pipeline:
		input, err := checkInput(req.GetInput(), inv.policy())
		if err != nil {
			return err
		}
		inv.req.Body = input
		_, has := ctx.Deadline()
		return inv.setPipeline(ctx, target.Pipeline, req.GetMinRevision(), has || req.GetTimeout() != nil)
	}
	return errs.New(errs.Invalid, "the request has no target: set function, pipeline or source")
}

// grpcDeadline bounds the call by the message's timeout, which must keep to the tenant's maximum, and by the transport's
// deadline, which only ever shortens: clients set generous ones as a matter of course.
func (inv *invocation) grpcDeadline(ctx context.Context, req *pb.InvokeRequest) error {
	p := inv.policy()
	limit := p.Timeout
	at, has := ctx.Deadline()
	if has {
		limit = p.MaxTimeout
	}
	if t := req.GetTimeout(); t != nil {
		if err := t.CheckValid(); err != nil {
			return errs.New(errs.Invalid, "timeout: %v", err)
		}
		if err := checkTimeout(t.AsDuration(), p); err != nil {
			return err
		}
		limit = t.AsDuration()
	}
	inv.deadline(limit)
	if has {
		at = at.Add(-answerMargin(time.Until(at)))
	}
	if has && at.Before(inv.req.Deadline) {
		inv.req.Deadline = at
	}
	return nil
}

// answerMargin is what is kept of the caller's time for the way back, so that he gets our answer and not his own
// transport's.
func answerMargin(remaining time.Duration) time.Duration {
	return min(remaining/20, 20*time.Millisecond)
}

// invokeResponse is the answer as a message.
func invokeResponse(id call.ID, res *call.Result, e *errs.Error, sink *collector) *pb.InvokeResponse {
	out := &pb.InvokeResponse{CallId: string(id)}
	if e != nil {
		out.Error = callError(e, id)
	}
	if res != nil {
		if e == nil {
			out.Output = outputOf(res, sink)
		}
		out.Stages = &pb.Stages{
			QueueUs: res.Stages.Queue.Microseconds(), AssignUs: res.Stages.Assign.Microseconds(),
			LoadUs: res.Stages.Load.Microseconds(), RunUs: res.Stages.Run.Microseconds(), TotalUs: res.Stages.Total.Microseconds(),
		}
		out.ContainerId, out.Start = string(res.Container), string(res.Start)
		out.Isolation, out.Warnings = string(res.Isolation), validTexts(res.Warnings)
	}
	out.Revision = sink.revision
	enabled := stepMessages(out, res)
	for i := range sink.logs {
		line := logLine(&sink.logs[i])
		if n := sink.logs[i].Step - 1; n >= 0 && n < len(enabled) {
			enabled[n].Logs = append(enabled[n].Logs, line)
		} else {
			out.Logs = append(out.Logs, line)
		}
	}
	return out
}

// outputOf is the value. A collected HTTP-shaped answer becomes a JSON object of status, headers and body.
func outputOf(res *call.Result, sink *collector) []byte {
	if sink.headed {
		return collectedJSON(sink)
	}
	if len(res.Value) == 0 {
		return nullValue
	}
	return res.Value
}

// httpValue is an HTTP-shaped answer where an answer has to be JSON; the body is text if it is UTF-8.
type httpValue struct {
	Status     int         `json:"status"`
	Headers    [][2]string `json:"headers"`
	Body       *string     `json:"body,omitempty"`
	BodyBase64 string      `json:"bodyBase64,omitempty"`
}

func collectedJSON(c *collector) []byte {
	v := httpValue{Status: c.status, Headers: [][2]string{}}
	for _, h := range c.headers {
		if utf8.ValidString(h.Name) && utf8.ValidString(h.Value) {
			v.Headers = append(v.Headers, [2]string{h.Name, h.Value})
		}
	}
	if utf8.Valid(c.body) {
		text := string(c.body)
		v.Body = &text
	} else {
		v.BodyBase64 = base64.StdEncoding.EncodeToString(c.body)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nullValue
	}
	return out
}

// logLine is a line as a message. Proto strings must be UTF-8, a tenant's bytes need not be.
func logLine(l *call.LogLine) *pb.LogLine {
	return &pb.LogLine{
		Time: timestamppb.New(l.Time), Level: l.Level, Text: validText(l.Text), CallId: string(l.Call),
		Function: l.Function, ContainerId: string(l.Container), Dropped: l.Dropped,
	}
}
