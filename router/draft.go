package router

import (
	"context"
	"math/rand/v2"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// draft is a pipeline that came with its call: an author's, as it stands on his disk. It runs like a stored one, beside stored
// functions if it names some, and nothing of it is kept.
type draft struct {
	inv     *invocation
	overlay overlay
	code    []call.Code // of the steps; no hash where a stored version runs
}

// setDraft points the call at a pipeline that came with it. Its steps get secrets as source text does: those of their
// functions, from keys that may deploy.
func (inv *invocation) setDraft(ctx context.Context, msg *pb.Draft, minRevision int64, timed bool) (err error) {
	p, err := catalog.DraftPipeline(msg.GetKind(), draftSteps(msg))
	if err != nil {
		return err
	}
	d := &draft{inv: inv, code: make([]call.Code, len(p.Steps))}
	if d.overlay, err = newOverlay(msg.GetConfiguration()); err != nil {
		return err
	}
	given := make([]*catalog.VersionView, len(p.Steps))
	for i, step := range msg.GetSteps() {
		if given[i], err = d.take(i, p, step.GetSource()); err != nil {
			return errs.New(errs.From(err).Kind, "pipeline %s: step %d (%s): %s", p.Name, i+1, p.Steps[i].Function, errs.From(err).Message)
		}
	}
	c := inv.router.cfg.Catalogue
	if minRevision > 0 {
		if err := waitRevision(ctx, c, minRevision, inv.req.Deadline); err != nil {
			return err
		}
	}
	r, err := c.ResolveDraft(inv.req.Tenant, p, given, rand.Uint64())
	if err != nil {
		return err
	}
	inv.draft = true
	return inv.setSteps(ctx, r, timed, d.step)
}

// draftSteps are the steps as the catalogue knows them, in the order in which they came.
func draftSteps(msg *pb.Draft) []*pb.PipelineStep {
	steps := make([]*pb.PipelineStep, len(msg.GetSteps()))
	for i, s := range msg.GetSteps() {
		steps[i] = &pb.PipelineStep{
			Function: s.GetFunction(), Timeout: s.GetTimeout(), OnFailure: s.GetOnFailure(), Disabled: s.GetDisabled(),
		}
	}
	return steps
}

// take judges step i and keeps its code. It returns nil where a stored version is to run.
func (d *draft) take(i int, p *catalog.PipelineView, source *pb.Source) (*catalog.VersionView, error) {
	s, policy := &p.Steps[i], d.inv.policy()
	if s.Timeout != 0 {
		if err := checkTimeout(s.Timeout, policy); err != nil {
			return nil, err
		}
	}
	if source == nil {
		return nil, nil
	}
	if s.Version != 0 {
		return nil, errs.New(errs.Invalid, "it has source text and names version %d: leave one of them out", s.Version)
	}
	if err := checkSource(source.GetCode(), policy); err != nil {
		return nil, err
	}
	name := source.GetName()
	if name == "" {
		name = s.Function + ".js"
	}
	name, err := checkSourceName(name)
	if err != nil {
		return nil, err
	}
	d.code[i] = sourceCode(source.GetCode(), p.Kind, name)
	return &catalog.VersionView{Hash: d.code[i].Hash, Kind: p.Kind, Runtime: d.inv.router.cfg.Runtimes[0]}, nil
}

// step is step i with its code and what its function gets.
func (d *draft) step(ctx context.Context, i int, r *catalog.ResolvedStep) (s call.Step, err error) {
	if d.code[i].Hash != "" {
		s = call.Step{Function: r.Function, Code: d.code[i], Timeout: r.Timeout, OnFailure: r.OnFailure}
	} else if s, err = d.inv.codeOf(ctx, r); err != nil {
		return s, err
	}
	if d.inv.role.Includes(identity.RoleDeploy) {
		if err := d.inv.stepSecrets(ctx, &s); err != nil {
			return s, err
		}
	}
	s.Secrets, s.SecretsRev = d.overlay.over(s.Secrets, s.SecretsRev)
	return s, nil
}
