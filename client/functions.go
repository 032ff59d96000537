package client

import (
	"context"
	"iter"

	pb "paddock/proto/paddock/v1"
)

// Functions manages a tenant's functions and their versions, with a key of the role deploy.
type Functions struct{ c *Client }

// Functions manages functions.
func (c *Client) Functions() Functions { return Functions{c} }

// Deploy makes a version of a function's code and, unless d says keep_active, activates it. The same code twice is the same
// version. Code that does not compile is a failure of the kind LoadError.
func (f Functions) Deploy(ctx context.Context, d *Deployment) (*Function, error) {
	return management(ctx, f.c, pb.NewCatalogClient(f.c.conn).DeployFunction, d)
}

// Get returns a function.
func (f Functions) Get(ctx context.Context, name string) (*Function, error) {
	return management(ctx, f.c, pb.NewCatalogClient(f.c.conn).GetFunction, &pb.GetFunctionRequest{Name: name})
}

// All lists all functions, by name.
func (f Functions) All(ctx context.Context) iter.Seq2[*Function, error] {
	return pages(ctx, func(ctx context.Context, token string) (*pb.ListFunctionsResponse, error) {
		return management(ctx, f.c, pb.NewCatalogClient(f.c.conn).ListFunctions, &pb.ListFunctionsRequest{PageToken: token})
	}, (*pb.ListFunctionsResponse).GetFunctions)
}

// Delete removes a function with its versions. It is refused while a pipeline names it.
func (f Functions) Delete(ctx context.Context, name string) error {
	_, err := management(ctx, f.c, pb.NewCatalogClient(f.c.conn).DeleteFunction, &pb.DeleteFunctionRequest{Name: name})
	return err
}

// SetAccess changes who may call a function.
func (f Functions) SetAccess(ctx context.Context, name string, a *Access) (*Function, error) {
	res, err := management(ctx, f.c, pb.NewCatalogClient(f.c.conn).UpdateFunction, &pb.UpdateFunctionRequest{Name: name, Access: a})
	return res.GetFunction(), err
}

// NewURLKey makes a new ?key= of a function; the old one ends. Nothing gives it out again.
func (f Functions) NewURLKey(ctx context.Context, name string) (key string, err error) {
	res, err := management(ctx, f.c, pb.NewCatalogClient(f.c.conn).UpdateFunction, &pb.UpdateFunctionRequest{Name: name, NewUrlKey: true})
	return res.GetUrlKey(), err
}

// Versions lists a function's versions, newest first.
func (f Functions) Versions(ctx context.Context, name string) ([]*Version, error) {
	res, err := management(ctx, f.c, pb.NewCatalogClient(f.c.conn).ListVersions, &pb.ListVersionsRequest{Name: name})
	return res.GetVersions(), err
}

// Source returns a version with its text; 0 is the active one.
func (f Functions) Source(ctx context.Context, name string, version int64) (*Version, []byte, error) {
	res, err := management(ctx, f.c, pb.NewCatalogClient(f.c.conn).GetVersion, &pb.GetVersionRequest{Name: name, Version: version})
	return res.GetVersion(), res.GetSource(), err
}

// Diff compares two versions, as a unified diff; from 0 is the active one, to 0 the newest.
func (f Functions) Diff(ctx context.Context, name string, from, to int64) (string, error) {
	res, err := management(ctx, f.c, pb.NewCatalogClient(f.c.conn).DiffVersions, &pb.DiffVersionsRequest{Name: name, From: from, To: to})
	return res.GetDiff(), err
}

// Activate makes a version the one that unpinned calls get. percent 1 to 99 gives it that share of them, beside the active one; 0
// and 100 are all. If expected is not 0, the function must still be as of that revision, else the failure is a Conflict.
func (f Functions) Activate(ctx context.Context, name string, version int64, percent int32, expected int64) (*Function, error) {
	return management(ctx, f.c, pb.NewCatalogClient(f.c.conn).ActivateVersion,
		&pb.ActivateVersionRequest{Name: name, Version: version, Percent: percent, ExpectedRevision: expected})
}

// Rollback activates the version that was active before. expected is as for Activate.
func (f Functions) Rollback(ctx context.Context, name string, expected int64) (*Function, error) {
	return management(ctx, f.c, pb.NewCatalogClient(f.c.conn).RollbackFunction,
		&pb.RollbackFunctionRequest{Name: name, ExpectedRevision: expected})
}

// DeleteVersion removes a version that nothing uses.
func (f Functions) DeleteVersion(ctx context.Context, name string, version int64) error {
	_, err := management(ctx, f.c, pb.NewCatalogClient(f.c.conn).DeleteVersion, &pb.DeleteVersionRequest{Name: name, Version: version})
	return err
}

// Pipelines manages a tenant's pipelines, with a key of the role deploy.
type Pipelines struct{ c *Client }

// Pipelines manages pipelines.
func (c *Client) Pipelines() Pipelines { return Pipelines{c} }

// Put makes or replaces a pipeline of functions that are there. If expected is not 0, it must still be as of that revision.
func (p Pipelines) Put(ctx context.Context, pipeline *Pipeline, expected int64) (*Pipeline, error) {
	return management(ctx, p.c, pb.NewCatalogClient(p.c.conn).PutPipeline,
		&pb.PutPipelineRequest{Name: pipeline.GetName(), Pipeline: pipeline, ExpectedRevision: expected})
}

// Publish deploys code and puts the pipeline that runs it, in one atomic step. expected is as for Put.
func (p Pipelines) Publish(
	ctx context.Context, pipeline *Pipeline, code []*Deployment, expected int64,
) (*Pipeline, []*Function, error) {
	res, err := management(ctx, p.c, pb.NewCatalogClient(p.c.conn).PublishPipeline, &pb.PublishPipelineRequest{
		Name: pipeline.GetName(), Pipeline: pipeline, Functions: code, ExpectedRevision: expected})
	return res.GetPipeline(), res.GetFunctions(), err
}

// Get returns a pipeline.
func (p Pipelines) Get(ctx context.Context, name string) (*Pipeline, error) {
	return management(ctx, p.c, pb.NewCatalogClient(p.c.conn).GetPipeline, &pb.GetPipelineRequest{Name: name})
}

// All lists all pipelines, by name.
func (p Pipelines) All(ctx context.Context) iter.Seq2[*Pipeline, error] {
	return pages(ctx, func(ctx context.Context, token string) (*pb.ListPipelinesResponse, error) {
		return management(ctx, p.c, pb.NewCatalogClient(p.c.conn).ListPipelines, &pb.ListPipelinesRequest{PageToken: token})
	}, (*pb.ListPipelinesResponse).GetPipelines)
}

// Delete removes a pipeline; its functions stay.
func (p Pipelines) Delete(ctx context.Context, name string) error {
	_, err := management(ctx, p.c, pb.NewCatalogClient(p.c.conn).DeletePipeline, &pb.DeletePipelineRequest{Name: name})
	return err
}
