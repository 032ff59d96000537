package controller

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/controller/logs"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Kept shows what a controller keeps of its tenants' calls and lines. It checks nothing: who may see them, and whether a
// question makes sense, is the router's business. Safe for concurrent use.
type Kept struct{ c *Controller }

// Kept returns what the controller keeps.
func (c *Controller) Kept() *Kept { return &Kept{c} }

// Name is the controller's id.
func (k *Kept) Name() string { return k.c.cfg.ID }

// Tail gives kept the newest lines that match, oldest first and exactly once, then, with follow, live each that comes after
// them, until ctx ends, one of the two fails, or the tenant is gone. No line is missing between the two and none is twice.
func (k *Kept) Tail(ctx context.Context, t tenant.ID, req *pb.TailRequest, kept func([]*pb.LogLine) error,
	live func(*pb.LogLine) error) error {
	level, _ := logs.ParseLevel(req.GetLevel())
	filter := logs.Filter{Function: req.GetFunction(), Call: call.ID(req.GetCallId()), Level: level}
	now, n := time.Now(), int(req.GetLines())
	if !req.GetFollow() {
		return kept(logLines(k.c.logs.Kept(t, filter, n, now)))
	}
	lines, sub := k.c.logs.Subscribe(t, filter, n, now)
	defer sub.Close()
	if err := kept(logLines(lines)); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case l, open := <-sub.Lines():
			if !open {
				return nil
			}
			if err := live(logLine(&l)); err != nil {
				return err
			}
		}
	}
}

// Calls returns the newest calls that match, newest first.
func (k *Kept) Calls(_ context.Context, t tenant.ID, req *pb.ListCallsRequest) ([]*pb.CallRecord, error) {
	filter := logs.CallFilter{
		Call: call.ID(req.GetCallId()), Function: req.GetFunction(), Pipeline: req.GetPipeline(), Outcome: req.GetOutcome(),
	}
	calls, withInput := k.c.calls.List(t, filter, int(req.GetLimit()), time.Now())
	out := make([]*pb.CallRecord, len(calls))
	for i := range calls {
		out[i] = k.callRecord(&calls[i], withInput[calls[i].ID])
	}
	return out, nil
}

// Call returns one call, with its input if that was recorded and is still kept; NotFound if it is not kept here.
func (k *Kept) Call(_ context.Context, t tenant.ID, id string) (*pb.GetCallResponse, error) {
	now := time.Now()
	calls, _ := k.c.calls.List(t, logs.CallFilter{Call: call.ID(id)}, 1, now)
	if len(calls) == 0 {
		return nil, errs.New(errs.NotFound, "call %.80q is not kept", id)
	}
	input, ok := k.c.calls.Input(t, call.ID(id), now)
	return &pb.GetCallResponse{Call: k.callRecord(&calls[0], ok), Input: input}, nil
}

func (k *Kept) callRecord(c *logs.Call, withInput bool) *pb.CallRecord {
	out := &pb.CallRecord{
		CallId: string(c.ID), Function: c.Function, Version: c.Version, Pipeline: c.Pipeline, Outcome: c.Outcome, Message: c.Message,
		Time: timestamppb.New(c.Ended), Start: string(c.Start), ContainerId: string(c.Container), InputBytes: c.InputBytes,
		OutputBytes: c.OutputBytes, Controller: k.c.cfg.ID, InputKept: withInput,
		Stages: &pb.Stages{
			QueueUs: c.Stages.Queue.Microseconds(), AssignUs: c.Stages.Assign.Microseconds(), LoadUs: c.Stages.Load.Microseconds(),
			RunUs: c.Stages.Run.Microseconds(), TotalUs: c.Stages.Total.Microseconds(),
		},
	}
	for i := range c.Steps {
		s := &c.Steps[i]
		step := &pb.StepResult{Function: s.Function, Version: s.Version, Outcome: string(s.Outcome), RunUs: s.Took.Microseconds(), Fallback: s.Fallback}
		if s.Kind != "" {
			step.Error = &pb.CallError{Kind: string(s.Kind), Message: s.Message}
		}
		out.Steps = append(out.Steps, step)
	}
	return out
}

func logLines(lines []call.LogLine) []*pb.LogLine {
	out := make([]*pb.LogLine, len(lines))
	for i := range lines {
		out[i] = logLine(&lines[i])
	}
	return out
}

// logLine is a line as a message. Proto strings must be UTF-8, a tenant's bytes need not be.
func logLine(l *call.LogLine) *pb.LogLine {
	return &pb.LogLine{
		Time: timestamppb.New(l.Time), Level: l.Level, Text: strings.ToValidUTF8(l.Text, "\uFFFD"), CallId: string(l.Call),
		Function: l.Function, ContainerId: string(l.Container), Dropped: l.Dropped,
	}
}
