package main

import (
	"github.com/spf13/cobra"

	pb "paddock/proto/paddock/v1"
)

func (a *app) invokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "invoke NAME[@VERSION]", Short: "Call a deployed function and print what it returns", Args: args("NAME"),
		Example: `  paddock invoke rule --input '{"user":{"email":"a@b.c"}}'
  paddock invoke rule@3 --input @login.json --timeout 2s
  paddock invoke report --idempotent --json`,
	}
	flags := addCallFlags(c)
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		return a.call(cmd.Context(), flags(), &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: args[0]}})
	})
	return c
}
