package catalog

import (
	"context"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// DeployFunction implements paddock.v1.Catalog.
func (s *Server) DeployFunction(ctx context.Context, r *pb.DeployFunctionRequest) (*pb.Function, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	d, err := deployment(r, id.KeyID)
	if err != nil {
		return nil, err
	}
	made, err := s.service.DeployFunction(ctx, id.Tenant, d)
	if err != nil {
		return nil, err
	}
	return showDeployed(made), nil
}

func deployment(r *pb.DeployFunctionRequest, author string) (Deployment, error) {
	kind, ok := call.ParseKind(r.GetKind())
	if !ok {
		return Deployment{}, errs.New(errs.Invalid, "there is no kind %.40q: use auto, function, rule, webtask or action", r.GetKind())
	}
	return Deployment{
		Name: r.GetName(), Source: r.GetSource(), Kind: kind, Runtime: r.GetRuntime(), Note: r.GetNote(), Author: author,
		KeepActive: r.GetKeepActive(), ExpectedRevision: r.GetExpectedRevision(),
	}, nil
}

// GetFunction implements paddock.v1.Catalog.
func (s *Server) GetFunction(ctx context.Context, r *pb.GetFunctionRequest) (*pb.Function, error) {
	_, f, err := s.functionOf(ctx, identity.RoleInvoke, r.GetName())
	if err != nil {
		return nil, err
	}
	return showFunction(f), nil
}

// functionOf returns the tenant of a request, which must include a role, and one of its functions.
func (s *Server) functionOf(ctx context.Context, needs identity.Role, name string) (tenant.ID, *FunctionView, error) {
	id, err := actsFor(ctx, needs)
	if err != nil {
		return "", nil, err
	}
	f, ok := s.view.lookup(id.Tenant, name)
	if !ok {
		return "", nil, noFunction(id.Tenant, name)
	}
	return id.Tenant, f, nil
}

// ListFunctions implements paddock.v1.Catalog.
func (s *Server) ListFunctions(ctx context.Context, r *pb.ListFunctionsRequest) (*pb.ListFunctionsResponse, error) {
	id, err := actsFor(ctx, identity.RoleInvoke)
	if err != nil {
		return nil, err
	}
	size, after, err := page(r)
	if err != nil {
		return nil, err
	}
	out := &pb.ListFunctionsResponse{}
	for _, f := range s.view.Functions(id.Tenant, after, size+1) {
		if len(out.Functions) == size {
			out.NextPageToken = pageToken(out.Functions[size-1].Name)
			break
		}
		out.Functions = append(out.Functions, showFunction(f))
	}
	return out, nil
}

// DeleteFunction implements paddock.v1.Catalog.
func (s *Server) DeleteFunction(ctx context.Context, r *pb.DeleteFunctionRequest) (*pb.DeleteFunctionResponse, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	rev, err := s.service.DeleteFunction(ctx, id.Tenant, r.GetName())
	if err != nil {
		return nil, err
	}
	return &pb.DeleteFunctionResponse{Revision: rev}, nil
}

// UpdateFunction implements paddock.v1.Catalog.
func (s *Server) UpdateFunction(ctx context.Context, r *pb.UpdateFunctionRequest) (*pb.UpdateFunctionResponse, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	f, key, err := s.service.UpdateFunction(ctx, id.Tenant, r.GetName(), AccessChange{Access: r.GetAccess(), NewURLKey: r.GetNewUrlKey()})
	if err != nil {
		return nil, err
	}
	return &pb.UpdateFunctionResponse{Function: showFunction(f), UrlKey: key}, nil
}

// ListVersions implements paddock.v1.Catalog.
func (s *Server) ListVersions(ctx context.Context, r *pb.ListVersionsRequest) (*pb.ListVersionsResponse, error) {
	t, f, err := s.functionOf(ctx, identity.RoleInvoke, r.GetName())
	if err != nil {
		return nil, err
	}
	out := &pb.ListVersionsResponse{Revision: f.Revision}
	for _, v := range f.Versions() {
		out.Versions = append(out.Versions, s.showVersion(t, f, v))
	}
	return out, nil
}

// GetVersion implements paddock.v1.Catalog.
func (s *Server) GetVersion(ctx context.Context, r *pb.GetVersionRequest) (*pb.VersionSource, error) {
	t, f, err := s.functionOf(ctx, identity.RoleDeploy, r.GetName())
	if err != nil {
		return nil, err
	}
	v, source, err := s.service.source(ctx, t, f, r.GetVersion())
	if err != nil {
		return nil, err
	}
	return &pb.VersionSource{Version: s.showVersion(t, f, v), Source: source}, nil
}

// DiffVersions implements paddock.v1.Catalog.
func (s *Server) DiffVersions(ctx context.Context, r *pb.DiffVersionsRequest) (*pb.DiffVersionsResponse, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	d, err := s.service.DiffVersions(ctx, id.Tenant, r.GetName(), r.GetFrom(), r.GetTo())
	if err != nil {
		return nil, err
	}
	return &pb.DiffVersionsResponse{From: d.From, To: d.To, Diff: d.Unified}, nil
}

// ActivateVersion implements paddock.v1.Catalog.
func (s *Server) ActivateVersion(ctx context.Context, r *pb.ActivateVersionRequest) (*pb.Function, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	f, err := s.service.ActivateVersion(ctx, id.Tenant, r.GetName(), r.GetVersion(), r.GetPercent(), r.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	return showFunction(f), nil
}

// RollbackFunction implements paddock.v1.Catalog.
func (s *Server) RollbackFunction(ctx context.Context, r *pb.RollbackFunctionRequest) (*pb.Function, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	f, err := s.service.RollbackFunction(ctx, id.Tenant, r.GetName(), r.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	return showFunction(f), nil
}

// DeleteVersion implements paddock.v1.Catalog.
func (s *Server) DeleteVersion(ctx context.Context, r *pb.DeleteVersionRequest) (*pb.DeleteVersionResponse, error) {
	id, err := actsFor(ctx, identity.RoleDeploy)
	if err != nil {
		return nil, err
	}
	rev, err := s.service.DeleteVersion(ctx, id.Tenant, r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	return &pb.DeleteVersionResponse{Revision: rev}, nil
}

func showDeployed(d Deployed) *pb.Function {
	f := showFunction(d.Function)
	f.DeployedVersion = d.Version.Number
	return f
}

func showFunction(f *FunctionView) *pb.Function {
	a := f.access
	if a == nil {
		a = keyOnly()
	}
	out := &pb.Function{
		Name: f.Name, Version: f.Active, Revision: f.Revision, SplitVersion: f.SplitVersion, SplitPercent: int32(f.SplitPercent),
		Previous: f.Previous,
		Access:   &pb.Access{Mode: string(a.Mode), RatePerSecond: a.RatePerSecond, RateBurst: int32(a.RateBurst)},
	}
	if v, ok := f.Version(0); ok {
		out.Hash, out.SizeBytes, out.Kind, out.Runtime = v.Hash, v.SizeBytes, string(v.Kind), v.Runtime
		out.Author, out.Note, out.Deployed = v.Author, v.Note, asTimestamp(v.Created)
	}
	return out
}

func (s *Server) showVersion(t tenant.ID, f *FunctionView, v *VersionView) *pb.Version {
	return &pb.Version{
		Number: v.Number, Hash: v.Hash, SizeBytes: v.SizeBytes, Kind: string(v.Kind), Runtime: v.Runtime, Author: v.Author,
		Note: v.Note, Created: asTimestamp(v.Created), Active: v.Number == f.Active, Percent: int32(f.Percent(v.Number)),
		UsedBy: s.view.usedBy(t, f.Name, v.Number), Proven: v.Proven,
	}
}
