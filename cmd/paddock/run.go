package main

import (
	"github.com/spf13/cobra"

	pb "paddock/proto/paddock/v1"
)

// addCallFlags adds the flags of a call; the function it returns reads them after parsing.
func addCallFlags(c *cobra.Command) func() callFlags {
	var f callFlags
	c.Flags().StringVarP(&f.input, "input", "i", "", "input as JSON, @FILE, or - for standard input (default null)")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "time limit, for example 3s (default: the tenant's, 10s)")
	c.Flags().BoolVar(&f.fresh, "fresh", false, "in a sandbox of its own, destroyed before the answer is given out")
	c.Flags().BoolVar(&f.idempotent, "idempotent", false, "may be run again if the sandbox is lost")
	return func() callFlags {
		f.timeoutSet = c.Flags().Changed("timeout")
		return f
	}
}

func (a *app) runCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "run FILE|-", Short: "Run a file in a sandbox and print what it returns", Args: args("FILE"),
		Long: `Run the JavaScript in FILE (- reads standard input) once in a sandbox of the tenant and print its value as JSON.
What the code logs goes to standard error. A throw, a rejection or a called-back error makes the exit code 1.`,
		Example: `  paddock run check.js
  paddock run check.js --input '{"url":"https://shop.example/health"}' --timeout 5s
  echo 'module.exports = async () => 6 * 7' | paddock run -
  paddock run rule.js --kind rule --input @login.json --tenant acme --json`,
	}
	flags := addCallFlags(c)
	kind := c.Flags().String("kind", "", "function, rule, webtask or action (default: Paddock looks at the code)")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		source, name, err := a.readSource(args[0])
		if err != nil {
			return err
		}
		f := flags()
		if args[0] == "-" && f.input == "-" {
			return usageError("source and input cannot both come from standard input")
		}
		return a.call(cmd.Context(), f, &pb.InvokeRequest{
			Target: &pb.InvokeRequest_Source{Source: &pb.Source{Code: source.Code, Kind: *kind, Name: name}},
		})
	})
	return c
}
