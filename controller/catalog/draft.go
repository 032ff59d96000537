package catalog

import (
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// draftName is what errors call a pipeline that is stored nowhere.
const draftName = "(draft)"

// DraftPipeline judges a pipeline that is stored nowhere, and returns it as one that is stored would be. Its name is no
// pipeline's, so that in the history it stands for itself.
func DraftPipeline(kind string, steps []*pb.PipelineStep) (*PipelineView, error) {
	rec, err := newRecord(NewPipeline{Name: draftName, Kind: kind, Steps: steps})
	if err != nil {
		return nil, err
	}
	return pipelineView(rec, 0), nil
}

// ResolveDraft is ResolvePipeline for a pipeline that is stored nowhere: given[i] is the version that step i runs, and for nil it
// is a stored one.
func (v *View) ResolveDraft(t tenant.ID, p *PipelineView, given []*VersionView, draw uint64) (*ResolvedPipeline, error) {
	s, ok := v.snapshots.get(t)
	if !ok {
		s = newSnapshot(nil)
	}
	r, err := s.resolvePipeline(t, p, given, draw)
	if err != nil {
		return nil, err
	}
	for i := range r.Steps {
		if c := r.Steps[i].Code; c != nil && given[i] == nil && !c.isOf(p.Kind) {
			return nil, errs.New(errs.Invalid, "pipeline %s: step %d: version %d of %s is a %s: a pipeline of kind %s cannot run it", p.Name, i+1,
				c.Number, r.Steps[i].Function, c.Kind, p.Kind)
		}
	}
	return r, nil
}
