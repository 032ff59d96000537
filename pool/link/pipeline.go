package link

import (
	"errors"
	"sync/atomic"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// piped is how far a pipeline has come, by what the agent says. It belongs to an exchange and is guarded by Conn.mu.
type piped struct {
	steps   []call.Step       // the call's; nobody changes them
	first   int               // that this container was to run
	told    int               // of the steps before this one the agent says each how it ended, before the next begins
	next    int               // that runs, as far as is known
	known   bool              // it is known
	standIn bool              // its fallback
	begun   time.Time         // since when, the one or the other
	spent   time.Duration     // before the fallback, by its version
	running *atomic.Int32     // next, for others to see; nil: nobody looks
	results []call.StepResult // of first up to next

	refusal *call.StepResult // the pipeline has refused, whatever comes
	refused int              // the step that did

	state      []byte // JSON, as the last step has left it; nil: as the call's body says
	part       []byte // of the state that is coming
	collecting bool
}

// newPiped returns the state of a pipeline that is about to be sent, nil for other calls.
func newPiped(req *call.Request, now time.Time) *piped {
	if req.Pipeline == "" {
		return nil
	}
	p := &piped{steps: req.Steps, told: call.Told(req.Steps), begun: now}
	if req.Resume != nil {
		p.first, p.state = req.Resume.Step, req.Resume.State
	}
	p.next, p.known, p.running = p.first, p.first < p.told, req.Running
	p.begin()
	return p
}

// begin notes that another step runs.
func (p *piped) begin() {
	p.spent = 0
	p.standIn = p.known && p.next < len(p.steps) && p.steps[p.next].Rest != nil && p.steps[p.next].Fallback != nil
	p.show()
}

// show says which step runs.
func (p *piped) show() {
	switch {
	case p.running == nil:
	case p.known:
		p.running.Store(int32(p.next))
	default:
		p.running.Store(-1)
	}
}

// result is what became of step i.
func (p *piped) result(i int, outcome call.StepOutcome, us float64, err *errs.Error) call.StepResult {
	s := &p.steps[i]
	r := call.StepResult{Function: s.Function, Version: s.Version, Outcome: outcome, Took: microseconds(us), Err: err}
	if outcome == call.StepLastGood {
		r.Fallback = s.Fallback.Version
	}
	return r
}

func (p *piped) add(outcome call.StepOutcome, us float64, err *errs.Error) {
	p.results = append(p.results, p.result(p.next, outcome, us, err))
	p.next++
}

// refuse notes that step i denies access: the one that runs, or one that was given up before.
func (p *piped) refuse(i int, us float64, h *ErrorHead) {
	r := p.result(i, call.StepRefused, us, refusedError(&p.steps[i], h))
	p.refusal, p.refused = &r, i
}

// story is what became of all steps that this container has begun, as far as is known.
func (p *piped) story() []call.StepResult {
	all := append([]call.StepResult(nil), p.results...)
	if p.refusal == nil {
		return all
	}
	if i := p.refused - p.first; i < len(all) {
		all[i] = *p.refusal
		return all
	}
	return append(all, *p.refusal)
}

func (c *Conn) onStep(f *Frame) error {
	var h StepHead
	if err := parseHead(TypeStep, f.Head, &h); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x, err := c.findLocked(f)
	if x == nil {
		return err
	}
	p := x.piped
	if p == nil || x.answered || p.refusal != nil || p.collecting {
		return breach("STEP on stream %d out of its order", f.Stream)
	}
	refused := h.Outcome == string(call.StepRefused) // let through without credit: it is one frame
	if !refused && int64(f.Size) > x.credit {
		return breach("%d bytes of STEP on stream %d with credit for %d", f.Size, f.Stream, x.credit)
	}
	x.credit -= int64(f.Size)
	if h.Outcome == stepStandIn {
		if !x.returned {
			x.wakeUp() // its time begins
		}
		return p.fallBack(&h, f, c.now())
	}
	if err := p.step(&h, f); err != nil {
		return err
	}
	p.begin()
	return c.stateLocked(x, f)
}

// step takes what a STEP says.
func (p *piped) step(h *StepHead, f *Frame) error {
	switch h.Outcome {
	case string(call.StepRefused):
		if h.Index < p.first || h.Index > p.next || h.Index >= len(p.steps) || len(f.Body) > 0 || !f.End() {
			return breach("STEP refused of step %d", h.Index)
		}
		p.refuse(h.Index, h.US, h.Error)
		return nil
	case stepRunning:
		if h.Index < max(p.next, p.told) || h.Index >= len(p.steps) || len(h.Times) != h.Index-p.next || len(f.Body) > 0 || !f.End() {
			return breach("STEP running of step %d", h.Index)
		}
		for _, us := range h.Times {
			p.add(call.StepOK, us, nil)
		}
		p.known = true
		return nil
	}
	if h.Index != p.next || h.Index >= p.told {
		return breach("STEP of step %d instead of %d", h.Index, p.next)
	}
	err := p.ended(h)
	p.known = p.next < p.told
	return err
}

// fallBack takes that the version of the step that runs has failed, and that its fallback begins.
func (p *piped) fallBack(h *StepHead, f *Frame, now time.Time) error {
	s := &p.steps[min(p.next, len(p.steps)-1)]
	if h.Index != p.next || h.Index >= p.told || p.standIn || s.OnFailure != call.OnFailureLastGood || s.Fallback == nil ||
		len(f.Body) > 0 || !f.End() {
		return breach("STEP stand_in of step %d", h.Index)
	}
	p.standIn, p.spent, p.begun = true, now.Sub(p.begun), now
	return nil
}

// ended takes the end of a step after which the pipeline goes on.
func (p *piped) ended(h *StepHead) error {
	s := &p.steps[p.next]
	switch outcome := call.StepOutcome(h.Outcome); {
	case outcome == call.StepOK && s.Rest == nil:
		p.add(outcome, h.US, nil)
		return nil
	case outcome == call.StepSkipped && s.OnFailure == call.OnFailureSkip,
		outcome == call.StepLastGood && s.OnFailure == call.OnFailureLastGood && s.Fallback != nil:
		why := s.Rest
		if why == nil {
			why = stepError(s, h.Why, h.Error)
		}
		if why == nil {
			return breach("STEP of a step that failed because of %.20q", h.Why)
		}
		p.add(outcome, h.US, why)
		return nil
	}
	return breach("STEP with outcome %.20q", h.Outcome)
}

// stateLocked takes the state that came with a STEP, or its beginning.
func (c *Conn) stateLocked(x *exchange, f *Frame) error {
	x.piped.collecting = !f.End()
	x.piped.begun = c.now()
	if !x.returned {
		x.wakeUp() // another step runs: its time begins
	}
	return c.partLocked(x, f)
}

// partLocked takes a part of a state.
func (c *Conn) partLocked(x *exchange, f *Frame) error {
	p := x.piped
	if x.returned {
		c.stats.LateFrames++
		c.discardLocked(x, f.Size)
		return nil
	}
	if int64(len(p.part)+len(f.Body)) > x.limits.maxOutput {
		return breach("a state of more than %d bytes on stream %d", x.limits.maxOutput, f.Stream)
	}
	p.part = append(p.part, f.Body...)
	if !p.collecting && len(p.part) > 0 {
		p.state, p.part = p.part, nil
	}
	c.consumedLocked(x, f.Size)
	return nil
}

// answer takes RESULT's part of the story.
func (p *piped) answer(h *ResultHead) error {
	cut := p.collecting // a refusal, or the answer to CANCEL, waits for no state
	p.collecting, p.part = false, nil
	if h.Outcome == outcomeInvalid || h.Outcome == outcomeCancelled {
		return nil
	}
	n := len(h.US)
	last := p.next + n - 1 // that was begun
	times, us := h.US, 0.0
	switch ok := succeeded(h.Outcome); {
	case last >= len(p.steps):
		return breach("RESULT with the times of %d steps, where %d were left", n, len(p.steps)-p.next)
	case ok && (last != len(p.steps)-1 || cut || p.refusal != nil):
		return breach("RESULT ok of a pipeline that had come to step %d of %d", last, len(p.steps))
	case ok:
	case n > 0 && h.Step == last: // the one that ran
		times, us = times[:n-1], times[n-1]
	case h.Outcome == outcomeRefused && h.Step >= p.first && h.Step < p.next: // one that had been given up
	default:
		return breach("RESULT that blames step %d, where %d was the last", h.Step, last)
	}
	for _, us := range times {
		p.add(call.StepOK, us, nil)
	}
	switch {
	case h.Outcome == outcomeRefused:
		p.refuse(h.Step, us, h.Error)
	case !succeeded(h.Outcome):
		p.add(call.StepFailed, us, stepError(&p.steps[h.Step], h.Outcome, h.Error))
	}
	return nil
}

// endPipeline completes what Do returns of a pipeline: what became of its steps, and where it could go on. A refusal that was
// heard of stands, whatever came after it.
func (c *Conn) endPipeline(x *exchange, res *call.Result, err *errs.Error) (*call.Result, *errs.Error) {
	c.mu.Lock()
	p := x.piped
	all, refusal, next, lost := p.story(), p.refusal, p.next, x.lost
	over := x.answered && x.result.Outcome != outcomeCancelled
	running := p.known && !p.collecting && p.next < len(p.steps) && !over
	resume := &call.Resume{Step: next, State: p.state, Took: p.spent + c.now().Sub(p.begun), StandIn: p.standIn}
	c.mu.Unlock()
	if res == nil {
		res = &call.Result{}
	}
	switch {
	case err == nil, err.Kind == errs.Cancelled:
	case refusal != nil:
		err = refusal.Err
	case running && lost != nil && readToItsEnd(lost):
		res.Resume = resume
	case running && x.sent:
		failed := p.result(next, call.StepFailed, 0, err)
		failed.Took = resume.Took
		all = append(all, failed)
	}
	res.Steps = all
	for i := range all {
		c.redactThrown(all[i].Err)
	}
	return res, err
}

// readToItsEnd says whether all was read that a lost agent had written: else a refusal may have been among it.
func readToItsEnd(lost error) bool { return !errors.Is(lost, ErrBreach) && !errors.Is(lost, ErrClosed) }

// microseconds believes the agent's clock as far as it can be true.
func microseconds(us float64) time.Duration {
	const most = 3600e6
	return time.Duration(min(max(us, 0), most)) * time.Microsecond
}
