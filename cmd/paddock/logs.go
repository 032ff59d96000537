package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

func (a *app) logsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "logs", Short: "Show what a tenant's code wrote", Args: args(),
		Example: `  paddock logs --tenant acme
  paddock logs -f --function rule --level warn
  paddock logs --call 5b0c8f3e9a6d47f0a1b2c3d4e5f60718 --json`,
	}
	req := &pb.TailRequest{}
	c.Flags().BoolVarP(&req.Follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	c.Flags().Int32VarP(&req.Lines, "lines", "n", 100, "kept lines to start with")
	c.Flags().StringVar(&req.Function, "function", "", "only of this function")
	c.Flags().StringVar(&req.CallId, "call", "", "only of this call: its id, or the beginning of it")
	c.Flags().StringVar(&req.Level, "level", "", "the least level shown: debug, info, warn, error")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			logs := pb.NewLogsClient(cc)
			id, err := a.wholeID(ctx, logs, req.GetCallId())
			if err != nil {
				return err
			}
			req.CallId = id
			stream, err := logs.Tail(ctx, req)
			if err != nil {
				return err
			}
			return copyStream(cmd.Context(), stream, a.printLogLine)
		})
	})
	return c
}

func (a *app) printLogLine(l *pb.LogLine) error {
	if l.GetMissing() != "" {
		a.saySourcesMissing([]string{l.GetMissing()})
		return nil
	}
	if a.jsonOut { // one object a line, so that a pipe can follow
		b, err := json.Marshal(logJSON(l))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s\n", b)
		return err
	}
	if l.GetDropped() > 0 {
		fmt.Fprintf(a.stdout, "… %s dropped\n", sizeText(l.GetDropped()))
	}
	text := strings.TrimSuffix(l.GetText(), "\n")
	if a.stdoutTTY {
		text = safe(text)
	}
	_, err := fmt.Fprintf(a.stdout, "%s %-5s %-12s %s  %s\n", l.GetTime().AsTime().Local().Format(time.StampMilli), l.GetLevel(),
		orDefault(shortID(l.GetCallId()), "-"), orDefault(l.GetFunction(), "-"), text)
	return err
}
