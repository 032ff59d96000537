package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/metrics"
	pb "paddock/proto/paddock/v1"
)

const hRevision = "Paddock-Revision"

// servePipeline is POST /v1/pipelines/{name}/invoke: the input JSON in; out comes the value, an object, with what became of the
// steps and the revision of the versions beside its own members. logs=true adds what each step wrote.
func servePipeline(x *exchange) (err error) {
	inv, err := x.admit(metrics.HTTP)
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	var res *call.Result
	outcome := error(errAbandoned)
	defer func() { inv.finish(ctx, res, outcome) }()
	logs, outcome := x.preparePipeline(inv)
	if outcome != nil {
		return outcome
	}
	sink := &collector{limit: inv.policy().OutputBytes, wantLogs: logs, maxLogs: inv.policy().LogBytes}
	res, outcome = inv.invoke(ctx, sink, sink.untouched)
	outcome = sink.close(outcome)
	inv.completePipeline(res)
	x.w.Header()[hRevision] = []string{strconv.FormatInt(inv.req.Revision, 10)}
	x.resultHeaders(res)
	told := inv.tell(res, sink)
	if outcome == nil {
		if res.Value, outcome = told.splice(res.Value); outcome == nil {
			if len(res.Value) <= smallAnswer {
				inv.finish(ctx, res, nil)
			}
			x.answer(res)
			return nil
		}
	}
	return &pipelineError{outcome, told}
}

// preparePipeline fills the call and says whether its logs are wanted.
func (x *exchange) preparePipeline(inv *invocation) (logs bool, err error) {
	if query := x.r.URL.Query(); query.Has("logs") {
		if logs, err = parseFlag("logs", query.Get("logs")); err != nil {
			return false, err
		}
		query.Del("logs")
		x.r.URL.RawQuery = query.Encode()
	}
	o, err := x.queryOptions(inv.policy(), false)
	if err != nil {
		return false, err
	}
	inv.apply(o)
	if err := inv.setPipeline(x.r.Context(), x.params[0], o.minRevision, o.timeout > 0); err != nil {
		return false, err
	}
	body, err := x.readBody(inv.policy().InputBytes, "input", inv.req.Deadline)
	if err != nil {
		return false, err
	}
	inv.req.Body, err = checkInput(body, inv.policy())
	return logs, err
}

// setPipeline points the call at a pipeline, with all of its versions as they stand at one revision. timed: the caller has said
// how long it may take; else the pipeline or the tenant's policy says.
func (inv *invocation) setPipeline(ctx context.Context, name string, minRevision int64, timed bool) error {
	if !plainName(name) || len(name) > maxFunctionRef {
		return errs.New(errs.Invalid, "pipeline %.80q: use letters, digits, '-', '_' and '.'", name)
	}
	c := inv.router.cfg.Catalogue
	if minRevision > 0 {
		if err := waitRevision(ctx, c, minRevision, inv.req.Deadline); err != nil {
			return err
		}
	}
	r, err := c.ResolvePipeline(inv.req.Tenant, name, rand.Uint64())
	if err != nil {
		return err
	}
	if err := inv.setSteps(ctx, r, timed, inv.storedStep); err != nil {
		return err
	}
	return inv.steadySecrets(ctx)
}

// steadySecrets reads the secrets of all steps again until none has changed meanwhile, so that they are those of one moment: a
// pipeline never sees the old value in one step and the new one in the next.
func (inv *invocation) steadySecrets(ctx context.Context) error {
	for steady := len(inv.req.Steps) < 2; !steady; {
		steady = true
		for i := range inv.req.Steps {
			s := &inv.req.Steps[i]
			before := s.SecretsRev
			if err := inv.stepSecrets(ctx, s); err != nil {
				return err
			}
			steady = steady && s.SecretsRev == before
		}
	}
	return nil
}

// setSteps points the call at what a pipeline was resolved to; step makes each of those that are enabled.
func (inv *invocation) setSteps(ctx context.Context, r *catalog.ResolvedPipeline, timed bool,
	step func(context.Context, int, *catalog.ResolvedStep) (call.Step, error)) error {
	if err := inv.setRuntime(r.Runtime); err != nil {
		return err
	}
	name := r.Pipeline.Name
	if !timed {
		budget := r.Pipeline.Timeout
		if budget == 0 {
			budget = inv.policy().PipelineTimeout
		}
		inv.deadline(budget)
	}
	inv.req.Pipeline, inv.req.Revision, inv.pipeline = name, r.Revision, r
	sum := sha256.New()
	for i := range r.Steps {
		if r.Steps[i].Code == nil {
			continue // disabled
		}
		step, err := step(ctx, i, &r.Steps[i])
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %s\n", step.Function, step.Code.Hash)
		inv.req.Steps = append(inv.req.Steps, step)
	}
	inv.req.Code = call.Code{Hash: hex.EncodeToString(sum.Sum(nil)), Kind: r.Pipeline.Kind, Name: name}
	return nil
}

// storedStep is a step with its code and what its function gets.
func (inv *invocation) storedStep(ctx context.Context, _ int, r *catalog.ResolvedStep) (call.Step, error) {
	s, err := inv.codeOf(ctx, r)
	if err != nil {
		return s, err
	}
	return s, inv.stepSecrets(ctx, &s)
}

// codeOf is a step with its stored code, and that of the version that may stand in for it.
func (inv *invocation) codeOf(ctx context.Context, r *catalog.ResolvedStep) (s call.Step, err error) {
	c := inv.router.cfg.Catalogue
	s = call.Step{Function: r.Function, Version: r.Code.Number, Timeout: r.Timeout, OnFailure: r.OnFailure}
	code := func(v *catalog.VersionView) (call.Code, error) {
		source, err := c.Source(ctx, inv.req.Tenant, v.Hash)
		return call.Code{Hash: v.Hash, Kind: v.Kind, Name: r.Function + ".js", Source: source}, err
	}
	if s.Code, err = code(r.Code); err != nil {
		return s, err
	}
	if r.LastGood != nil {
		s.Fallback = &call.Fallback{Version: r.LastGood.Number}
		if s.Fallback.Code, err = code(r.LastGood); err != nil {
			return s, err
		}
	}
	return s, nil
}

// stepSecrets gives a step what its function gets.
func (inv *invocation) stepSecrets(ctx context.Context, s *call.Step) error {
	secrets, err := inv.router.cfg.Catalogue.Secrets(ctx, inv.req.Tenant, s.Function)
	if err != nil {
		return err
	}
	s.Secrets, s.SecretsRev = nil, ""
	if secrets != nil {
		s.Secrets, s.SecretsRev = secrets.Values, secrets.Revision
	}
	return nil
}

// completePipeline puts the disabled steps between those that ran, and adds a warning for each that was skipped or replaced.
func (inv *invocation) completePipeline(res *call.Result) {
	if res == nil || inv.pipeline == nil {
		return
	}
	ran, all := res.Steps, []call.StepResult(nil)
	for i := range inv.pipeline.Steps {
		s := &inv.pipeline.Steps[i]
		switch {
		case s.Code == nil:
			all = append(all, call.StepResult{Function: s.Function, Version: s.Version, Outcome: call.StepDisabled})
		case len(ran) > 0:
			all, ran = append(all, ran[0]), ran[1:]
		}
	}
	res.Steps = all
	for i := range all {
		switch s := &all[i]; s.Outcome {
		case call.StepSkipped:
			res.Warnings = append(res.Warnings, fmt.Sprintf("step %s (version %d) was skipped: %s", s.Function, s.Version, why(s.Err)))
		case call.StepLastGood:
			res.Warnings = append(res.Warnings,
				fmt.Sprintf("step %s: version %d ran instead of %d: %s", s.Function, s.Fallback, s.Version, why(s.Err)))
		}
	}
}

func why(e *errs.Error) string {
	switch {
	case e == nil:
		return "it failed"
	case e.Thrown != nil && e.Thrown.Name != "":
		return fmt.Sprintf("%s: %s", e.Kind, e.Thrown.Name)
	}
	return string(e.Kind)
}

// pipelineTold is what an answer says of a pipeline beside its value.
type pipelineTold struct {
	Steps    []stepJSON `json:"steps"`
	Revision int64      `json:"revision"`
	Warnings []string   `json:"warnings,omitempty"`
	Logs     []lineJSON `json:"logs,omitempty"` // of no step
}

type stepJSON struct {
	Function string     `json:"function"`
	Version  int64      `json:"version,omitempty"`
	Outcome  string     `json:"outcome"`
	MS       float64    `json:"ms"`
	Error    *stepFault `json:"error,omitempty"`
	Fallback int64      `json:"fallback,omitempty"`
	Logs     []lineJSON `json:"logs,omitempty"`
}

type stepFault struct {
	Kind    string       `json:"kind"`
	Message string       `json:"message"`
	Thrown  *errs.Thrown `json:"thrown,omitempty"`
}

type lineJSON struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

// tell says what became of the pipeline. The lines of sink carry the number of their step among those that are enabled.
func (inv *invocation) tell(res *call.Result, sink *collector) *pipelineTold {
	t := &pipelineTold{Steps: []stepJSON{}, Revision: inv.req.Revision}
	if res == nil {
		return t
	}
	t.Warnings = res.Warnings
	enabled := []int{}
	for i := range res.Steps {
		s := &res.Steps[i]
		j := stepJSON{Function: s.Function, Version: s.Version, Outcome: string(s.Outcome), Fallback: s.Fallback,
			MS: float64(s.Took.Microseconds()) / 1000}
		if s.Err != nil {
			j.Error = &stepFault{string(s.Err.Kind), publicText(s.Err, inv.req.ID), s.Err.Thrown}
		}
		if s.Outcome != call.StepDisabled {
			enabled = append(enabled, i)
		}
		t.Steps = append(t.Steps, j)
	}
	for i := range sink.logs {
		l := &sink.logs[i]
		line := lineJSON{l.Time, l.Level, validText(l.Text)}
		if n := l.Step - 1; n >= 0 && n < len(enabled) {
			s := &t.Steps[enabled[n]]
			s.Logs = append(s.Logs, line)
		} else {
			t.Logs = append(t.Logs, line)
		}
	}
	return t
}

// splice adds t's members to a value, an object that nobody here reads.
func (t *pipelineTold) splice(value []byte) ([]byte, error) {
	last := len(value) - 1
	if last < 1 || value[0] != '{' || value[last] != '}' {
		return nil, &errs.Error{Kind: errs.SandboxLost, Cause: "protocol", Message: "the sandbox's answer to the pipeline is no JSON object"}
	}
	own := t.json()
	out := make([]byte, 0, len(value)+len(own))
	out = append(out, value[:last]...)
	if last > 1 {
		out = append(out, ',')
	}
	return append(out, own[1:]...), nil
}

func (t *pipelineTold) json() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(t) != nil {
		return []byte("{}")
	}
	return bytes.TrimSpace(b.Bytes())
}

// pipelineError is a pipeline's failure with what became of its steps.
type pipelineError struct {
	err  error
	told *pipelineTold
}

func (e *pipelineError) Error() string { return e.err.Error() }

func (e *pipelineError) Unwrap() error { return e.err }

// stepMessages adds to out what became of a pipeline's steps, and returns those that are enabled.
func stepMessages(out *pb.InvokeResponse, res *call.Result) (enabled []*pb.StepResult) {
	if res == nil {
		return nil
	}
	for i := range res.Steps {
		s := &res.Steps[i]
		m := &pb.StepResult{Function: s.Function, Version: s.Version, Outcome: string(s.Outcome), RunUs: s.Took.Microseconds(),
			Fallback: s.Fallback}
		if s.Err != nil {
			m.Error = callError(s.Err, call.ID(out.GetCallId()))
		}
		if s.Outcome != call.StepDisabled {
			enabled = append(enabled, m)
		}
		out.Steps = append(out.Steps, m)
	}
	return enabled
}
