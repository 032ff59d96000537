package fake

import (
	"context"
	"errors"
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// What link and agent do of pipelines together, in memory. A step's program gets the state as its input; its answer is the
// state from then on.

const stepSlack = 50 * time.Millisecond

// StepStart says that a version of a step was begun.
type StepStart struct {
	Step int
	Hash string
}

// StepStarts lists the versions of a pipeline's steps that have begun, in their order.
func (e *Engine) StepStarts(id call.ID) []StepStart {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]StepStart(nil), e.stepStarts[id]...)
}

func (e *Engine) stepBegan(id call.ID, i int, hash string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stepStarts[id] = append(e.stepStarts[id], StepStart{i, hash})
}

// progress is how far a pipeline has come, as the host knows it.
type progress struct {
	req  *call.Request
	told int

	mu      sync.Mutex
	next    int
	begun   time.Time
	state   []byte
	results []call.StepResult
	refusal *errs.Error
	stuck   bool // the step that runs holds the loop past its time
	standIn bool // its fallback has begun
}

func newProgress(req *call.Request) *progress {
	p := &progress{req: req, told: call.Told(req.Steps), begun: time.Now()}
	if req.Resume != nil {
		p.next, p.state = req.Resume.Step, req.Resume.State
	}
	p.showLocked()
	return p
}

func (p *progress) showLocked() {
	switch running := p.req.Running; {
	case running == nil:
	case p.next < p.told:
		running.Store(int32(p.next))
	default:
		running.Store(-1)
	}
}

func (p *progress) end(outcome call.StepOutcome, state []byte, err *errs.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.req.Steps[p.next]
	r := call.StepResult{Function: s.Function, Version: s.Version, Outcome: outcome, Took: time.Since(p.begun), Err: err}
	if outcome == call.StepLastGood {
		r.Fallback = s.Fallback.Version
	}
	p.results = append(p.results, r)
	switch outcome {
	case call.StepRefused:
		p.refusal = err
		return
	case call.StepFailed:
		return
	}
	if outcome != call.StepSkipped {
		p.state = state
	}
	p.next++
	p.begun, p.standIn = time.Now(), false
	p.showLocked()
}

func (p *progress) fallBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.standIn = true
}

// result is what Do returns of it.
func (p *progress) result(value []byte, err error, lost bool) (*call.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	res := &call.Result{Value: value, Steps: p.results}
	e := errs.From(err)
	switch {
	case e == nil:
		return res, nil
	case p.refusal != nil && e.Kind != errs.Cancelled:
		return res, p.refusal
	case p.next >= p.told || len(p.results) > 0 && p.results[len(p.results)-1].Outcome == call.StepFailed:
	case lost:
		res.Resume = &call.Resume{Step: p.next, State: p.state, Took: time.Since(p.begun), StandIn: p.standIn}
		if p.stuck {
			e = errs.New(errs.Timeout, "step %s did not end within its time", p.req.Steps[p.next].Function)
		}
	}
	return res, e
}

// stepStage is where the program of a step runs.
type stepStage struct {
	*memoryStage
	state  []byte
	secret map[string]string
}

func (s *stepStage) body() []byte               { return s.state }
func (s *stepStage) secrets() map[string]string { return s.secret }

// runSteps runs what is left of a pipeline and returns its value.
func (c *Container) runSteps(ctx context.Context, m *memoryStage, p *progress) ([]byte, error) {
	state := p.state
	if state == nil {
		state = p.req.Body
	}
	for i := p.next; i < len(p.req.Steps); i++ {
		s := &p.req.Steps[i]
		after, err := c.runStep(ctx, m, p, i, s.Code, state)
		if ctx.Err() != nil || c.ctx.Err() != nil { // nothing more begins for who is gone, or in a container that has ended
			return nil, context.Canceled
		}
		outcome, why := call.StepOK, errs.From(err)
		if s.Rest != nil {
			why = s.Rest
		}
		if why != nil && s.OnFailure == call.OnFailureLastGood && s.Fallback != nil && why.Kind != errs.Refused {
			outcome = call.StepLastGood
			p.fallBack()
			after, err = c.runStep(ctx, m, p, i, s.Fallback.Code, state)
		}
		e := errs.From(err)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case e != nil && e.Kind == errs.Refused:
			p.end(call.StepRefused, nil, e)
			return nil, e
		case e != nil && s.OnFailure == call.OnFailureSkip:
			p.end(call.StepSkipped, nil, e)
		case e != nil:
			p.end(call.StepFailed, nil, e)
			return nil, e
		default:
			p.end(outcome, after, why)
			state = after
		}
	}
	return state, nil
}

// runStep runs one version of a step within the step's time.
func (c *Container) runStep(ctx context.Context, m *memoryStage, p *progress, i int, code call.Code, state []byte) ([]byte, error) {
	s := &p.req.Steps[i]
	if s.Rest != nil && code.Hash == s.Code.Hash {
		return nil, s.Rest
	}
	c.e.stepBegan(p.req.ID, i, code.Hash)
	var expired <-chan time.Time
	if s.Timeout > 0 {
		t := time.NewTimer(s.Timeout)
		defer t.Stop()
		expired = t.C
	}
	type outcome struct {
		state []byte
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		after, err := c.run(ctx, &stepStage{memoryStage: m, state: state, secret: s.Secrets}, string(code.Source))
		ended <- outcome{after, err}
	}()
	select {
	case o := <-ended:
		var t thrown
		var d denied
		switch {
		case errors.As(o.err, &d):
			return nil, &errs.Error{Kind: errs.Refused, Message: string(d), Thrown: &errs.Thrown{Message: string(d), Denied: true}}
		case errors.As(o.err, &t):
			return nil, &errs.Error{Kind: errs.UserError, Message: string(t), Thrown: &errs.Thrown{Name: "Error", Message: string(t)}}
		}
		return o.state, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-expired:
	}
	if m.n.isStuck() { // the host finds out
		time.Sleep(stepSlack + cancelGrace)
		p.mu.Lock()
		p.stuck = true
		p.mu.Unlock()
		m.n.taint("stuck")
		<-c.ctx.Done()
		return nil, c.ctx.Err()
	}
	e := errs.New(errs.Timeout, "step %s did not end within its time", s.Function)
	e.Started = errs.StartedYes
	return nil, e
}
