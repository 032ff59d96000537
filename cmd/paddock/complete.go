package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

// completeTimeout bounds what the shell waits for after the tabulator key.
const completeTimeout = 2 * time.Second

// names lists what a first argument may be.
type names func(context.Context, pb.CatalogClient) ([]string, error)

// complete completes the first argument with what the service has; where it cannot be asked there is nothing to offer.
func (a *app) complete(list names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, begun string) (found []string, _ cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		_ = a.withTenant(ctx, func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			all, err := list(ctx, pb.NewCatalogClient(cc))
			for _, name := range all {
				if strings.HasPrefix(name, begun) {
					found = append(found, name)
				}
			}
			return err
		})
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

func functionNames(ctx context.Context, cl pb.CatalogClient) (found []string, err error) {
	all, err := allFunctions(ctx, cl)
	for _, f := range all {
		found = append(found, f.GetName())
	}
	return found, err
}

func pipelineNames(ctx context.Context, cl pb.CatalogClient) (found []string, err error) {
	all, err := allPipelines(ctx, cl)
	for _, p := range all {
		found = append(found, p.GetName())
	}
	return found, err
}
