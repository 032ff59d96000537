package client

import (
	"context"
	"iter"

	pb "paddock/proto/paddock/v1"
)

// The messages of management, as the service defines them.
type (
	// Tenant is whom code is run for.
	Tenant = pb.Tenant
	// Policy is what a tenant may use, and how.
	Policy = pb.Policy
	// Key is an API key, without its secret.
	Key = pb.Key
	// Function is a deployed function as it stands.
	Function = pb.Function
	// Version is one version of a function's code.
	Version = pb.Version
	// Access says who may call a function.
	Access = pb.Access
	// Pipeline is an ordered list of functions that run as one call.
	Pipeline = pb.Pipeline
	// PipelineStep is one of them.
	PipelineStep = pb.PipelineStep
	// Deployment is code to deploy.
	Deployment = pb.DeployFunctionRequest
	// Secret is a secret without its value.
	Secret = pb.Secret
	// CallRecord is a call that ended.
	CallRecord = pb.CallRecord
)

// page is what a list answers at a time.
type page interface{ GetNextPageToken() string }

// pages walks a list, page by page. It ends with the first error.
func pages[Res page, Item any](
	ctx context.Context, fetch func(ctx context.Context, token string) (Res, error), items func(Res) []Item,
) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for token := ""; ; {
			res, err := fetch(ctx, token)
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			for _, item := range items(res) {
				if !yield(item, nil) {
					return
				}
			}
			if token = res.GetNextPageToken(); token == "" {
				return
			}
		}
	}
}
