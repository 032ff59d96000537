package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

func (a *app) deployCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "deploy FILE|-", Short: "Store a file as a named function", Args: args("FILE"),
		Long: `Store the JavaScript in FILE as the newest version of a function and make it the active one. The same code again is
the same version. Versions never change: NAME@VERSION always calls the same code.

TypeScript, files that FILE imports, and modules that are installed beside it and not in the sandbox are bundled into one
file here, with a source map, so that stack traces show your lines. Plain JavaScript is stored byte for byte.`,
		Example: `  paddock deploy rule.js --name rule --tenant acme
  paddock deploy src/rule.ts --name rule
  paddock deploy check.js --kind function --note 'follow the new login form'`,
	}
	name := c.Flags().String("name", "", "function's name (default: the file's name without its ending)")
	kind := c.Flags().String("kind", "", "function, rule, webtask or action (default: Paddock looks at the code)")
	note := c.Flags().String("note", "", "a remark kept with the version")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		source, file, err := a.readSource(args[0])
		if err != nil {
			return err
		}
		if *name == "" {
			if args[0] == "-" {
				return usageError("deploy from standard input needs --name")
			}
			*name = bareName(file)
		}
		req := &pb.DeployFunctionRequest{Name: *name, Source: source, Kind: *kind, Note: *note}
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			f, err := pb.NewCatalogClient(cc).DeployFunction(ctx, req)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(f)
			}
			fmt.Fprintf(a.stdout, "%s@%d is active (%s, %s)\n", f.GetName(), f.GetVersion(), sizeText(f.GetSizeBytes()), shortID(f.GetHash()))
			return nil
		})
	})
	return c
}
