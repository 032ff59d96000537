package link

import (
	"maps"
	"slices"
	"strconv"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// appendPipeline appends what INVOKE's head says of a pipeline. Steps share most of their secrets, so each value goes once.
func appendPipeline(dst []byte, req *call.Request) []byte {
	dst = appendString(append(dst, `,"pipeline":`...), req.Pipeline)
	if req.Resume != nil {
		dst = strconv.AppendInt(append(dst, `,"from":`...), int64(req.Resume.Step), 10)
		if req.Resume.State != nil {
			dst = append(dst, `,"resumed":true`...)
		}
	}
	var sets secretSets
	dst = append(dst, `,"steps":[`...)
	for i := range req.Steps {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendStep(dst, &req.Steps[i], &sets)
	}
	dst = append(dst, ']')
	if len(sets.revs) == 0 {
		return dst
	}
	dst = append(append(dst, `,"sets":[`...), sets.list...)
	dst = append(append(dst, `],"values":[`...), sets.values...)
	return append(dst, ']')
}

func appendStep(dst []byte, s *call.Step, sets *secretSets) []byte {
	dst = appendString(append(dst, `{"name":`...), s.Function)
	dst = appendString(append(dst, `,"code":`...), s.Code.Hash)
	if s.Timeout > 0 {
		dst = strconv.AppendInt(append(dst, `,"ms":`...), max(s.Timeout.Milliseconds(), 1), 10)
	}
	if s.OnFailure != "" && s.OnFailure != call.OnFailureFail {
		dst = appendString(append(dst, `,"policy":`...), string(s.OnFailure))
	}
	if s.Fallback != nil {
		dst = appendString(append(dst, `,"fallback":`...), s.Fallback.Code.Hash)
	}
	if s.Rest != nil {
		dst = append(dst, `,"rest":true`...)
	}
	if s.SecretsRev != "" || len(s.Secrets) > 0 {
		dst = strconv.AppendInt(append(dst, `,"set":`...), int64(sets.place(s)), 10)
	}
	return append(dst, '}')
}

// secretSets writes each value and each set of secrets once.
type secretSets struct {
	revs         []string
	known        map[[2]string]int
	list, values []byte
}

// place returns the number of a step's set.
func (t *secretSets) place(s *call.Step) int {
	if i := slices.Index(t.revs, s.SecretsRev); i >= 0 {
		return i
	}
	if len(t.revs) > 0 {
		t.list = append(t.list, ',')
	}
	t.revs = append(t.revs, s.SecretsRev)
	t.list = append(appendString(append(t.list, `{"rev":`...), s.SecretsRev), `,"of":[`...)
	for i, name := range slices.Sorted(maps.Keys(s.Secrets)) {
		if i > 0 {
			t.list = append(t.list, ',')
		}
		t.list = strconv.AppendInt(t.list, int64(t.value(name, s.Secrets[name])), 10)
	}
	t.list = append(t.list, "]}"...)
	return len(t.revs) - 1
}

func (t *secretSets) value(name, value string) int {
	pair := [2]string{name, value}
	if i, ok := t.known[pair]; ok {
		return i
	}
	if t.known == nil {
		t.known = map[[2]string]int{}
	}
	if len(t.known) > 0 {
		t.values = append(t.values, ',')
	}
	t.values = append(appendString(append(t.values, '['), name), ',')
	t.values = append(appendString(t.values, value), ']')
	t.known[pair] = len(t.known)
	return len(t.known) - 1
}

// inputOf is INVOKE's body: the call's, or the state with which a pipeline goes on.
func inputOf(req *call.Request) []byte {
	switch r := req.Resume; {
	case r == nil || r.State == nil:
		return req.Body
	case req.Code.Kind != call.KindAction:
		return r.State
	default: // an action needs the event, too
		b := make([]byte, 0, len(req.Body)+len(r.State)+24)
		b = append(append(b, `{"input":`...), req.Body...)
		b = append(append(b, `,"effects":`...), r.State...)
		return append(b, '}')
	}
}

// codesOf calls f with each code that a call needs, until it says no.
func codesOf(req *call.Request, f func(*call.Code) bool) {
	if req.Pipeline == "" {
		f(&req.Code)
		return
	}
	for i := range req.Steps {
		s := &req.Steps[i]
		if !f(&s.Code) || s.Fallback != nil && !f(&s.Fallback.Code) {
			return
		}
	}
}

// forgotten takes out of codes what NOT_LOADED names, and says whether the pipeline has steps of it.
func (p *piped) forgotten(h *CodeHead, codes map[string]struct{}) bool {
	missing := h.Missing
	if len(missing) == 0 {
		missing = []string{h.Hash}
	}
	for _, hash := range missing {
		if !p.has(hash) {
			return false
		}
		delete(codes, hash)
	}
	return true
}

func (p *piped) has(hash string) bool {
	for i := range p.steps {
		s := &p.steps[i]
		if s.Code.Hash == hash || s.Fallback != nil && s.Fallback.Code.Hash == hash {
			return true
		}
	}
	return false
}

// stepFailure is how the pipeline has failed by its RESULT; nil if it has not, or not by a step.
func (x *exchange) stepFailure() *errs.Error {
	if x.piped == nil || succeeded(x.result.Outcome) || x.result.Outcome == outcomeInvalid || x.result.Outcome == outcomeCancelled {
		return nil
	}
	all := x.piped.story()
	return all[x.result.Step-x.piped.first].Err
}

// stepError is what a step failed with, nil if why is nothing that a step fails with. It has started something, unless it
// is the first and did not compile.
func stepError(s *call.Step, why string, h *ErrorHead) *errs.Error {
	switch why {
	case "", outcomeError:
		e := errs.New(errs.UserError, "step %s failed; the error says how", s.Function)
		e.Thrown = h.thrown()
		return e
	case outcomeTimeout:
		return stepTimeout(s)
	case outcomeLoadError:
		e := errs.New(errs.LoadError, "the code of step %s does not compile; the error says where", s.Function)
		e.Thrown = h.thrown()
		return e
	case outcomeTooLarge:
		return errs.New(errs.OutputTooLarge, "what step %s leaves behind is larger than an answer may be", s.Function)
	}
	return nil
}

func stepTimeout(s *call.Step) *errs.Error {
	e := errs.New(errs.Timeout, "step %s did not end within its %v", s.Function, s.Timeout)
	e.Started = errs.StartedYes
	return e
}

func refusedError(s *call.Step, h *ErrorHead) *errs.Error {
	e := errs.New(errs.Refused, "step %s denied access", s.Function)
	e.Thrown = h.thrown()
	e.Thrown.Denied = true
	return e
}
