package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

const rootHelp = `Paddock runs code that you do not trust, for many tenants, in warm sandboxes on your own machines.

  paddock up                       start the service (as root)
  paddock run check.js             run a file in a sandbox and print what it returns
  paddock deploy rule.js --name rule
  paddock invoke rule --input '{"user":{"email":"a@b.c"}}'

Client commands find a running 'paddock up' on the same machine by themselves when run as root. Elsewhere set
PADDOCK_URL, PADDOCK_KEY and, with an operator's key, PADDOCK_TENANT; the flags win over them.

Exit codes: 0 fine; 1 the code that ran failed; 2 the command or the request is wrong or not allowed; 3 Paddock, the
machine or the way there failed.`

// rootCommand puts the commands together.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "paddock", Short: "Run untrusted code in warm sandboxes", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.RunE = func(cmd *cobra.Command, given []string) error {
		if len(given) == 0 {
			return cmd.Help()
		}
		text := fmt.Sprintf("there is no command %q", given[0])
		if near := cmd.SuggestionsFor(given[0]); len(near) > 0 {
			text += fmt.Sprintf("; did you mean %s?", strings.Join(near, ", "))
		}
		return usageError("%s\nrun 'paddock help' for the commands", text)
	}
	root.SuggestionsMinimumDistance = 2
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetIn(a.stdin)
	root.AddGroup(&cobra.Group{ID: "serve", Title: "Serve:"}, &cobra.Group{ID: "code", Title: "Run code:"},
		&cobra.Group{ID: "manage", Title: "Manage:"})
	root.SetHelpCommandGroupID("")
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("serve", a.upCommand(), a.controllerCommand(), a.routerCommand(), a.storeCommand(), a.doctorCommand(), a.certsCommand(), a.backupCommand(), a.restoreCommand())
	add("code", a.client(a.runCommand()), a.client(a.devCommand()), a.client(a.tryCommand()), a.client(a.testCommand()),
		a.client(a.deployCommand()), a.client(a.publishCommand()), a.client(a.invokeCommand()), a.client(a.functionsCommand()),
		a.client(a.pipelinesCommand()), a.client(a.logsCommand()), a.client(a.callsCommand()))
	add("manage", a.client(a.tenantsCommand()), a.client(a.keysCommand()), a.client(a.secretsCommand()),
		a.client(a.poolCommand()), a.client(a.runtimeCommand()), a.client(a.auditCommand()), a.client(a.topCommand()))
	add("", a.versionCommand(), a.keeperCommand())
	return root
}

// client gives a command, and those below it, the flags that say where the service is and how to print.
func (a *app) client(c *cobra.Command) *cobra.Command {
	f := c.PersistentFlags()
	f.StringVar(&a.conn.url, "url", "", "the service, for example https://paddock.example:8080 (or PADDOCK_URL)")
	f.StringVar(&a.conn.key, "key", "", "API key (or PADDOCK_KEY; @FILE reads a file)")
	f.StringVar(&a.conn.dataDir, "data-dir", "", "which 'paddock up' on this machine, if several run (or PADDOCK_DATA_DIR)")
	f.StringVar(&a.conn.ca, "ca", "", "PEM file of the authority that signed the service's certificate (or PADDOCK_CA)")
	if f.Lookup("tenant") == nil {
		f.StringVarP(&a.conn.tenant, "tenant", "t", "", "tenant, with an operator's key (or PADDOCK_TENANT)")
	}
	f.BoolVar(&a.jsonOut, "json", false, "print JSON for scripts")
	return c
}

// args checks the number of arguments and says by name what is missing or too much.
func args(names ...string) cobra.PositionalArgs {
	least := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
	}
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < least:
			return usageError("%s: %s is missing\n%s", cmd.CommandPath(), names[len(given)], hint(cmd))
		case len(given) > len(names):
			return usageError("%s: unexpected argument %q\n%s", cmd.CommandPath(), given[len(names)], hint(cmd))
		}
		return nil
	}
}

func hint(cmd *cobra.Command) string {
	return fmt.Sprintf("usage: %s", cmd.UseLine())
}

// group is a command that has commands below it. Named alone it lists, if it can; naming one that is not there is an error.
func group(c *cobra.Command, below ...*cobra.Command) *cobra.Command {
	c.AddCommand(below...)
	c.RunE = func(cmd *cobra.Command, given []string) error {
		var names []string
		for _, b := range below {
			names = append(names, b.Name())
		}
		if len(given) > 0 {
			return usageError("%s: there is no %q; use %s", cmd.CommandPath(), given[0], strings.Join(names, ", "))
		}
		for _, b := range below {
			if b.Name() == "list" {
				b.SetContext(cmd.Context())
				return b.RunE(b, nil)
			}
		}
		return usageError("%s: say what: %s", cmd.CommandPath(), strings.Join(names, ", "))
	}
	c.Args = cobra.ArbitraryArgs
	return c
}
