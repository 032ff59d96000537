package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// MaxSteps is how many steps a pipeline may have, disabled ones too.
const MaxSteps = 100

// NewPipeline is what PutPipeline puts.
type NewPipeline struct {
	Name    string
	Kind    string // "": rule
	Steps   []*pb.PipelineStep
	Timeout *durationpb.Duration // nil: the tenant's
	Author  string               // the key's id
	// ExpectedRevision is the one that the pipeline must be as of; 0: any.
	ExpectedRevision int64
}

// Published is what stands after a publication.
type Published struct {
	Pipeline  *PipelineView
	Functions []Deployed // those that came along
}

// PutPipeline makes or replaces a pipeline of functions that exist.
func (s *Service) PutPipeline(ctx context.Context, t tenant.ID, n NewPipeline) (*PipelineView, error) {
	p, err := s.publish(ctx, "put pipeline", t, n, nil)
	return p.Pipeline, err
}

// PublishPipeline deploys code and puts the pipeline in one step: a call sees all of it or nothing. The code compiles, and is on
// disk before the write that names it.
func (s *Service) PublishPipeline(ctx context.Context, t tenant.ID, n NewPipeline, code []Deployment) (Published, error) {
	uploads := make([]*upload, len(code))
	seen := map[string]bool{}
	for i, d := range code {
		var err error
		switch {
		case seen[d.Name]:
			return Published{}, errs.New(errs.Invalid, "function %.80q comes along twice", d.Name)
		case d.KeepActive:
			return Published{}, errs.New(errs.Invalid, "function %.80q: what comes with a pipeline is activated; leave keep_active out", d.Name)
		}
		seen[d.Name] = true
		if uploads[i], err = s.newUpload(d); err != nil {
			return Published{}, err
		}
	}
	return s.publish(ctx, "publish", t, n, uploads)
}

func (s *Service) publish(ctx context.Context, op string, t tenant.ID, n NewPipeline, uploads []*upload) (Published, error) {
	rec, err := pipelineRecord(n)
	if err != nil {
		return Published{}, err
	}
	if err := checkPublication(rec, uploads); err != nil {
		return Published{}, err
	}
	if err := s.compile(ctx, t, uploads); err != nil {
		return Published{}, s.fault("compile", err)
	}
	var stands *PipelineView
	var functions []*functionChange
	rev, err := s.write(ctx, op, string(t), func() (store.Txn, error) {
		functions = nil
		c, err := s.begin(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		for _, u := range uploads {
			f, err := c.deploy(u)
			if err != nil {
				return store.Txn{}, err
			}
			functions = append(functions, f)
		}
		if stands, err = c.putPipeline(rec, n.ExpectedRevision); err != nil {
			return store.Txn{}, err
		}
		return c.finish()
	})
	if err != nil {
		return Published{}, err
	}
	for _, u := range uploads {
		if err := u.stillThere(ctx, s, t); err != nil {
			return Published{}, s.fault(op, err)
		}
	}
	if stands.Revision == 0 {
		stands.Revision = rev
	}
	out := Published{Pipeline: stands}
	for i, f := range functions {
		d := Deployed{Function: f.view(rev), Version: uploads[i].version, New: uploads[i].isNew}
		d.Revision = d.Function.Revision
		out.Functions = append(out.Functions, d)
	}
	return out, nil
}

// checkPublication refuses what cannot be one transaction whatever the store holds, before anything is compiled.
func checkPublication(rec *pb.PipelineRecord, uploads []*upload) error {
	const other = 3 // records of the tenant, its usage, the pipeline
	brought := map[string]bool{}
	for _, u := range uploads {
		brought[u.Name] = true
	}
	named := map[string]bool{}
	for _, step := range rec.GetSteps() {
		if name, _, _ := strings.Cut(step.GetFunction(), "@"); !brought[name] {
			named[name] = true
		}
	}
	if n := 2*len(uploads) + len(named) + other; n > store.MaxTxnOps {
		return errs.New(errs.Invalid, "a publication of %d functions and %d that are there already is %d records, at most %d go in one step: deploy "+
			"some of the functions before, with keep_active", len(uploads), len(named), n, store.MaxTxnOps)
	}
	return nil
}

// putPipeline decides a pipeline and returns how it will stand, as of revision 0 if it is to be written. What is just like what
// is there is not written again.
func (c *change) putPipeline(rec *pb.PipelineRecord, expected int64) (*PipelineView, error) {
	key := store.Pipeline(c.tenant, rec.GetName())
	old := &pb.PipelineRecord{}
	rev, err := c.service.get(c.ctx, key, old)
	if err != nil {
		return nil, err
	}
	if expected != 0 && rev != expected {
		return nil, errs.New(errs.Conflict, "pipeline %s is as of revision %d, not %d: somebody has changed it; read it again",
			rec.GetName(), rev, expected)
	}
	if most := c.policy.MaxTimeout; rec.GetTimeout().AsDuration() > most {
		return nil, errs.New(errs.Invalid, "the timeout of pipeline %s is %v: at most %v", rec.GetName(), rec.GetTimeout().AsDuration(), most)
	}
	c.guard(key, rev)
	for i, step := range rec.GetSteps() {
		if err := c.checkStep(rec, step); err != nil {
			return nil, inStep(rec.GetName(), i, err)
		}
	}
	if rev != 0 && sameSteps(old, rec) {
		return pipelineView(old, rev), nil
	}
	if err := c.count(true); err != nil {
		return nil, err
	}
	if rev == 0 {
		if most := c.policy.MaxPipelines; int(c.usage.GetPipelines()) >= most {
			e := errs.New(errs.Limited, "tenant %s has %d pipelines: its limit is %d; delete some or have it raised", c.tenant,
				c.usage.GetPipelines(), most)
			e.Cause = "pipelines"
			return nil, e
		}
		c.usage.Pipelines++
	}
	return pipelineView(rec, 0), c.put(key, rec)
}

// checkStep says whether what a step names is there, before or with this change, and guards that it stays.
func (c *change) checkStep(rec *pb.PipelineRecord, step *pb.PipelineStep) error {
	name, number, err := parseRef(step.GetFunction())
	if err != nil {
		return err
	}
	if most := c.policy.MaxTimeout; step.GetTimeout().AsDuration() > most {
		return errs.New(errs.Invalid, "its timeout is %v: at most %v", step.GetTimeout().AsDuration(), most)
	}
	f, err := c.function(name, 0)
	if err != nil {
		return err
	}
	if f.rec.GetActive() == 0 {
		return errs.New(errs.NotFound, "tenant %s has no function %s: deploy it first, or along with the pipeline", c.tenant, name)
	}
	if number == 0 {
		number = f.rec.GetActive()
	}
	v := f.version(number)
	switch {
	case v == nil:
		return f.noVersion(number)
	case !v.isOf(call.Kind(rec.GetKind())):
		return errs.New(errs.Invalid, "version %d of %s is a %s: a pipeline of kind %s cannot run it", number, name, v.Kind, rec.GetKind())
	}
	return nil
}

// inStep says in which step a failure is.
func inStep(pipeline string, i int, err error) error {
	e := *errs.From(err)
	if e.Kind != errs.Internal {
		e.Message = fmt.Sprintf("pipeline %s: step %d: %s", pipeline, i+1, e.Message)
	}
	return &e
}

// sameSteps says whether two pipelines are the same but for who put them when.
func sameSteps(a, b *pb.PipelineRecord) bool {
	x, y := proto.Clone(a).(*pb.PipelineRecord), proto.Clone(b).(*pb.PipelineRecord)
	x.Author, x.Updated, y.Author, y.Updated = "", nil, "", nil
	return proto.Equal(x, y)
}

// pipelineRecord judges what needs no store, and brings it into the form that is kept: steps in their order, numbered.
func pipelineRecord(n NewPipeline) (*pb.PipelineRecord, error) {
	if err := CheckPipelineName(n.Name); err != nil {
		return nil, err
	}
	return newRecord(n)
}

// newRecord is pipelineRecord for any name.
func newRecord(n NewPipeline) (*pb.PipelineRecord, error) {
	if n.Kind == "" {
		n.Kind = string(call.KindRule)
	}
	switch {
	case n.Kind != string(call.KindRule) && n.Kind != string(call.KindAction):
		return nil, errs.New(errs.Invalid, "pipeline %s: there is no kind %.40q of pipelines: use rule or action", n.Name, n.Kind)
	case len(n.Steps) > MaxSteps:
		return nil, errs.New(errs.Invalid, "pipeline %s has %d steps: at most %d", n.Name, len(n.Steps), MaxSteps)
	}
	if err := checkTimeout(n.Timeout); err != nil {
		return nil, errs.New(errs.Invalid, "pipeline %s: %v", n.Name, err)
	}
	rec := &pb.PipelineRecord{
		Name: n.Name, Kind: n.Kind, Timeout: n.Timeout, Author: n.Author, Updated: asTimestamp(time.Now()),
	}
	for i, step := range n.Steps {
		kept, err := stepRecord(step)
		if err != nil {
			return nil, inStep(n.Name, i, err)
		}
		rec.Steps = append(rec.Steps, kept)
	}
	return rec, orderSteps(rec)
}

func stepRecord(step *pb.PipelineStep) (*pb.PipelineStep, error) {
	name, number, err := parseRef(step.GetFunction())
	if err != nil {
		return nil, err
	}
	onFailure, ok := call.ParseFailurePolicy(step.GetOnFailure())
	switch {
	case !ok:
		return nil, errs.New(errs.Invalid, "there is no on_failure %.40q: use fail, skip or last_good", step.GetOnFailure())
	case step.GetOrder() < 0:
		return nil, errs.New(errs.Invalid, "its order is %d: use numbers from 0", step.GetOrder())
	}
	if err := checkTimeout(step.GetTimeout()); err != nil {
		return nil, err
	}
	return &pb.PipelineStep{
		Function: showRef(name, number), Order: step.GetOrder(), Disabled: step.GetDisabled(), Timeout: step.GetTimeout(),
		OnFailure: string(onFailure),
	}, nil
}

// orderSteps sorts steps by their order; if none has one, they stand in it already and are numbered.
func orderSteps(rec *pb.PipelineRecord) error {
	if !slices.ContainsFunc(rec.Steps, func(s *pb.PipelineStep) bool { return s.GetOrder() != 0 }) {
		for i, s := range rec.Steps {
			s.Order = int32(i + 1)
		}
		return nil
	}
	at := map[int32]int{}
	for i, s := range rec.Steps {
		if first, dup := at[s.GetOrder()]; dup {
			return errs.New(errs.Invalid, "pipeline %s: steps %d (%s) and %d (%s) have the same order %d", rec.GetName(), first+1,
				rec.Steps[first].GetFunction(), i+1, s.GetFunction(), s.GetOrder())
		}
		at[s.GetOrder()] = i
	}
	slices.SortFunc(rec.Steps, func(a, b *pb.PipelineStep) int { return int(a.GetOrder()) - int(b.GetOrder()) })
	return nil
}

func checkTimeout(d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	if d.CheckValid() != nil || d.AsDuration() <= 0 {
		return errs.New(errs.Invalid, "the timeout is not a time above 0: leave it out for the default")
	}
	return nil
}

// DeletePipeline removes a pipeline. Its functions stay.
func (s *Service) DeletePipeline(ctx context.Context, t tenant.ID, name string) (int64, error) {
	if err := CheckPipelineName(name); err != nil {
		return 0, err
	}
	return s.write(ctx, "delete pipeline", string(t), func() (store.Txn, error) {
		rev, err := s.get(ctx, store.Pipeline(t, name), &pb.PipelineRecord{})
		if err != nil {
			return store.Txn{}, err
		}
		if rev == 0 {
			return store.Txn{}, noPipeline(t, name)
		}
		u, usageRev, err := s.usageFor(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		u.Pipelines = max(0, u.Pipelines-1)
		txn := store.Txn{
			Guards:  []store.Guard{{Key: store.Pipeline(t, name), ModRevision: rev}},
			Deletes: []string{store.Pipeline(t, name)},
		}
		return txn, putUsage(t, u, usageRev, &txn)
	})
}

func listPipelines(names []string) string {
	if len(names) == 1 {
		return "pipeline " + names[0]
	}
	return "pipelines " + strings.Join(names, ", ")
}
