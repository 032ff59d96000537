package pool_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool/fake"
)

// denies is the program of a step that denies access.
const denies = "deny no"

var someSteps = []string{
	"value {}", "value {}", "value {}", "sleep 500ms", "sleep 1s; value {}", "gate g", "hang", "spin", "crash", "oom", "dying", "throw x", "breach",
	"refuse; value {}", "child; throw x", denies,
}

func codeOf(program string) call.Code {
	sum := sha256.Sum256([]byte(program))
	return call.Code{Hash: hex.EncodeToString(sum[:]), Kind: call.KindRule, Name: "rule.js", Source: []byte(program)}
}

func drawStep(rt *rapid.T, i int) call.Step {
	s := call.Step{Function: fmt.Sprint("f", i), Version: 2, Code: codeOf(rapid.SampledFrom(someSteps).Draw(rt, "step"))}
	s.OnFailure = rapid.SampledFrom([]call.FailurePolicy{call.OnFailureFail, call.OnFailureSkip, call.OnFailureSkip, call.OnFailureLastGood}).Draw(rt, "policy")
	if s.OnFailure == call.OnFailureLastGood && rapid.Bool().Draw(rt, "proven") {
		s.Fallback = &call.Fallback{Version: 1, Code: codeOf(rapid.SampledFrom(someSteps).Draw(rt, "fallback") + ";")}
	}
	if rapid.Bool().Draw(rt, "timed") {
		s.Timeout = moments(rt, "time", 1, 4)
	}
	return s
}

// pipeline runs one in the background, and judges how it ends.
func (w *world) pipeline(rt *rapid.T) {
	req := w.req(rapid.SampledFrom(someTenants).Draw(rt, "tenant"), "")
	req.Policy = policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers, p.IdleTTL = 2, 3, 30*time.Second })
	req.Pipeline, req.Body = "login", []byte(`{}`)
	for i := range rapid.IntRange(1, 4).Draw(rt, "steps") {
		req.Steps = append(req.Steps, drawStep(rt, i))
	}
	req.Idempotent = rapid.IntRange(0, 3).Draw(rt, "idempotent") == 0
	req.Deadline = time.Now().Add(moments(rt, "deadline", 1, 60))
	ctx, cancel := context.WithCancel(context.Background())
	if rapid.IntRange(0, 5).Draw(rt, "goes away") == 0 {
		time.AfterFunc(moments(rt, "after", 0, 8), cancel)
	}
	w.made++
	p := w.Pool
	w.calls.Go(func() {
		defer cancel()
		res, err := p.Do(ctx, req, &collect{})
		w.mu.Lock()
		defer w.mu.Unlock()
		w.answered++
		if late := time.Since(req.Deadline); late > 500*time.Millisecond {
			w.wrong = append(w.wrong, fmt.Sprintf("a pipeline answered %s after its deadline: %v", late, err))
		}
		for _, text := range judgePipeline(req, res, errs.From(err), w.engine.StepStarts(req.ID)) {
			w.wrong = append(w.wrong, fmt.Sprintf("%s\n\tof %s\n\tbegun %v, answered %+v, %v", text, programsOf(req), w.engine.StepStarts(req.ID), res, err))
		}
	})
	if rapid.Bool().Draw(rt, "at once") {
		synctest.Wait()
	}
}

func programsOf(req *call.Request) (text string) {
	for i := range req.Steps {
		s := &req.Steps[i]
		text += fmt.Sprintf("[%s %s %s] ", s.Code.Source, s.OnFailure, s.Timeout)
	}
	return text
}

// judgePipeline says what must not have happened.
func judgePipeline(req *call.Request, res *call.Result, e *errs.Error, begun []fake.StepStart) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for i, b := range begun {
		if i > 0 && b.Step < begun[i-1].Step {
			say("step %d began after step %d", b.Step, begun[i-1].Step)
		}
		if n := count(begun, b); n > 1 && !req.Idempotent || n > 4 {
			say("step %d began %d times", b.Step, n)
		}
	}
	if e != nil && e.Kind == errs.Internal {
		say("an internal failure")
	}
	if e != nil && e.WhetherStarted() == errs.StartedNo && len(begun) > 0 && !req.Idempotent {
		say("it began and says that it did not")
	}
	if e != nil {
		return wrong
	}
	if len(res.Steps) != len(req.Steps) {
		say("it succeeded with %d of %d steps", len(res.Steps), len(req.Steps))
		return wrong
	}
	for i := range res.Steps {
		r, s := &res.Steps[i], &req.Steps[i]
		denied := slices.Contains(begun, fake.StepStart{Step: i, Hash: codeOf(denies).Hash}) && string(s.Code.Source) == denies
		switch lost := r.Err != nil && r.Err.Kind != errs.UserError && r.Err.Kind != errs.Refused; {
		case denied && !lost:
			say("step %d denied, and the pipeline succeeded", i)
		case r.Outcome == call.StepSkipped && s.OnFailure != call.OnFailureSkip, r.Outcome == call.StepLastGood && s.Fallback == nil,
			r.Outcome == call.StepRefused, r.Outcome == call.StepFailed:
			say("step %d is %s", i, r.Outcome)
		case r.Outcome == call.StepOK && count(begun, fake.StepStart{Step: i, Hash: s.Code.Hash}) == 0:
			say("step %d never began", i)
		}
	}
	return wrong
}

func count(begun []fake.StepStart, one fake.StepStart) (n int) {
	for _, b := range begun {
		if b == one {
			n++
		}
	}
	return n
}

// TestAnyPipelines is TestAnyHistory with pipelines above all, whose containers are killed again and again.
func TestAnyPipelines(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			w := newWorld(t, rt)
			defer w.leave()
			rt.Repeat(map[string]func(*rapid.T){
				"pipeline": w.pipeline, "pipeline ": w.pipeline, "pipeline  ": w.pipeline, "call": w.call,
				"wait":  func(rt *rapid.T) { time.Sleep(moments(rt, "wait", 1, 10)) },
				"crash": w.crash, "crash ": w.crash, "drain": w.drain, "open gate": func(*rapid.T) { w.engine.Open("g") },
				"break": func(rt *rapid.T) { w.flaky.set(rapid.SampledFrom([]int{0, 0, 5}).Draw(rt, "every")) },
				"":      w.check,
			})
			w.end()
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// leave ends the pool whatever the history was: the bubble ends when its last goroutine has.
func (w *world) leave() {
	w.flaky.set(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w.Shutdown(ctx)
	w.calls.Wait()
}

// TestStandInBeginsOnce: a stand-in that ends its container is not begun in another one, whether its version had failed or rested.
func TestStandInBeginsOnce(t *testing.T) {
	for _, version := range []string{"throw x", "crash"} {
		for _, standIn := range []string{"crash;", "spin;", "oom;"} {
			t.Run(version+", "+standIn, func(t *testing.T) {
				bubble(t, nil, func(r *rig) {
					req := r.req("acme", "")
					req.Pipeline, req.Body = "login", []byte(`{}`)
					req.Steps = []call.Step{{
						Function: "rule", Version: 2, Code: codeOf(version), OnFailure: call.OnFailureLastGood, Timeout: time.Second,
						Fallback: &call.Fallback{Version: 1, Code: codeOf(standIn)},
					}}
					res, err := r.Do(r.t.Context(), req, nil)
					want := []fake.StepStart{{Step: 0, Hash: codeOf(version).Hash}, {Step: 0, Hash: codeOf(standIn).Hash}}
					if got := r.engine.StepStarts(req.ID); err == nil || !slices.Equal(got, want) {
						r.t.Errorf("begun %v; %+v, %v", got, res, err)
					}
				})
			})
		}
	}
}
