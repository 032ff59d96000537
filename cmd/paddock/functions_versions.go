package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "paddock/proto/paddock/v1"
)

func (a *app) functionsVersions() *cobra.Command {
	return a.onFunction(&cobra.Command{
		Use: "versions NAME", Short: "List a function's versions, newest first", Args: args("NAME"),
		Long: `List a function's versions, newest first. One that has succeeded 100 times is proven: it runs instead of a later one that
fails in a pipeline's step with on_failure: last_good.`,
		Example: `  paddock functions versions rule --tenant acme`,
	}, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		r, err := cl.ListVersions(ctx, &pb.ListVersionsRequest{Name: args[0]})
		if err != nil {
			return err
		}
		if a.jsonOut {
			return a.printProto(r)
		}
		rows := [][]string{{"VERSION", "SHARE", "PROVEN", "KIND", "SIZE", "SHA256", "DEPLOYED", "BY", "PINNED BY", "NOTE"}}
		for _, v := range r.GetVersions() {
			rows = append(rows, []string{fmt.Sprint(v.GetNumber()), shareText(v), provenText(v), orDefault(v.GetKind(), "auto"), sizeText(v.GetSizeBytes()),
				shortID(v.GetHash()), ago(v.GetCreated()), orDash(v.GetAuthor()), orDash(strings.Join(v.GetUsedBy(), ",")), safe(v.GetNote())})
		}
		return table(a.stdout, rows)
	})
}

// provenText says whether a version may stand in for a later one.
func provenText(v *pb.Version) string {
	if v.GetProven() {
		return "yes"
	}
	return "-"
}

// shareText says which part of the unpinned calls a version gets.
func shareText(v *pb.Version) string {
	switch {
	case v.GetActive() && (v.GetPercent() == 0 || v.GetPercent() == 100):
		return "active"
	case v.GetActive():
		return fmt.Sprintf("active, %d%%", v.GetPercent())
	case v.GetPercent() > 0:
		return fmt.Sprintf("%d%%", v.GetPercent())
	}
	return "-"
}

func (a *app) functionsDiff() *cobra.Command {
	return a.onFunction(&cobra.Command{
		Use: "diff NAME [FROM] [TO]", Short: "Compare two versions line by line", Args: args("NAME", "[FROM]", "[TO]"),
		Long: `Compare two versions of a function line by line. Without numbers the active version is compared with the newest one,
with one number that version with the newest one.`,
		Example: `  paddock functions diff rule
  paddock functions diff rule 3 4`,
	}, func(ctx context.Context, cl pb.CatalogClient, args []string) (err error) {
		req := &pb.DiffVersionsRequest{Name: args[0]}
		for i, to := range []*int64{&req.From, &req.To} {
			if len(args) > i+1 {
				if *to, err = parseVersion(args[i+1]); err != nil {
					return err
				}
			}
		}
		r, err := cl.DiffVersions(ctx, req)
		switch {
		case err != nil:
			return err
		case a.jsonOut:
			return a.printProto(r)
		case r.GetDiff() == "":
			fmt.Fprintf(a.stderr, "%s@%d and %s@%d are the same\n", args[0], r.GetFrom(), args[0], r.GetTo())
			return nil
		}
		_, err = fmt.Fprint(a.stdout, a.colourDiff(r.GetDiff()))
		return err
	})
}

// colourDiff shows a unified diff in colour on a terminal.
func (a *app) colourDiff(diff string) string {
	if !a.stdoutTTY {
		return diff
	}
	colours := map[byte]string{'-': "\x1b[31m", '+': "\x1b[32m", '@': "\x1b[36m"}
	var b strings.Builder
	for line := range strings.Lines(safe(diff)) {
		text := strings.TrimSuffix(line, "\n")
		if colour := colours[line[0]]; colour != "" {
			text = colour + text + "\x1b[0m"
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

func (a *app) functionsActivate() *cobra.Command {
	c := &cobra.Command{
		Use: "activate NAME[@VERSION] [VERSION]", Short: "Let a version get the unpinned calls, or a share of them",
		Args: args("NAME[@VERSION]", "[VERSION]"),
		Example: `  paddock functions activate rule 4
  paddock functions activate rule@4 --percent 10     (a tenth of the calls; the active version keeps the rest)`,
	}
	percent := c.Flags().Int32("percent", 0, "share of the calls beside the active version, 1 to 99 (default: all of them)")
	return a.onFunction(c, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		name, version, err := nameVersion(args[0])
		if len(args) > 1 && err == nil && version == 0 {
			version, err = parseVersion(args[1])
		}
		switch {
		case err != nil:
			return err
		case version == 0:
			return usageError("%s: VERSION is missing\n%s", c.CommandPath(), hint(c))
		case c.Flags().Changed("percent") && (*percent < 1 || *percent > 100):
			return usageError("percent %d: use 1 to 100", *percent)
		}
		f, err := cl.ActivateVersion(ctx, &pb.ActivateVersionRequest{Name: name, Version: version, Percent: *percent})
		return a.printActive(f, err)
	})
}

func (a *app) functionsRollback() *cobra.Command {
	return a.onFunction(&cobra.Command{
		Use: "rollback NAME", Short: "Activate the version that was active before", Args: args("NAME"),
		Long: `Activate the version that was active before; done again, it goes one further back. A share that another version has
ends with it.`,
		Example: `  paddock functions rollback rule`,
	}, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		f, err := cl.RollbackFunction(ctx, &pb.RollbackFunctionRequest{Name: args[0]})
		return a.printActive(f, err)
	})
}

// printActive says which version of a function is active now.
func (a *app) printActive(f *pb.Function, err error) error {
	switch {
	case err != nil:
		return err
	case a.jsonOut:
		return a.printProto(f)
	}
	fmt.Fprintf(a.stdout, "%s@%d is active", f.GetName(), f.GetVersion())
	if f.GetSplitVersion() > 0 {
		fmt.Fprintf(a.stdout, ", %s@%d gets %d%% of the calls", f.GetName(), f.GetSplitVersion(), f.GetSplitPercent())
	}
	_, err = fmt.Fprintln(a.stdout)
	return err
}

// gone says that something was deleted.
func (a *app) gone(what string, r proto.Message, err error) error {
	switch {
	case err != nil:
		return err
	case a.jsonOut:
		return a.printProto(r)
	}
	_, err = fmt.Fprintf(a.stdout, "%s is gone\n", what)
	return err
}
