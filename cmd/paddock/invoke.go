package main

import (
	"github.com/spf13/cobra"

	pb "paddock/proto/paddock/v1"
)

func (a *app) invokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "invoke NAME[@VERSION]", Short: "Call a deployed function or a pipeline and print what it returns", Args: args("NAME"),
		Long: `Call a deployed function, or with --pipeline a pipeline, and print the value as JSON. What the code logs goes to
standard error, and for a pipeline what became of each step. A failure or a refusal makes the exit code 1.`,
		Example: `  paddock invoke rule --input '{"user":{"email":"a@b.c"}}'
  paddock invoke rule@3 --input @login.json --timeout 2s
  paddock invoke --pipeline login --input @login.json
  paddock invoke report --idempotent --json`,
	}
	pipeline := c.Flags().Bool("pipeline", false, "NAME is a pipeline")
	c.ValidArgsFunction = func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		if *pipeline {
			return a.complete(pipelineNames)(cmd, given, begun)
		}
		return a.complete(functionNames)(cmd, given, begun)
	}
	flags := addCallFlags(c)
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		req := &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: args[0]}}
		if *pipeline {
			req.Target = &pb.InvokeRequest_Pipeline{Pipeline: args[0]}
		}
		return a.call(cmd.Context(), flags(), req)
	})
	return c
}
