package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

func (a *app) functionsCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "functions", Short: "List, show and delete deployed functions", Aliases: []string{"function", "fn"},
		Example: `  paddock functions list --tenant acme
  paddock functions show rule
  paddock functions delete rule`,
	}, a.functionsList(), a.functionsShow(), a.functionsDelete())
}

func (a *app) functionsList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List a tenant's functions", Args: args(),
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
				all, err := pages(func(token string) ([]*pb.Function, string, error) {
					r, err := pb.NewCatalogClient(cc).ListFunctions(ctx, &pb.ListFunctionsRequest{PageToken: token})
					return r.GetFunctions(), r.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(&pb.ListFunctionsResponse{Functions: all})
				}
				rows := [][]string{{"NAME", "VERSION", "KIND", "SIZE", "DEPLOYED", "BY", "NOTE"}}
				for _, f := range all {
					rows = append(rows, []string{f.GetName(), fmt.Sprint(f.GetVersion()), orDefault(f.GetKind(), "auto"),
						sizeText(f.GetSizeBytes()), ago(f.GetDeployed()), orDash(f.GetAuthor()), safe(f.GetNote())})
				}
				return table(a.stdout, rows)
			})
		}),
	}
}

func (a *app) functionsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a function's active version", Args: args("NAME"),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
				f, err := pb.NewCatalogClient(cc).GetFunction(ctx, &pb.GetFunctionRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(f)
				}
				return table(a.stdout, [][]string{
					{"name", f.GetName()}, {"version", fmt.Sprint(f.GetVersion())}, {"kind", orDefault(f.GetKind(), "auto")},
					{"runtime", f.GetRuntime()}, {"size", sizeText(f.GetSizeBytes())}, {"sha256", f.GetHash()},
					{"deployed", ago(f.GetDeployed())}, {"by", orDash(f.GetAuthor())}, {"note", orDash(safe(f.GetNote()))},
				})
			})
		}),
	}
}

func (a *app) functionsDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a function and its versions", Args: args("NAME"),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
				r, err := pb.NewCatalogClient(cc).DeleteFunction(ctx, &pb.DeleteFunctionRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				fmt.Fprintf(a.stdout, "%s is gone\n", args[0])
				return nil
			})
		}),
	}
}

// pages collects a listing that comes in pages.
func pages[T any](page func(token string) ([]T, string, error)) (all []T, err error) {
	for token := ""; ; {
		some, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if next == "" || next == token {
			return all, nil
		}
		token = next
	}
}
