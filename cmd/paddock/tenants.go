package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"paddock/internal/config"
	pb "paddock/proto/paddock/v1"
)

func (a *app) tenantsCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "tenants", Short: "Create, change, suspend and delete tenants", Aliases: []string{"tenant"},
		Example: `  paddock tenants create acme --egress api.example.com:443 --egress '*.shop.example:443'
  paddock tenants update acme --timeout 5s --concurrency 200
  paddock tenants suspend acme
  paddock tenants delete acme`,
	}, a.tenantsCreate(), a.tenantsUpdate(), a.tenantsList(), a.tenantsShow(), a.tenantsSuspend(), a.tenantsResume(), a.tenantsDelete())
}

// tenantCall is a command about one tenant, which it then shows.
func (a *app) tenantCall(c *cobra.Command, call func(context.Context, pb.CatalogClient, string) (*pb.Tenant, error)) *cobra.Command {
	c.Args = args("TENANT")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			t, err := call(ctx, pb.NewCatalogClient(cc), args[0])
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(t)
			}
			return a.printTenant(cmd, t)
		})
	})
	return c
}

func (a *app) printTenant(cmd *cobra.Command, t *pb.Tenant) error {
	if cmd.Name() != "show" {
		fmt.Fprintf(a.stdout, "%s is %s\n", t.GetId(), t.GetState())
		return nil
	}
	rows := [][]string{{"tenant", t.GetId()}, {"state", t.GetState()}, {"created", ago(t.GetCreated())}}
	rows = append(rows, usageRows(t.GetUsage(), t.GetPolicy())...)
	return table(a.stdout, append(rows, policyRows(t.GetPolicy())...))
}

// usageRows are what a tenant uses now, each beside its limit.
func usageRows(u *pb.TenantUsage, p *pb.Policy) [][]string {
	of := func(used, limit any) string { return fmt.Sprintf("%v of %v", used, limit) }
	rows := [][]string{
		{"functions", of(u.GetFunctions(), p.GetMaxFunctions())},
		{"pipelines", of(u.GetPipelines(), p.GetMaxPipelines())},
		{"largest source", of(config.Bytes(u.GetSourceBytes()), config.Bytes(p.GetSourceBytes()))},
		{"calls at once", of(u.GetCalls(), p.GetConcurrency())},
		{"calls a second", of(u.GetCallsPerSecond(), p.GetRatePerSecond())},
	}
	if u.GetIncomplete() != "" {
		return append(rows, []string{"containers", "not known: " + u.GetIncomplete()})
	}
	n := int64(p.GetMaxContainers())
	return append(rows, []string{"containers", of(u.GetContainers(), n)},
		[]string{"memory in use", of(config.Bytes(u.GetMemoryBytes()), fmt.Sprintf("%d x %v, and what the isolation needs", n, config.Bytes(p.GetMemoryBytes())))},
		[]string{"CPU in use", of(u.GetCpuMillis(), fmt.Sprintf("%d x %d thousandths", n, p.GetCpuMillis()))})
}

func (a *app) tenantsCreate() *cobra.Command {
	c := &cobra.Command{Use: "create TENANT", Short: "Create a tenant; what is not said is a default",
		Example: `  paddock tenants create acme
  paddock tenants create acme --egress api.example.com:443 --timeout 5s --isolation gvisor`}
	policy := addPolicyFlags(c)
	return a.tenantCall(c, func(ctx context.Context, cl pb.CatalogClient, id string) (*pb.Tenant, error) {
		p, err := policy()
		if err != nil {
			return nil, err
		}
		return cl.CreateTenant(ctx, &pb.CreateTenantRequest{Id: id, Policy: p})
	})
}

func (a *app) tenantsUpdate() *cobra.Command {
	c := &cobra.Command{Use: "update TENANT", Short: "Change a tenant's policy; what is not said stays",
		Example: `  paddock tenants update acme --concurrency 200 --rate 500
  paddock tenants update acme --egress api.example.com:443 --egress '*.shop.example:443'`}
	policy := addPolicyFlags(c)
	return a.tenantCall(c, func(ctx context.Context, cl pb.CatalogClient, id string) (*pb.Tenant, error) {
		p, err := policy()
		if err != nil {
			return nil, err
		}
		return cl.UpdateTenant(ctx, &pb.UpdateTenantRequest{Id: id, Policy: p})
	})
}

func (a *app) tenantsShow() *cobra.Command {
	c := &cobra.Command{Use: "show TENANT", Short: "Show a tenant and its policy", Example: `  paddock tenants show acme`}
	return a.tenantCall(c, func(ctx context.Context, cl pb.CatalogClient, id string) (*pb.Tenant, error) {
		return cl.GetTenant(ctx, &pb.GetTenantRequest{Id: id})
	})
}

func (a *app) tenantsSuspend() *cobra.Command {
	c := &cobra.Command{Use: "suspend TENANT", Short: "Refuse a tenant's calls, cancel those in flight",
		Example: `  paddock tenants suspend acme`}
	return a.tenantCall(c, func(ctx context.Context, cl pb.CatalogClient, id string) (*pb.Tenant, error) {
		return cl.SuspendTenant(ctx, &pb.SuspendTenantRequest{Id: id})
	})
}

func (a *app) tenantsResume() *cobra.Command {
	c := &cobra.Command{Use: "resume TENANT", Short: "Serve a suspended tenant again", Example: `  paddock tenants resume acme`}
	return a.tenantCall(c, func(ctx context.Context, cl pb.CatalogClient, id string) (*pb.Tenant, error) {
		return cl.SuspendTenant(ctx, &pb.SuspendTenantRequest{Id: id, Resume: true})
	})
}

func (a *app) tenantsList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tenants", Args: args(),
		Example: `  paddock tenants list
  paddock tenants list --json | jq -r '.tenants[].id'`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				all, err := pages(func(token string) ([]*pb.Tenant, string, error) {
					r, err := pb.NewCatalogClient(cc).ListTenants(ctx, &pb.ListTenantsRequest{PageToken: token})
					return r.GetTenants(), r.GetNextPageToken(), err
				})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(&pb.ListTenantsResponse{Tenants: all})
				}
				rows := [][]string{{"TENANT", "STATE", "ISOLATION", "CREATED", "EGRESS"}}
				for _, t := range all {
					rows = append(rows, []string{t.GetId(), t.GetState(), orDefault(t.GetPolicy().GetIsolation(), "any"), ago(t.GetCreated()),
						hostsText(t.GetPolicy().GetEgress())})
				}
				return table(a.stdout, rows)
			})
		}),
	}
}

func (a *app) tenantsDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete TENANT", Short: "Delete a tenant: containers, keys, code and logs; calls in flight are cancelled", Args: args("TENANT"),
		Example: `  paddock tenants delete acme`,
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				r, err := pb.NewCatalogClient(cc).DeleteTenant(ctx, &pb.DeleteTenantRequest{Id: args[0]})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				fmt.Fprintf(a.stdout, "%s is gone: %s, %s, %s\n", args[0], count(int64(r.GetContainers()), "container"),
					count(int64(r.GetKeys()), "key"), count(int64(r.GetFunctions()), "function"))
				return nil
			})
		}),
	}
}
