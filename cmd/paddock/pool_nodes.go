package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

func (a *app) poolNodes() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "Show the controllers: who serves, who drains, who is silent", Args: args(),
		Example: `  paddock pool nodes
  paddock pool nodes --json | jq '.nodes[].state'`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				r, err := pb.NewPoolsClient(cc).ListNodes(ctx, &pb.ListNodesRequest{})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				rows := [][]string{{"NODE", "STATE", "ADDRESS", "REGION", "CLASS", "ISOLATION", "READY", "ASSIGNED", "IN FLIGHT", "VERSION"}}
				for _, n := range r.GetNodes() {
					rows = append(rows, []string{n.GetId(), n.GetState(), orDash(n.GetAddress()), orDash(n.GetRegion()), orDash(n.GetTrustClass()),
						n.GetIsolation(), fmt.Sprint(n.GetReady()), fmt.Sprint(n.GetAssigned()), fmt.Sprint(n.GetInFlight()), n.GetVersion()})
				}
				return table(a.stdout, rows)
			})
		}),
	}
}

func (a *app) poolUndrain() *cobra.Command {
	return &cobra.Command{
		Use: "undrain NODE", Short: "Put a controller that was drained back into service", Args: args("NODE"),
		Example: `  paddock pool undrain 485dbfb6`,
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				st, err := pb.NewPoolsClient(cc).UndrainNode(ctx, &pb.UndrainNodeRequest{Node: args[0]})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(st)
				}
				_, err = fmt.Fprintf(a.stdout, "%s is %s\n", st.GetId(), st.GetState())
				return err
			})
		}),
	}
}

// isNode says whether a name is a controller's.
func isNode(ctx context.Context, cc *grpc.ClientConn, name string) (bool, error) {
	r, err := pb.NewPoolsClient(cc).ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(r.GetNodes(), func(n *pb.NodeStatus) bool { return n.GetId() == name }), nil
}

// drainLook is how often a draining controller is asked how far it is.
const drainLook = 200 * time.Millisecond

// drainNode drains a controller and says how far it is until it is empty, or until somebody puts it back.
func (a *app) drainNode(ctx context.Context, cc *grpc.ClientConn, id string) error {
	pools := pb.NewPoolsClient(cc)
	st, err := pools.DrainNode(ctx, &pb.DrainNodeRequest{Node: id})
	if err != nil {
		return err
	}
	for left := int32(-1); ; {
		if !a.jsonOut && st.GetAssigned() != left && st.GetState() == "draining" {
			left = st.GetAssigned()
			fmt.Fprintf(a.stdout, "draining %s: %s left, %s in flight\n", id, count(int64(left), "assigned container"), count(int64(st.GetInFlight()), "call"))
		}
		if st.GetState() != "draining" {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(drainLook):
		}
		r, err := pools.ListNodes(ctx, &pb.ListNodesRequest{})
		if err != nil {
			return err
		}
		i := slices.IndexFunc(r.GetNodes(), func(n *pb.NodeStatus) bool { return n.GetId() == id })
		if i < 0 {
			return platformError("controller %s is gone", id)
		}
		st = r.GetNodes()[i]
	}
	if a.jsonOut {
		return a.printProto(st)
	}
	_, err = fmt.Fprintf(a.stdout, "%s is %s: %s warm elsewhere before, %d without room elsewhere in time, %s outlasted drain_timeout\n", id, st.GetState(),
		count(int64(st.GetMoved()), "tenant"), st.GetUnprepared(), count(st.GetOverdueCalls(), "call"))
	return err
}
