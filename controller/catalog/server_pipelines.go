package catalog

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// PutPipeline implements paddock.v1.Catalog.
func (s *Server) PutPipeline(ctx context.Context, r *pb.PutPipelineRequest) (*pb.Pipeline, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	n, err := newPipeline(r.GetName(), r.GetPipeline(), id.KeyID, r.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	p, err := s.service.PutPipeline(ctx, id.Tenant, n)
	if err != nil {
		return nil, err
	}
	return showPipeline(p), nil
}

// PublishPipeline implements paddock.v1.Catalog.
func (s *Server) PublishPipeline(ctx context.Context, r *pb.PublishPipelineRequest) (*pb.PublishPipelineResponse, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	n, err := newPipeline(r.GetName(), r.GetPipeline(), id.KeyID, r.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	code := make([]Deployment, len(r.GetFunctions()))
	for i, f := range r.GetFunctions() {
		if code[i], err = deployment(f, id.KeyID); err != nil {
			return nil, err
		}
	}
	done, err := s.service.PublishPipeline(ctx, id.Tenant, n, code)
	if err != nil {
		return nil, err
	}
	out := &pb.PublishPipelineResponse{Pipeline: showPipeline(done.Pipeline)}
	for _, d := range done.Functions {
		out.Functions = append(out.Functions, showDeployed(d))
	}
	return out, nil
}

// newPipeline takes the name from the request or, if that has none, from the pipeline in it.
func newPipeline(name string, p *pb.Pipeline, author string, expected int64) (NewPipeline, error) {
	switch {
	case p == nil:
		return NewPipeline{}, errs.New(errs.Invalid, "there is no pipeline in the request: name its steps")
	case name == "":
		name = p.GetName()
	case p.GetName() != "" && p.GetName() != name:
		return NewPipeline{}, errs.New(errs.Invalid, "the request is for pipeline %.80q, and has one named %.80q", name, p.GetName())
	}
	return NewPipeline{
		Name: name, Kind: p.GetKind(), Steps: p.GetSteps(), Timeout: p.GetTimeout(), Author: author, ExpectedRevision: expected,
	}, nil
}

// GetPipeline implements paddock.v1.Catalog.
func (s *Server) GetPipeline(ctx context.Context, r *pb.GetPipelineRequest) (*pb.Pipeline, error) {
	id, err := actsFor(ctx, identity.RoleInvoke)
	if err != nil {
		return nil, err
	}
	p, ok := s.view.Pipeline(id.Tenant, r.GetName())
	if !ok {
		return nil, noPipeline(id.Tenant, r.GetName())
	}
	return showPipeline(p), nil
}

// ListPipelines implements paddock.v1.Catalog.
func (s *Server) ListPipelines(ctx context.Context, r *pb.ListPipelinesRequest) (*pb.ListPipelinesResponse, error) {
	id, err := actsFor(ctx, identity.RoleInvoke)
	if err != nil {
		return nil, err
	}
	size, after, err := page(r)
	if err != nil {
		return nil, err
	}
	out := &pb.ListPipelinesResponse{}
	for _, p := range s.view.Pipelines(id.Tenant, after, size+1) {
		if len(out.Pipelines) == size {
			out.NextPageToken = pageToken(out.Pipelines[size-1].Name)
			break
		}
		out.Pipelines = append(out.Pipelines, showPipeline(p))
	}
	return out, nil
}

// DeletePipeline implements paddock.v1.Catalog.
func (s *Server) DeletePipeline(ctx context.Context, r *pb.DeletePipelineRequest) (*pb.DeletePipelineResponse, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	rev, err := s.service.DeletePipeline(ctx, id.Tenant, r.GetName())
	if err != nil {
		return nil, err
	}
	return &pb.DeletePipelineResponse{Revision: rev}, nil
}

func showPipeline(p *PipelineView) *pb.Pipeline {
	out := &pb.Pipeline{
		Name: p.Name, Kind: string(p.Kind), Author: p.Author, Updated: asTimestamp(p.Updated), Revision: p.Revision,
	}
	if p.Timeout > 0 {
		out.Timeout = durationpb.New(p.Timeout)
	}
	for i := range p.Steps {
		step := &p.Steps[i]
		shown := &pb.PipelineStep{
			Function: showRef(step.Function, step.Version), Order: step.Order, Disabled: step.Disabled, OnFailure: string(step.OnFailure),
		}
		if step.Timeout > 0 {
			shown.Timeout = durationpb.New(step.Timeout)
		}
		out.Steps = append(out.Steps, shown)
	}
	return out
}
