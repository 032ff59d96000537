package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"paddock/cmd/paddock/bundle"
	"paddock/cmd/paddock/project"
	pb "paddock/proto/paddock/v1"
)

func (a *app) deployCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "deploy FILE|-", Short: "Store a file as a named function", Args: args("FILE"),
		Long: `Store the JavaScript in FILE as the newest version of a function and make it the active one. The same code again is
the same version. Versions never change: NAME@VERSION always calls the same code. Code that does not compile is refused, with
the place.

TypeScript, files that FILE imports, and modules that are installed beside it and not in the sandbox are bundled into one
file here, with a source map, so that stack traces show your lines. Plain JavaScript is stored byte for byte.`,
		Example: `  paddock deploy rule.js --name rule --tenant acme
  paddock deploy src/rule.ts --name rule --no-activate
  paddock deploy check.js --kind function --note 'follow the new login form'`,
	}
	name := c.Flags().String("name", "", "function's name (default: the file's name without its ending)")
	kind := c.Flags().String("kind", "", "function, rule, webtask or action (default: Paddock looks at the code)")
	note := c.Flags().String("note", "", "a remark kept with the version")
	keep := c.Flags().Bool("no-activate", false, "only store the version: calls go on with the one that is active")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		b, file, err := a.readSource(args[0])
		if err != nil {
			return err
		}
		if *name == "" {
			if args[0] == "-" {
				return usageError("deploy from standard input needs --name")
			}
			*name = project.BareName(file)
		}
		req := &pb.DeployFunctionRequest{Name: *name, Source: b.Code, Kind: *kind, Note: *note, KeepActive: *keep}
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			return a.deploy(ctx, pb.NewCatalogClient(cc), req, b)
		})
	})
	return c
}

func (a *app) deploy(ctx context.Context, cl pb.CatalogClient, req *pb.DeployFunctionRequest, b bundle.Result) error {
	f, err := cl.DeployFunction(ctx, req)
	switch {
	case err != nil:
		return explainDeploy(err, b)
	case a.jsonOut:
		return a.printProto(f)
	}
	made := f.GetDeployedVersion()
	if made != 0 && made != f.GetVersion() {
		_, err = fmt.Fprintf(a.stdout, "%s@%d is stored, %s@%d stays active\n", f.GetName(), made, f.GetName(), f.GetVersion())
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s@%d is active (%s, %s)\n", f.GetName(), f.GetVersion(), sizeText(f.GetSizeBytes()), shortID(f.GetHash()))
	return err
}

// largeBundle is the size from which a refused bundle is taken apart.
const largeBundle = 256 << 10

// explainDeploy adds to a refusal what makes a bundle large; that it is too large only the service knows.
func explainDeploy(err error, b bundle.Result) error {
	if status.Code(err) != codes.InvalidArgument || len(b.Code) < largeBundle || len(b.Parts) == 0 {
		return err
	}
	var parts []string
	for _, p := range b.Parts[:min(len(b.Parts), 5)] {
		parts = append(parts, fmt.Sprintf("%s %s", p.Name, sizeText(p.Bytes)))
	}
	known := classify(err)
	return &exitError{code: known.code, err: fmt.Errorf("%w\nit is a bundle of %d files, %s with its source map; most of it: %s", known.err,
		len(b.Files), sizeText(int64(len(b.Code))), strings.Join(parts, ", "))}
}
