package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"paddock/cmd/paddock/machine"
	"paddock/internal/audit"
	pb "paddock/proto/paddock/v1"
)

func (a *app) auditCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "audit", Short: "Show and verify the record of who did what",
		Example: `  paddock audit tail -f --action Keys.
  paddock audit verify
  paddock audit verify /var/lib/paddock/audit --holds 4711:5f0c…`,
	}, a.auditTail(), a.auditVerify())
}

func (a *app) auditTail() *cobra.Command {
	c := &cobra.Command{
		Use: "tail", Short: "Show the newest records; operators only, and written down as well", Args: args(),
		Example: `  paddock audit tail
  paddock audit tail -f --action Keys. --tenant acme`,
	}
	req := &pb.TailAuditRequest{}
	c.Flags().BoolVarP(&req.Follow, "follow", "f", false, "go on with new records until Ctrl-C")
	c.Flags().Int32VarP(&req.Lines, "lines", "n", 100, "records to start with")
	c.Flags().StringVar(&req.Action, "action", "", "only this action, or, ending in a dot, all that begin so (Keys.)")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		req.Tenant = a.conn.tenant
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			stream, err := pb.NewAuditClient(cc).Tail(ctx, req)
			if err != nil {
				return err
			}
			return copyStream(cmd.Context(), stream, a.printRecord)
		})
	})
	return c
}

// copyStream passes on what a stream sends until it ends; Ctrl-C is how following ends.
func copyStream[M any](ctx context.Context, stream grpc.ServerStreamingClient[M], each func(*M) error) error {
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if err := each(m); err != nil {
			return err
		}
	}
}

func (a *app) printRecord(r *pb.AuditRecord) error {
	if a.jsonOut {
		return a.printLine(r)
	}
	var rest []string
	for _, name := range slices.Sorted(maps.Keys(r.GetDetail())) {
		rest = append(rest, name+"="+r.GetDetail()[name])
	}
	if n := r.GetDropped(); n > 0 {
		rest = append(rest, fmt.Sprintf("and %d more before it", n))
	}
	who := r.GetRole()
	if r.GetKey() != "" {
		who += "/" + r.GetKey()
	}
	_, err := fmt.Fprintf(a.stdout, "%6d %s %-24s %-6s %-8s %s %s %s %s  %s\n", r.GetSeq(), r.GetTime().AsTime().Local().Format("Jan _2 15:04:05.000"),
		safe(r.GetAction()), orDash(r.GetDecision()), orDash(r.GetResult()), safe(orDash(r.GetTenant())), safe(orDash(r.GetObject())),
		safe(orDash(who)), safe(orDash(r.GetSource())), safe(strings.Join(rest, " ")))
	return err
}

func (a *app) auditVerify() *cobra.Command {
	c := &cobra.Command{
		Use: "verify [DIR]", Short: "Find lines that were changed, removed, inserted or moved", Args: args("[DIR]"),
		Example: `  paddock audit verify
  paddock audit verify --holds 4711:5f0c…
  paddock audit verify /backup/audit --after 4000:77ab…`,
		Long: `Read the audit log from its first line to its last and name every line that was changed, removed, inserted or moved.
DIR is by default that of the 'paddock up' on this machine, which may go on meanwhile. The mark that it prints names the
newest line: kept elsewhere and given with --holds, it shows later whether the log was rewritten or cut. Where older files
were taken away, --after says after which line the log begins.

Exit codes: 0 the log is whole; 1 it is not; 2 the command is wrong; 3 it cannot be read.`,
	}
	holds := c.Flags().String("holds", "", "a mark (NUMBER:HASH) that the log must still have")
	after := c.Flags().String("after", "", "the mark of the last line of the part that was taken away")
	c.RunE = runE(func(_ *cobra.Command, given []string) error {
		var want audit.Expect
		for _, m := range []struct {
			text string
			to   *audit.Mark
		}{{*holds, &want.Holds}, {*after, &want.After}} {
			if m.text == "" {
				continue
			}
			var err error
			if *m.to, err = audit.ParseMark(m.text); err != nil {
				return usageError("%w", err)
			}
		}
		dir, err := a.auditDir(given)
		if err != nil {
			return err
		}
		return a.verifyAudit(dir, want)
	})
	return c
}

// auditDir is the directory that was given, or that of the service on this machine.
func (a *app) auditDir(given []string) (string, error) {
	if len(given) > 0 {
		return given[0], nil
	}
	dataDir := a.conn.dataDir
	if dataDir == "" {
		dataDir = a.getenv("PADDOCK_DATA_DIR")
	}
	if dataDir == "" {
		running, err := machine.Running(runBase(a.getenv))
		if err != nil {
			return "", err
		}
		if len(running) != 1 {
			return "", usageError("%d services run on this machine: name the directory, as in /var/lib/paddock/audit", len(running))
		}
		dataDir = running[0].DataDir
	}
	return filepath.Join(dataDir, "audit"), nil
}

func (a *app) verifyAudit(dir string, want audit.Expect) error {
	r, err := audit.Verify(dir, want)
	if err != nil {
		return platformError("%w", err)
	}
	if a.jsonOut {
		b, err := json.Marshal(struct {
			*audit.Report
			Mark string `json:"mark"`
		}{r, r.Last.String()})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s\n", b)
	} else {
		for _, p := range r.Problems {
			fmt.Fprintln(a.stdout, p)
		}
		if r.More > 0 {
			fmt.Fprintf(a.stdout, "… and %d more\n", r.More)
		}
		fmt.Fprintf(a.stdout, "%d lines in %d files, from number %d\nmark %s\n", r.Lines, r.Files, r.First, r.Last)
	}
	if n := int64(len(r.Problems)) + r.More; n > 0 {
		return &exitError{code: exitUser, err: fmt.Errorf("the audit log in %s is not whole: %d problems", dir, n)}
	}
	return nil
}
