package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

func (a *app) keysCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "keys", Short: "Create, list and revoke API keys; replace the key-encryption key", Aliases: []string{"key"},
		Example: `  paddock keys create --tenant acme --role invoke --note 'login service'
  paddock keys list --tenant acme
  paddock keys revoke 4f9c2d1ab3e07788`,
	}, a.keysCreate(), a.keysList(), a.keysRevoke(), a.keysRotateKEK())
}

func (a *app) keysCreate() *cobra.Command {
	c := &cobra.Command{
		Use: "create", Short: "Create a key; its secret is shown this once", Args: args(),
		Long: `Create a key and print its secret, which is shown this once and stored nowhere. Roles, each with all that the ones
before it may: invoke (call functions, run code, read logs), deploy (change functions), tenant-admin (keys of the tenant),
operator (everything, of every tenant; belongs to none).`,
		Example: `  paddock keys create --tenant acme
  paddock keys create --tenant acme --role deploy --owner ci --scope functions --ttl 720h
  KEY=$(paddock keys create --role operator --note 'night shift')`,
	}
	owner := c.Flags().String("owner", "", "who uses it: an owner may have two live keys, to replace one by the other (default: the role)")
	scopes := c.Flags().StringSlice("scope", nil, "hold the key to these: "+strings.Join(identity.Resources(), ", ")+" (default: all)")
	role := c.Flags().String("role", "invoke", "invoke, deploy, tenant-admin or operator")
	note := c.Flags().String("note", "", "a remark kept with the key")
	ttl := c.Flags().Duration("ttl", 0, "the key expires after this (default: never)")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if c.Flags().Changed("ttl") && *ttl <= 0 {
			return usageError("ttl %s: use more than 0, or leave it out", *ttl)
		}
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, tenant string) error {
			req := &pb.CreateKeyRequest{Tenant: tenant, Role: *role, Note: *note, Owner: *owner, Scopes: *scopes}
			if *role == "operator" {
				req.Tenant = a.conn.tenant // belongs to none: only a tenant that was named by flag is passed on, and refused
			}
			if *ttl > 0 {
				req.Ttl = durationpb.New(*ttl)
			}
			r, err := pb.NewKeysClient(cc).CreateKey(ctx, req)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(r)
			}
			fmt.Fprintln(a.stdout, r.GetSecret())
			if a.stderrTTY {
				fmt.Fprintf(a.stderr, "key %s (%s%s); the line above is its secret and is not shown again\n", r.GetKey().GetId(),
					r.GetKey().GetRole(), tenantSuffix(r.GetKey().GetTenant()))
			}
			return nil
		})
	})
	return c
}

func tenantSuffix(t string) string {
	if t == "" {
		return ""
	}
	return " of " + t
}

func (a *app) keysList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List keys; an operator without --tenant sees all", Args: args(),
		Example: `  paddock keys list
  paddock keys list --tenant acme`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				r, err := pb.NewKeysClient(cc).ListKeys(ctx, &pb.ListKeysRequest{Tenant: a.namedTenant()})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				rows := [][]string{{"KEY", "TENANT", "ROLE", "OWNER", "SCOPES", "CREATED", "LAST USED", "EXPIRES", "NOTE"}}
				for _, k := range r.GetKeys() {
					expires := "never"
					if k.GetExpires() != nil {
						expires = k.GetExpires().AsTime().Format(time.RFC3339)
					}
					used := "never"
					if k.GetLastUsed() != nil {
						used = ago(k.GetLastUsed())
					}
					rows = append(rows, []string{k.GetId(), orDash(k.GetTenant()), k.GetRole(), safe(k.GetOwner()),
						orDefault(strings.Join(k.GetScopes(), ","), "all"), ago(k.GetCreated()), used, expires, safe(k.GetNote())})
				}
				return table(a.stdout, rows)
			})
		}),
	}
}

func (a *app) keysRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke KEY", Short: "Revoke a key by its id", Args: args("KEY"),
		Example: `  paddock keys revoke 4f9c2d1ab3e07788`,
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				r, err := pb.NewKeysClient(cc).RevokeKey(ctx, &pb.RevokeKeyRequest{Id: args[0]})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				fmt.Fprintf(a.stdout, "%s is revoked\n", args[0])
				return nil
			})
		}),
	}
}
