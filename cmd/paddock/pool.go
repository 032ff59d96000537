package main

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

func (a *app) poolCommand() *cobra.Command {
	show := a.poolShow()
	c := group(&cobra.Command{
		Use: "pool", Short: "Show and steer the containers",
		Example: `  paddock pool
  paddock pool list --tenant acme
  paddock pool explain
  paddock pool resize --min-ready 8
  paddock pool drain --tenant acme
  paddock pool recycle --all
  paddock pool nodes
  paddock pool drain 485dbfb6`,
	}, show, a.poolList(), a.poolExplain(), a.poolResize(), a.poolDrain(), a.poolUndrain(), a.poolNodes(), a.poolRecycle())
	refuse := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return refuse(cmd, args)
		}
		return show.RunE(cmd, args)
	}
	return c
}

func (a *app) poolShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the pool's state", Args: args(),
		Example: `  paddock pool show
  paddock pool show --json | jq .ready`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				st, err := pb.NewPoolsClient(cc).GetPool(ctx, &pb.GetPoolRequest{})
				if err != nil {
					return err
				}
				return a.printPool(st)
			})
		}),
	}
}

func (a *app) printPool(st *pb.PoolStatus) error {
	if a.jsonOut {
		return a.printProto(st)
	}
	a.saySourcesMissing(st.GetMissing())
	return table(a.stdout, [][]string{
		{"controller", st.GetController()}, {"engine", st.GetEngine()}, {"isolation", st.GetIsolation()}, {"image", shortID(st.GetImage())},
		{"containers", fmt.Sprintf("%d ready, %d creating, %d assigned (%d frozen), %d draining", st.GetReady(), st.GetCreating(),
			st.GetAssigned(), st.GetFrozen(), st.GetDraining())},
		{"waiting", count(int64(st.GetWaiting()), "call")},
		{"limits", fmt.Sprintf("min-ready %d, max-ready %d, max-containers %d", st.GetMinReady(), st.GetMaxReady(), st.GetMaxContainers())},
		{"memory", fmt.Sprintf("%s of %s reserved", sizeText(st.GetMemoryReservedBytes()), budgetText(st.GetMemoryBudgetBytes()))},
		{"made", fmt.Sprint(st.GetCreatedTotal())}, {"recycled", causesText(st.GetRecycledTotal())},
		{"leaked", fmt.Sprint(st.GetLeakedTotal())},
	})
}

func budgetText(n int64) string {
	if n == 0 {
		return "no limit"
	}
	return sizeText(n)
}

func causesText(causes map[string]int64) string {
	var all []string
	for cause, n := range causes {
		if n > 0 {
			all = append(all, fmt.Sprintf("%s %d", cause, n))
		}
	}
	sort.Strings(all)
	return orDash(strings.Join(all, ", "))
}

func (a *app) poolList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List containers", Args: args(),
		Example: `  paddock pool list
  paddock pool list --tenant acme`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				r, err := pb.NewPoolsClient(cc).ListContainers(ctx, &pb.ListContainersRequest{Tenant: a.namedTenant()})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				a.saySourcesMissing(r.GetMissing())
				return table(a.stdout, containerRows(r.GetContainers()))
			})
		}),
	}
}

// namedTenant is the tenant that flag or environment name, "" if none.
func (a *app) namedTenant() string { return orDefault(a.conn.tenant, a.getenv("PADDOCK_TENANT")) }

func containerRows(all []*pb.Container) [][]string {
	rows := [][]string{{"CONTAINER", "STATE", "TENANT", "RUNNING", "CALLS", "MADE", "LAST CALL", "MEMORY"}}
	for _, c := range all {
		state := c.GetState()
		if c.GetFrozen() {
			state += ", frozen"
		}
		if c.GetCause() != "" {
			state += " (" + c.GetCause() + ")"
		}
		memory := "-"
		if c.GetMemoryBytes() > 0 {
			memory = sizeText(c.GetMemoryBytes())
		}
		rows = append(rows, []string{shortID(c.GetId()), state, orDash(c.GetTenant()), fmt.Sprint(c.GetRunning()), fmt.Sprint(c.GetCalls()),
			ago(c.GetCreated()), ago(c.GetLastUsed()), memory})
	}
	return rows
}

func (a *app) poolExplain() *cobra.Command {
	c := &cobra.Command{
		Use: "explain [CONTAINER]", Short: "Say what the recycling policy would do now, and why", Args: args("[CONTAINER]"),
		Example: `  paddock pool explain
  paddock pool explain --tenant acme
  paddock pool explain 4f9c2d1ab3e0`,
	}
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			req := &pb.ExplainRequest{Tenant: a.namedTenant()}
			if len(args) > 0 {
				id, err := containerID(ctx, cc, args[0])
				if err != nil {
					return err
				}
				req.Container = id
			}
			r, err := pb.NewPoolsClient(cc).Explain(ctx, req)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(r)
			}
			a.saySourcesMissing(r.GetMissing())
			for _, e := range r.GetContainers() {
				fmt.Fprintf(a.stdout, "%s %s %s: %s\n", shortID(e.GetContainer().GetId()), e.GetContainer().GetState(),
					orDash(e.GetContainer().GetTenant()), orDefault(e.GetNext(), "nothing is due"))
				for _, reason := range e.GetReasons() {
					fmt.Fprintf(a.stdout, "    %s\n", reason)
				}
			}
			return nil
		})
	})
	return c
}

// containerID completes the beginning of an id to the one container that has it.
func containerID(ctx context.Context, cc *grpc.ClientConn, begin string) (string, error) {
	if len(begin) == 32 {
		return begin, nil
	}
	r, err := pb.NewPoolsClient(cc).ListContainers(ctx, &pb.ListContainersRequest{})
	if err != nil {
		return "", err
	}
	var found []string
	for _, c := range r.GetContainers() {
		if strings.HasPrefix(c.GetId(), begin) {
			found = append(found, c.GetId())
		}
	}
	switch len(found) {
	case 0:
		return "", usageError("there is no container %s", begin)
	case 1:
		return found[0], nil
	}
	return "", usageError("%d containers begin with %s: give more of the id", len(found), begin)
}

func (a *app) poolResize() *cobra.Command {
	c := &cobra.Command{
		Use: "resize", Short: "Change the pool's size until the service restarts", Args: args(),
		Example: `  paddock pool resize --min-ready 8 --max-containers 200`,
	}
	minReady := c.Flags().Int32("min-ready", 0, "warm containers kept whatever the demand")
	maxReady := c.Flags().Int32("max-ready", 0, "warm containers that demand may raise it to")
	maxContainers := c.Flags().Int32("max-containers", 0, "all containers together")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		req := &pb.ResizeRequest{}
		for flag, set := range map[string]func(){
			"min-ready":      func() { req.MinReady = minReady },
			"max-ready":      func() { req.MaxReady = maxReady },
			"max-containers": func() { req.MaxContainers = maxContainers },
		} {
			if c.Flags().Changed(flag) {
				set()
			}
		}
		if req.MinReady == nil && req.MaxReady == nil && req.MaxContainers == nil {
			return usageError("say what to change: --min-ready, --max-ready or --max-containers")
		}
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			st, err := pb.NewPoolsClient(cc).Resize(ctx, req)
			if err != nil {
				return err
			}
			return a.printPool(st)
		})
	})
	return c
}

func (a *app) poolDrain() *cobra.Command {
	c := &cobra.Command{
		Use: "drain [CONTAINER|NODE]", Short: "Recycle containers: one, a tenant's, or all; or take a controller out of service", Args: args("[CONTAINER|NODE]"),
		Long: `Let calls in flight finish, take no new ones, destroy and replace. Name a container, a tenant with --tenant, or --all.

With the id of a controller ('paddock pool nodes') the whole controller: it gets no new work, its tenants are warm on other
controllers before their containers go, calls in flight have their tenants' drain_timeout. It waits until the controller is
empty; Ctrl-C stops the waiting, not the draining. 'paddock pool undrain NODE', or a restart, puts it back into service.`,
		Example: `  paddock pool drain 4f9c2d1ab3e0
  paddock pool drain 485dbfb6
  paddock pool drain --tenant acme
  paddock pool drain --all`,
	}
	all := c.Flags().Bool("all", false, "all containers, warm ones too")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		req := &pb.DrainRequest{All: *all, Tenant: a.conn.tenant}
		if n := len(args) + boolInt(*all) + boolInt(req.Tenant != ""); n != 1 {
			return usageError("say which: a container, --tenant T, or --all")
		}
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			if len(args) > 0 {
				if node, err := isNode(ctx, cc, args[0]); err != nil {
					return err
				} else if node {
					return a.drainNode(ctx, cc, args[0])
				}
				id, err := containerID(ctx, cc, args[0])
				if err != nil {
					return err
				}
				req.Container = id
			}
			r, err := pb.NewPoolsClient(cc).Drain(ctx, req)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(r)
			}
			fmt.Fprintf(a.stdout, "draining %s\n", count(int64(r.GetContainers()), "container"))
			return nil
		})
	})
	return c
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (a *app) poolRecycle() *cobra.Command {
	c := &cobra.Command{
		Use: "recycle", Short: "Replace containers without failing a call (after a patch)", Args: args(),
		Long: `Replace containers one after the other: warm ones first, then assigned ones, each once its successor is bound and has its
code. Calls in flight finish where they are, within the tenant's drain_timeout. Ctrl-C stops with what is under way.`,
		Example: `  paddock pool recycle --all
  paddock pool recycle --tenant acme`,
	}
	req := &pb.RecycleRequest{}
	c.Flags().BoolVar(&req.All, "all", false, "all containers")
	c.Flags().StringVar(&req.Runtime, "runtime", "", "those of a runtime")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		req.Tenant = a.conn.tenant
		if req.All == (req.Tenant != "" || req.Runtime != "") {
			return usageError("say which: --all, or --tenant T, --runtime R or both")
		}
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			stream, err := pb.NewPoolsClient(cc).Recycle(ctx, req)
			if err != nil {
				return err
			}
			return copyStream(context.Background(), stream, a.printRecycled)
		})
	})
	return c
}

func (a *app) printRecycled(r *pb.RecycleProgress) error {
	switch {
	case a.jsonOut:
		return a.printLine(r)
	case r.GetContainer() == "":
		_, err := fmt.Fprintf(a.stdout, "%s to replace\n", count(int64(r.GetTotal()), "container"))
		return err
	}
	how := ""
	if r.GetUnprepared() {
		how = "; no successor could be made in time: the next call waits for one"
	}
	_, err := fmt.Fprintf(a.stdout, "%d/%d %s %s%s%s\n", r.GetDone(), r.GetTotal(), shortID(r.GetContainer()), r.GetState(),
		tenantSuffix(r.GetTenant()), how)
	return err
}
