package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

// maxSecretInput is more than a secret may have: what is longer is refused by the service, with the number.
const maxSecretInput = 1 << 20

func (a *app) secretsCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "secrets", Short: "Set, list and remove secrets; rotate their key", Aliases: []string{"secret"},
		Long: `Secrets are a tenant's settings that nobody may read: code gets them with each call as ctx.secrets, and rules as
configuration. They are stored encrypted, and no command shows a value again.`,
		Example: `  paddock secrets set SLACK_HOOK --tenant acme           (asks for the value)
  paddock secrets set DB_PASSWORD --function report --value-file ./password
  pass show db | paddock secrets set DB_PASSWORD -
  paddock secrets list
  paddock secrets rm SLACK_HOOK`,
	}, a.secretsSet(), a.secretsList(), a.secretsRemove(), a.secretsRotate())
}

func (a *app) secretsSet() *cobra.Command {
	c := &cobra.Command{
		Use: "set NAME [-]", Short: "Set a secret; the value is asked for, or read from a file or standard input",
		Long: `Set a secret. The value is asked for at a terminal, without echo, or read from --value-file, or from standard input for
"-"; one line end at its end is not part of it. It is never an argument: arguments stand in the shell's history and in
the list of processes. The next call sees it.`,
		Example: `  paddock secrets set SLACK_HOOK --tenant acme
  paddock secrets set DB_PASSWORD --function report --value-file ./password
  pass show db | paddock secrets set DB_PASSWORD -`,
	}
	c.Args = func(cmd *cobra.Command, given []string) error {
		if len(given) > 1 && (given[1] != "-" || len(given) > 2) { // which may be the value: not to be repeated
			return usageError("a value is never an argument: leave it out and it is asked for, or use --value-file FILE, or - for "+
				"standard input\n%s", hint(cmd))
		}
		return args("NAME", "[-]")(cmd, given)
	}
	file := c.Flags().String("value-file", "", "file that holds the value, or - for standard input")
	function := c.Flags().String("function", "", "only this function gets it, over the tenant's of the same name")
	c.RunE = runE(func(cmd *cobra.Command, given []string) error {
		value, err := a.readSecret(given[0], *file, len(given) > 1)
		if err != nil {
			return err
		}
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			r, err := pb.NewCatalogClient(cc).SetSecret(ctx, &pb.SetSecretRequest{Name: given[0], Function: *function, Value: value})
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(r)
			}
			fmt.Fprintf(a.stdout, "%s is set (%s, revision %d)\n", r.GetName(), scopeOf(r.GetFunction()), r.GetRevision())
			return nil
		})
	})
	return c
}

// readSecret reads a value from where it was said to be, or asks for it.
func (a *app) readSecret(name, file string, fromStdin bool) (string, error) {
	var b []byte
	var err error
	terminal, isFile := a.stdin.(*os.File)
	switch {
	case file != "" && fromStdin:
		return "", usageError("use --value-file or -, not both")
	case file != "" && file != "-":
		b, err = os.ReadFile(file)
	case fromStdin || file == "-":
		b, err = io.ReadAll(io.LimitReader(a.stdin, maxSecretInput))
	case isFile && term.IsTerminal(int(terminal.Fd())):
		fmt.Fprintf(a.stderr, "value of %s (not shown): ", name)
		b, err = term.ReadPassword(int(terminal.Fd()))
		fmt.Fprintln(a.stderr)
	default:
		return "", usageError("there is no terminal to ask for the value at: use --value-file FILE, or - for standard input")
	}
	if err != nil {
		return "", usageError("value of %s: %w", name, err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

func scopeOf(function string) string {
	if function == "" {
		return "all functions"
	}
	return "function " + function
}

func (a *app) secretsList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List secrets, without their values", Args: args(),
		Example: `  paddock secrets list --tenant acme`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
				r, err := pb.NewCatalogClient(cc).ListSecrets(ctx, &pb.ListSecretsRequest{})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				rows := [][]string{{"NAME", "SCOPE", "REVISION", "SET", "BY"}}
				for _, s := range r.GetSecrets() {
					rows = append(rows, []string{s.GetName(), scopeOf(s.GetFunction()), fmt.Sprint(s.GetRevision()), ago(s.GetUpdated()),
						orDash(s.GetAuthor())})
				}
				return table(a.stdout, rows)
			})
		}),
	}
}

func (a *app) secretsRemove() *cobra.Command {
	c := &cobra.Command{
		Use: "rm NAME", Short: "Remove a secret", Aliases: []string{"remove", "delete"}, Args: args("NAME"),
		Example: `  paddock secrets rm SLACK_HOOK --tenant acme
  paddock secrets rm DB_PASSWORD --function report`,
	}
	function := c.Flags().String("function", "", "the function that alone gets it")
	c.RunE = runE(func(cmd *cobra.Command, given []string) error {
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			r, err := pb.NewCatalogClient(cc).DeleteSecret(ctx, &pb.DeleteSecretRequest{Name: given[0], Function: *function})
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(r)
			}
			fmt.Fprintf(a.stdout, "%s is gone (%s)\n", given[0], scopeOf(*function))
			return nil
		})
	})
	return c
}

func (a *app) secretsRotate() *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Give the tenant a new data key and encrypt its secrets and code again", Args: args(),
		Example: `  paddock secrets rotate --tenant acme`,
		Long: `Give the tenant a new data key and encrypt its secrets and code again. Values stay as they are, and calls go on. The old
key goes after an hour; until then another rotation makes no new key, but encrypts what is left of a rotation that was
broken off.`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
				r, err := pb.NewCatalogClient(cc).RotateDataKey(ctx, &pb.RotateDataKeyRequest{})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				fmt.Fprintf(a.stdout, "encrypted again: %d secrets, %d pieces of code\n", r.GetSecrets(), r.GetBlobs())
				return nil
			})
		}),
	}
}

func (a *app) keysRotateKEK() *cobra.Command {
	return &cobra.Command{
		Use: "rotate-kek", Short: "Replace the key-encryption key; operators only", Args: args(),
		Example: `  paddock keys rotate-kek`,
		Long: `Replace the key that wraps the tenants' data keys, and wrap all of them again. Calls go on. The old key goes after an
hour; until then another rotation makes no new key, but ends one that was broken off. Once it has gone, backups made
before cannot be read any more, nor what they hold of tenants that were deleted: make new backups, of the key as well.`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				r, err := pb.NewKeysClient(cc).RotateKEK(ctx, &pb.RotateKEKRequest{})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				fmt.Fprintf(a.stdout, "wrapped again: the data keys of %s\n", count(int64(r.GetTenants()), "tenant"))
				return nil
			})
		}),
	}
}
