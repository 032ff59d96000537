package main

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

func (a *app) topCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "top", Short: "Watch the pool and the busiest tenants", Args: args(),
		Example: `  paddock top
  paddock top --once`,
	}
	once := c.Flags().Bool("once", false, "print one snapshot and end")
	every := c.Flags().Duration("every", time.Second, "time between two looks")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if *every < 100*time.Millisecond {
			return usageError("every %s: use at least 100ms", *every)
		}
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			if *once || a.jsonOut || !a.stdoutTTY {
				return a.snapshot(ctx, cc, nil)
			}
			return a.watchTop(ctx, cc, *every)
		})
	})
	return c
}

// watchTop redraws the screen until Ctrl-C.
func (a *app) watchTop(ctx context.Context, cc *grpc.ClientConn, every time.Duration) error {
	seen := &topSeen{}
	for {
		if err := a.snapshot(ctx, cc, seen); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// topSeen is the look before, for rates.
type topSeen struct {
	at    time.Time
	calls map[string]int64 // by container
}

func (a *app) snapshot(ctx context.Context, cc *grpc.ClientConn, seen *topSeen) error {
	client := pb.NewPoolsClient(cc)
	st, err := client.GetPool(ctx, &pb.GetPoolRequest{})
	if err != nil {
		return err
	}
	list, err := client.ListContainers(ctx, &pb.ListContainersRequest{})
	if err != nil {
		return err
	}
	if a.jsonOut {
		if err := a.printProto(st); err != nil {
			return err
		}
		return a.printProto(list)
	}
	var b strings.Builder
	if seen != nil {
		b.WriteString("\x1b[H\x1b[2J")
	}
	fmt.Fprintf(&b, "%s  %s  ready %d/%d  creating %d  assigned %d (frozen %d)  draining %d  waiting %d  memory %s/%s\n\n",
		st.GetController(), st.GetEngine(), st.GetReady(), st.GetMinReady(), st.GetCreating(), st.GetAssigned(), st.GetFrozen(),
		st.GetDraining(), st.GetWaiting(), sizeText(st.GetMemoryReservedBytes()), budgetText(st.GetMemoryBudgetBytes()))
	if err := table(&b, tenantRows(list.GetContainers(), seen)); err != nil {
		return err
	}
	_, err = fmt.Fprint(a.stdout, b.String())
	return err
}

// busy is one tenant's line.
type busy struct {
	tenant                      string
	containers, frozen, running int
	calls, bytes                int64
	perSecond                   float64
}

// tenantRows sums containers by tenant, the busiest first.
func tenantRows(all []*pb.Container, seen *topSeen) [][]string {
	now := time.Now()
	sums := map[string]*busy{}
	calls := map[string]int64{}
	for _, c := range all {
		if c.GetTenant() == "" {
			continue
		}
		s := sums[c.GetTenant()]
		if s == nil {
			s = &busy{tenant: c.GetTenant()}
			sums[c.GetTenant()] = s
		}
		s.containers++
		s.frozen += boolInt(c.GetFrozen())
		s.running += int(c.GetRunning())
		s.calls += c.GetCalls()
		s.bytes += c.GetMemoryBytes()
		calls[c.GetId()] = c.GetCalls()
		if seen != nil && !seen.at.IsZero() {
			s.perSecond += float64(c.GetCalls()-seen.calls[c.GetId()]) / now.Sub(seen.at).Seconds()
		}
	}
	if seen != nil {
		seen.at, seen.calls = now, calls
	}
	sorted := make([]*busy, 0, len(sums))
	for _, s := range sums {
		sorted = append(sorted, s)
	}
	sort.Slice(sorted, func(i, j int) bool {
		x, y := sorted[i], sorted[j]
		if x.running != y.running {
			return x.running > y.running
		}
		if x.perSecond != y.perSecond {
			return x.perSecond > y.perSecond
		}
		return x.tenant < y.tenant
	})
	rows := [][]string{{"TENANT", "CONTAINERS", "FROZEN", "RUNNING", "CALLS", "CALLS/S", "MEMORY"}}
	for _, s := range sorted {
		rate := "-"
		if seen != nil {
			rate = fmt.Sprintf("%.1f", s.perSecond)
		}
		rows = append(rows, []string{s.tenant, fmt.Sprint(s.containers), fmt.Sprint(s.frozen), fmt.Sprint(s.running), fmt.Sprint(s.calls), rate,
			sizeText(s.bytes)})
	}
	return rows
}
