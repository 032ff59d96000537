package pool

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// A pipeline runs in one container, and goes on in another one if that is lost in a step that may fail. What is over never
// runs again, whatever the call says of repeating; and nothing goes on where a refusal may have been lost (package link).

// pipelineRun is one pipeline on its way through as many containers as it takes.
type pipelineRun struct {
	p      *Pool
	req    call.Request // what the next container is asked
	steps  []call.StepResult
	stages call.Stages
	repeat int // of a step that may be repeated
}

// doPipeline runs a pipeline.
func (p *Pool) doPipeline(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	run := pipelineRun{p: p, req: *req}
	var lost *errs.Error // why the container before was
	for {
		res, err := p.doTries(ctx, &run.req, sink)
		e := errs.From(err)
		if lost != nil && e != nil && len(res.Steps) == 0 && e.WhetherStarted() == errs.StartedNo {
			e = run.strand(lost, e)
			return run.finish(res), e
		}
		run.take(res)
		if e == nil {
			return run.finish(res), nil
		}
		if lost = e; !run.goOn(ctx, res, e) {
			return run.finish(res), e
		}
		if run.over() {
			res.Value = run.req.Resume.State
			return run.finish(res), nil
		}
		p.mu.Lock()
		p.counts.resumed++
		p.mu.Unlock()
	}
}

// take adds what one container has done.
func (r *pipelineRun) take(res *call.Result) {
	r.steps = append(r.steps, res.Steps...)
	r.stages.Queue += res.Stages.Queue
	r.stages.Assign += res.Stages.Assign
	r.stages.Load += res.Stages.Load
	r.stages.Run += res.Stages.Run
}

func (r *pipelineRun) finish(res *call.Result) *call.Result {
	res.Steps, res.Resume = r.steps, nil
	res.Stages.Queue, res.Stages.Assign, res.Stages.Load, res.Stages.Run = r.stages.Queue, r.stages.Assign, r.stages.Load, r.stages.Run
	return res
}

// goOn says whether the pipeline goes on after its container was lost, and prepares what the next one is asked.
func (r *pipelineRun) goOn(ctx context.Context, res *call.Result, e *errs.Error) bool {
	at := res.Resume
	if at == nil {
		return false
	}
	s := &r.req.Steps[at.Step]
	inTime := ctx.Err() == nil && (r.req.Deadline.IsZero() || time.Now().Before(r.req.Deadline))
	switch {
	case !inTime || !mayGoOn(e):
	case s.OnFailure == call.OnFailureSkip:
		r.steps = append(r.steps, stepResult(s, call.StepSkipped, at.Took, e))
		r.req.Resume = &call.Resume{Step: at.Step + 1, State: at.State}
		return true
	case s.OnFailure == call.OnFailureLastGood && s.Fallback != nil && !at.StandIn:
		r.req.Steps = slices.Clone(r.req.Steps)
		r.req.Steps[at.Step].Rest = e
		r.req.Resume = &call.Resume{Step: at.Step, State: at.State}
		return true
	case r.req.Idempotent && r.repeat < maxRepeats && e.Kind == errs.SandboxLost:
		r.repeat++
		r.req.Resume = &call.Resume{Step: at.Step, State: at.State}
		return true
	}
	r.steps = append(r.steps, stepResult(s, call.StepFailed, at.Took, e))
	return false
}

// mayGoOn says whether a container was lost for a reason after which another one can do better.
func mayGoOn(e *errs.Error) bool {
	switch e.Kind {
	case errs.SandboxLost:
		return e.Cause != "controller" && e.Cause != "protocol"
	case errs.OutOfMemory, errs.Timeout: // the loop stood still past the step's time
		return true
	}
	return false
}

// over says whether nothing is left to run, and the answer is known.
func (r *pipelineRun) over() bool {
	at := r.req.Resume
	return at.Step == len(r.req.Steps) && at.State != nil
}

// strand is the error of a pipeline that could not go on, because no container took it.
func (r *pipelineRun) strand(lost, why *errs.Error) *errs.Error {
	e := *lost
	e.Started = errs.StartedMaybe
	e.Message += "; and the pipeline could not go on elsewhere: " + why.Message
	if why.Kind == errs.Cancelled {
		e.Kind = errs.Cancelled
	}
	return &e
}

func stepResult(s *call.Step, outcome call.StepOutcome, took time.Duration, e *errs.Error) call.StepResult {
	return call.StepResult{Function: s.Function, Version: s.Version, Outcome: outcome, Took: took, Err: e}
}

// rested returns the pipeline with those steps marked whose code is quarantined, or the refusal if one of them must not fail.
func (p *Pool) rested(req *call.Request) (*call.Request, *errs.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := *req
	own.Running = new(atomic.Int32)
	t := p.tenants[req.Tenant]
	if t == nil || len(t.marks) == 0 {
		return &own, nil
	}
	now, from := time.Now(), 0
	if req.Resume != nil {
		from = req.Resume.Step
	}
	copied := false
	for i := from; i < len(own.Steps); i++ {
		s := &own.Steps[i]
		e := t.quarantined(s.Hash(), now)
		if e == nil {
			continue
		}
		e.Message = "step " + s.Function + ": " + e.Message
		if s.Rest != nil || !s.Lenient() || t.marks[s.Hash()].refused || s.OnFailure == call.OnFailureLastGood && t.quarantined(s.Fallback.Code.Hash, now) != nil {
			p.counts.quarantined++
			return nil, e
		}
		if !copied {
			own.Steps, copied = slices.Clone(own.Steps), true
		}
		own.Steps[i].Rest = e
	}
	return &own, nil
}

// culprit is the hash of the code that ran in f last: of a pipeline the step's, if it is known.
func (f *flight) culprit() string {
	if f.running == nil {
		return f.hash
	}
	if i := int(f.running.Load()); i >= 0 && i < len(f.steps) {
		return f.steps[i].Hash()
	}
	return f.hash
}
