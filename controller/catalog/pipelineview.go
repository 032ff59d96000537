package catalog

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// PipelineView is an ordered list of functions that run as one call. Nobody changes one.
type PipelineView struct {
	Name     string
	Kind     call.Kind      // what its steps are: rules or actions
	Steps    []PipelineStep // in the order in which they run
	Timeout  time.Duration  // of the whole run; 0: the tenant's
	Author   string
	Updated  time.Time
	Revision int64
}

// PipelineStep is one function of a pipeline.
type PipelineStep struct {
	Function  string
	Version   int64 // 0: follows the function's active version and shares
	Order     int32
	Disabled  bool
	Timeout   time.Duration // 0: only that of the whole run
	OnFailure call.FailurePolicy
}

// names says whether a step names that version of a function by its number, or the function at all for number 0.
func (p *PipelineView) names(function string, number int64) bool {
	for i := range p.Steps {
		if p.Steps[i].Function == function && (number == 0 || p.Steps[i].Version == number) {
			return true
		}
	}
	return false
}

// ResolvedPipeline is a pipeline with the versions that one call of it runs, all as they stood at one revision.
type ResolvedPipeline struct {
	Pipeline *PipelineView
	Steps    []ResolvedStep // in the order in which they run, disabled ones too
	Runtime  string         // of every version; "" if no step is enabled
	// Revision is the store's, of the newest change to any of the tenant's functions and pipelines that this call can see: it
	// sees all changes up to it, and none after it.
	Revision int64
}

// ResolvedStep is a step with its code.
type ResolvedStep struct {
	*PipelineStep
	// Code is the version that runs; nil if the step is disabled.
	Code *VersionView
	// LastGood is, for steps with OnFailureLastGood, the newest earlier version that has proved itself; nil if there is none.
	LastGood *VersionView
}

// Pipeline returns a pipeline and whether there is one.
func (v *View) Pipeline(t tenant.ID, name string) (*PipelineView, bool) {
	s, ok := v.snapshots.get(t)
	if !ok {
		return nil, false
	}
	p, ok := s.pipelines[name]
	return p, ok
}

// ResolvePipeline returns a pipeline with the version that each step runs, all out of one snapshot: what was published
// together is seen together or not at all. draw is a random number that decides, for functions of which two versions share the
// calls, which one this call gets; the same number gives the same versions. It reads memory only and does not block.
func (v *View) ResolvePipeline(t tenant.ID, name string, draw uint64) (*ResolvedPipeline, error) {
	s, ok := v.snapshots.get(t)
	if !ok {
		return nil, noPipeline(t, name)
	}
	p, ok := s.pipelines[name]
	if !ok {
		return nil, noPipeline(t, name)
	}
	return s.resolvePipeline(t, p, nil, draw)
}

// resolvePipeline finds the code of each step, but for those of which it is given.
func (s *snapshot) resolvePipeline(t tenant.ID, p *PipelineView, given []*VersionView, draw uint64) (*ResolvedPipeline, error) {
	r := &ResolvedPipeline{Pipeline: p, Steps: make([]ResolvedStep, len(p.Steps)), Revision: s.revision}
	for i := range p.Steps {
		r.Steps[i].PipelineStep = &p.Steps[i]
		if p.Steps[i].Disabled {
			continue
		}
		if given != nil && given[i] != nil {
			r.Steps[i].Code = given[i]
		} else if err := s.resolve(&r.Steps[i], draw); err != nil {
			return nil, errs.New(err.Kind, "pipeline %s of tenant %s: step %d: %s", p.Name, t, i+1, err.Message)
		}
		switch found := r.Steps[i].Code.Runtime; {
		case r.Runtime == "":
			r.Runtime = found
		case r.Runtime != found:
			return nil, errs.New(errs.Invalid, "pipeline %s of tenant %s: its steps need the runtimes %s and %s: one call has one",
				p.Name, t, r.Runtime, found)
		}
	}
	return r, nil
}

// resolve finds the code of a step.
func (s *snapshot) resolve(step *ResolvedStep, draw uint64) *errs.Error {
	f, ok := s.function(step.Function)
	if !ok {
		return errs.New(errs.NotFound, "there is no function %s", step.Function)
	}
	if step.Version != 0 {
		step.Code, ok = f.Version(step.Version)
	} else {
		step.Code, ok = f.draw(drawFor(draw, f.Name))
	}
	if !ok {
		return errs.New(errs.NotFound, "function %s has no version %d", f.Name, max(step.Version, f.Active))
	}
	if step.OnFailure == call.OnFailureLastGood {
		step.LastGood = f.lastGood(step.Code.Number)
	}
	return nil
}

// drawFor makes of a call's random number one for a function: the same wherever the call needs it, and independent of those of
// other functions, so that two shares of 10 % are not always of the same calls. It is FNV-1a and the finish of SplitMix64.
func drawFor(draw uint64, function string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(function) {
		h = (h ^ uint64(function[i])) * 1099511628211
	}
	h ^= draw
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

func noPipeline(t tenant.ID, name string) *errs.Error {
	return errs.New(errs.NotFound, "tenant %s has no pipeline %.80q: `paddock pipelines list` or GET /v1/pipelines lists what there is", t, name)
}

func decodePipeline(name string, value []byte, revision int64) (*PipelineView, error) {
	var r pb.PipelineRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	kind, ok := call.ParseKind(r.GetKind())
	switch {
	case r.GetName() != name:
		return nil, fmt.Errorf("it says that it is pipeline %.80q", r.GetName())
	case !ok || kind != call.KindRule && kind != call.KindAction:
		return nil, fmt.Errorf("a pipeline of kind %.40q", r.GetKind())
	}
	for _, s := range r.GetSteps() {
		if _, err := decodeStep(s); err != nil {
			return nil, err
		}
	}
	return pipelineView(&r, revision), nil
}

// pipelineView shows a record that is known to be good.
func pipelineView(r *pb.PipelineRecord, revision int64) *PipelineView {
	p := &PipelineView{
		Name: r.GetName(), Kind: call.Kind(r.GetKind()), Timeout: r.GetTimeout().AsDuration(), Author: r.GetAuthor(),
		Updated: asTime(r.GetUpdated()), Revision: revision, Steps: make([]PipelineStep, len(r.GetSteps())),
	}
	for i, s := range r.GetSteps() {
		p.Steps[i], _ = decodeStep(s)
	}
	return p
}

func decodeStep(s *pb.PipelineStep) (PipelineStep, error) {
	function, version, err := parseRef(s.GetFunction())
	if err != nil {
		return PipelineStep{}, err
	}
	onFailure, ok := call.ParseFailurePolicy(s.GetOnFailure())
	if !ok {
		return PipelineStep{}, fmt.Errorf("unknown on_failure %.40q", s.GetOnFailure())
	}
	return PipelineStep{
		Function: function, Version: version, Order: s.GetOrder(), Disabled: s.GetDisabled(),
		Timeout: s.GetTimeout().AsDuration(), OnFailure: onFailure,
	}, nil
}
