package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	pb "paddock/proto/paddock/v1"
)

func (a *app) functionsCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "functions", Short: "Functions and their versions: list, compare, activate, roll back", Aliases: []string{"function", "fn"},
		Long: `A function has versions, which never change. Calls of NAME get the active one, or a share of them another one; calls of
NAME@VERSION always get that one.`,
		Example: `  paddock functions list --tenant acme
  paddock functions versions rule
  paddock functions diff rule 3 4
  paddock functions activate rule 4 --percent 10
  paddock functions rollback rule
  paddock functions access hook --url-key --rate 5`,
	}, a.functionsList(), a.functionsShow(), a.functionsVersions(), a.functionsDiff(), a.functionsActivate(), a.functionsRollback(),
		a.functionsAccess(), a.functionsDelete())
}

// onCatalog makes the body of a command that speaks to the catalogue within one tenant.
func (a *app) onCatalog(c *cobra.Command, body func(ctx context.Context, cl pb.CatalogClient, args []string) error) *cobra.Command {
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			return body(ctx, pb.NewCatalogClient(cc), args)
		})
	})
	return c
}

// onFunction is onCatalog for a command whose first argument is a function's name.
func (a *app) onFunction(c *cobra.Command, body func(ctx context.Context, cl pb.CatalogClient, args []string) error) *cobra.Command {
	c.ValidArgsFunction = a.complete(functionNames)
	return a.onCatalog(c, body)
}

func (a *app) functionsList() *cobra.Command {
	return a.onCatalog(&cobra.Command{Use: "list", Short: "List a tenant's functions", Args: args(), Example: `  paddock functions list --tenant acme`},
		func(ctx context.Context, cl pb.CatalogClient, _ []string) error {
			all, err := allFunctions(ctx, cl)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(&pb.ListFunctionsResponse{Functions: all})
			}
			rows := [][]string{{"NAME", "VERSION", "KIND", "SIZE", "DEPLOYED", "BY", "ACCESS", "NOTE"}}
			for _, f := range all {
				rows = append(rows, []string{f.GetName(), versionText(f), orDefault(f.GetKind(), "auto"),
					sizeText(f.GetSizeBytes()), ago(f.GetDeployed()), orDash(f.GetAuthor()), accessText(f.GetAccess()), safe(f.GetNote())})
			}
			return table(a.stdout, rows)
		})
}

func allFunctions(ctx context.Context, cl pb.CatalogClient) ([]*pb.Function, error) {
	return pages(func(token string) ([]*pb.Function, string, error) {
		r, err := cl.ListFunctions(ctx, &pb.ListFunctionsRequest{PageToken: token})
		return r.GetFunctions(), r.GetNextPageToken(), err
	})
}

// versionText is the active version, with the one that has a share beside it: "3, 4 for 10%".
func versionText(f *pb.Function) string {
	text := fmt.Sprint(f.GetVersion())
	if f.GetSplitVersion() > 0 {
		text += fmt.Sprintf(", %d for %d%%", f.GetSplitVersion(), f.GetSplitPercent())
	}
	return text
}

func (a *app) functionsShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show NAME[@VERSION]", Short: "Show a function or one of its versions, with its source if asked for", Args: args("NAME[@VERSION]"),
		Example: `  paddock functions show rule
  paddock functions show rule@3 --source > rule.js`,
	}
	source := c.Flags().Bool("source", false, "print the source and nothing else")
	return a.onFunction(c, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		name, version, err := nameVersion(args[0])
		if err != nil {
			return err
		}
		if version > 0 || *source {
			return a.showVersion(ctx, cl, name, version, *source)
		}
		f, err := cl.GetFunction(ctx, &pb.GetFunctionRequest{Name: name})
		if err != nil {
			return err
		}
		if a.jsonOut {
			return a.printProto(f)
		}
		previous := "-"
		if f.GetPrevious() > 0 {
			previous = fmt.Sprint(f.GetPrevious())
		}
		return table(a.stdout, [][]string{
			{"name", f.GetName()}, {"version", versionText(f)}, {"rolls back to", previous}, {"kind", orDefault(f.GetKind(), "auto")},
			{"runtime", f.GetRuntime()}, {"size", sizeText(f.GetSizeBytes())}, {"sha256", f.GetHash()}, {"deployed", ago(f.GetDeployed())},
			{"by", orDash(f.GetAuthor())}, {"access", accessText(f.GetAccess())}, {"note", orDash(safe(f.GetNote()))},
		})
	})
}

func (a *app) showVersion(ctx context.Context, cl pb.CatalogClient, name string, version int64, source bool) error {
	r, err := cl.GetVersion(ctx, &pb.GetVersionRequest{Name: name, Version: version})
	if err != nil {
		return err
	}
	v := r.GetVersion()
	if a.jsonOut {
		about, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(v)
		if err != nil {
			return err
		}
		return a.printJSON(struct {
			Version json.RawMessage `json:"version"`
			Source  string          `json:"source"`
		}{about, string(r.GetSource())})
	}
	if source {
		text := string(r.GetSource())
		if a.stdoutTTY {
			text = safe(text)
		}
		_, err := fmt.Fprint(a.stdout, text)
		return err
	}
	return table(a.stdout, [][]string{
		{"name", name}, {"version", fmt.Sprint(v.GetNumber())}, {"share", shareText(v)}, {"kind", orDefault(v.GetKind(), "auto")},
		{"runtime", v.GetRuntime()}, {"size", sizeText(v.GetSizeBytes())}, {"sha256", v.GetHash()}, {"deployed", ago(v.GetCreated())},
		{"by", orDash(v.GetAuthor())}, {"pinned by", orDash(strings.Join(v.GetUsedBy(), ", "))}, {"note", orDash(safe(v.GetNote()))},
	})
}

func (a *app) functionsDelete() *cobra.Command {
	return a.onFunction(&cobra.Command{
		Use: "delete NAME[@VERSION]", Short: "Delete a function with all its versions, or one version", Args: args("NAME[@VERSION]"),
		Long: `Delete a function with all its versions, or one version of it. What a pipeline names is not deleted, nor a version that is
active or has a share of the calls.`,
		Example: `  paddock functions delete rule
  paddock functions delete rule@2`,
	}, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		name, version, err := nameVersion(args[0])
		if err != nil {
			return err
		}
		if version > 0 {
			r, err := cl.DeleteVersion(ctx, &pb.DeleteVersionRequest{Name: name, Version: version})
			return a.gone(args[0], r, err)
		}
		r, err := cl.DeleteFunction(ctx, &pb.DeleteFunctionRequest{Name: name})
		return a.gone(name, r, err)
	})
}

// nameVersion splits NAME@VERSION; the version is 0 where none is named.
func nameVersion(s string) (name string, version int64, err error) {
	name, text, pinned := strings.Cut(s, "@")
	if !pinned {
		return name, 0, nil
	}
	version, err = parseVersion(text)
	return name, version, err
}

func parseVersion(s string) (int64, error) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 1 {
		return 0, usageError("version %q: use a number from 1, as 'paddock functions versions NAME' shows them", s)
	}
	return v, nil
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
