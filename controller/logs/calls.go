package logs

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// Defaults of CallOptions.
const (
	DefaultCallTotalBytes  = 64 << 20
	DefaultInputTotalBytes = 64 << 20
)

// maxMessageBytes bounds the message of a failure that is kept, of a call and of each of its steps.
const maxMessageBytes = 1 << 10

// OutcomeOK is the outcome of a call that did not fail; others have the kind of their failure. Failed names all of these in a
// CallFilter.
const (
	OutcomeOK = "ok"
	Failed    = "failed"
)

// Call is a call that ended, as it is kept. It holds no value, and its texts have no secrets in them.
type Call struct {
	ID          call.ID
	Function    string // "" for source text and pipelines
	Version     int64
	Pipeline    string
	Outcome     string // ok, or the kind of the failure
	Message     string
	Ended       time.Time
	Stages      call.Stages
	Start       call.StartKind
	Container   call.ContainerID
	Steps       []Step
	InputBytes  int64
	OutputBytes int64
}

// Step is what became of a step of a pipeline.
type Step struct {
	Function string
	Version  int64
	Outcome  call.StepOutcome
	Took     time.Duration
	Kind     errs.Kind // of its failure, "" if it did not fail
	Message  string
	Fallback int64
}

// callOverhead is what a kept call takes besides its texts: itself, its id and its container's.
const callOverhead = int64(unsafe.Sizeof(Call{})) + 64

const stepOverhead = int64(unsafe.Sizeof(Step{}))

func weighCall(c *Call) int64 {
	n := callOverhead + int64(len(c.Message)) + int64(len(c.Steps))*stepOverhead
	for i := range c.Steps {
		n += int64(len(c.Steps[i].Message))
	}
	return n
}

// input is what a call was given.
type input struct {
	id    call.ID
	body  []byte
	ended time.Time
}

func weighInput(in *input) int64 { return int64(cap(in.body)) + int64(unsafe.Sizeof(*in)) }

// CallOptions bounds Calls. A zero field is its default.
type CallOptions struct {
	TotalBytes      int64 // of the calls of all tenants
	InputTotalBytes int64 // of their recorded inputs
}

// Calls keeps the last calls of each tenant, in memory, and the newest inputs of those that want them recorded. Noting a call
// costs no allocation once a tenant's ring is full. Safe for concurrent use.
type Calls struct {
	mu     sync.Mutex
	closed bool
	calls  *shelf[Call]
	inputs *shelf[input]
}

// NewCalls makes an empty Calls.
func NewCalls(o CallOptions) *Calls {
	if o.TotalBytes <= 0 {
		o.TotalBytes = DefaultCallTotalBytes
	}
	if o.InputTotalBytes <= 0 {
		o.InputTotalBytes = DefaultInputTotalBytes
	}
	return &Calls{
		calls:  newShelf(o.TotalBytes, weighCall, func(c *Call) time.Time { return c.Ended }),
		inputs: newShelf(o.InputTotalBytes, weighInput, func(in *input) time.Time { return in.ended }),
	}
}

// Note keeps a call of t's. body is its input, kept as well if the tenant wants that; nobody may change it any more.
func (h *Calls) Note(t tenant.ID, c Call, body []byte, l Limits) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.calls.put(t, c, weighCall(&c), l.callBound(), c.Ended)
	if l.Inputs > 0 && body != nil {
		in := input{c.ID, body, c.Ended}
		h.inputs.put(t, in, weighInput(&in), l.inputBound(), c.Ended)
	}
}

func (l Limits) callBound() bound { return bound{bytes: l.Bytes / callShare, retention: l.Retention} }
func (l Limits) inputBound() bound {
	return bound{bytes: l.Bytes / inputShare, count: l.Inputs, retention: l.Retention}
}

// CallFilter chooses calls. The zero value takes all.
type CallFilter struct {
	Call     call.ID // "" = all
	Function string  // "" = all; one that ran as a step counts
	Pipeline string  // "" = all
	Outcome  string  // "" = all; Failed = all but ok
}

// Match says whether the filter takes the call.
func (f *CallFilter) Match(c *Call) bool {
	switch {
	case f.Call != "" && f.Call != c.ID,
		f.Function != "" && !c.ran(f.Function),
		f.Pipeline != "" && f.Pipeline != c.Pipeline,
		f.Outcome == Failed && c.Outcome == OutcomeOK,
		f.Outcome != "" && f.Outcome != Failed && f.Outcome != c.Outcome:
		return false
	}
	return true
}

func (c *Call) ran(function string) bool {
	if c.Function == function {
		return true
	}
	for i := range c.Steps {
		if c.Steps[i].Function == function {
			return true
		}
	}
	return false
}

// List returns the newest n calls of a tenant that match, newest first, and the ids of those whose input is kept.
func (h *Calls) List(t tenant.ID, f CallFilter, n int, now time.Time) (calls []Call, withInput map[call.ID]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls.each(t, now, func(c *Call) bool {
		if len(calls) == n {
			return false
		}
		if f.Match(c) {
			calls = append(calls, *c)
		}
		return f.Call == "" || len(calls) == 0
	})
	withInput = map[call.ID]bool{}
	h.inputs.each(t, now, func(in *input) bool { withInput[in.id] = true; return true })
	return calls, withInput
}

// Input returns the recorded input of a call, and whether there is one. Nobody may change it.
func (h *Calls) Input(t tenant.ID, id call.ID, now time.Time) (body []byte, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inputs.each(t, now, func(in *input) bool {
		if in.id == id {
			body, ok = in.body, true
		}
		return !ok
	})
	return body, ok
}

// Sweep drops what is too old, and what is of tenants for which limitsOf knows no limits. Somebody calls it now and then.
func (h *Calls) Sweep(now time.Time, limitsOf func(tenant.ID) (Limits, bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls.sweep(now, func(t tenant.ID) (bound, bool) { l, ok := limitsOf(t); return l.callBound(), ok })
	h.inputs.sweep(now, func(t tenant.ID) (bound, bool) { l, ok := limitsOf(t); return l.inputBound(), ok && l.Inputs > 0 })
}

// Remove forgets a tenant.
func (h *Calls) Remove(t tenant.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls.remove(t)
	h.inputs.remove(t)
}

// Close takes no more calls. Idempotent.
func (h *Calls) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// CallStats is what Calls holds now.
type CallStats struct {
	Tenants    int
	Bytes      int64
	InputBytes int64
}

// Stats returns a snapshot.
func (h *Calls) Stats() CallStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return CallStats{Tenants: len(h.calls.bins), Bytes: h.calls.bytes, InputBytes: h.inputs.bytes}
}

// MessageOf is what is kept of a failure: what the code threw, or what Paddock says of it. Thrown texts have no secrets in them
// when they come here.
func MessageOf(e *errs.Error) string {
	if e == nil {
		return ""
	}
	text := e.Message
	if t := e.Thrown; t != nil && (t.Name != "" || t.Message != "") {
		text = t.Message
		if t.Name != "" {
			text = strings.TrimSuffix(t.Name+": "+t.Message, ": ")
		}
	}
	return clip(text, maxMessageBytes)
}

// clip returns s as valid UTF-8 of at most limit bytes, in memory of its own if it is shorter than before.
func clip(s string, limit int) string {
	if len(s) > limit {
		cut := limit - len("…")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = strings.Clone(s[:cut]) + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// StepsOf returns what is kept of a pipeline's steps.
func StepsOf(all []call.StepResult) []Step {
	if len(all) == 0 {
		return nil
	}
	steps := make([]Step, len(all))
	for i := range all {
		s := &all[i]
		steps[i] = Step{Function: s.Function, Version: s.Version, Outcome: s.Outcome, Took: s.Took, Fallback: s.Fallback}
		if s.Err != nil {
			steps[i].Kind, steps[i].Message = s.Err.Kind, MessageOf(s.Err)
		}
	}
	return steps
}
