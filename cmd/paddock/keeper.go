package main

import (
	"github.com/spf13/cobra"

	"paddock/cmd/paddock/machine"
	"paddock/pool/oci/keeper"
)

// keeperCommand is started by the oci engine, never by people.
func (a *app) keeperCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keeper", Short: "Hold the containers of one controller (started by it)", Hidden: true,
		DisableFlagParsing: true,
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return keeper.Main(cmd.Context(), args, func(o keeper.Options) error { return machine.RemoveRunDir(o.RunDir) })
		}),
	}
}
