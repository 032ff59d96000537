package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	pb "paddock/proto/paddock/v1"
)

func (a *app) callsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "calls", Short: "List a tenant's last calls, or show one", Args: args(),
		Example: `  paddock calls --failed --tenant acme
  paddock calls --function rule -n 20
  paddock calls show 5b0c8f3e`,
	}
	req := &pb.ListCallsRequest{}
	failed := c.Flags().Bool("failed", false, "only those that failed")
	c.Flags().StringVar(&req.Outcome, "outcome", "", "only those that ended so: ok, or a kind of failure, as timeout")
	c.Flags().StringVar(&req.Function, "function", "", "only of this function, also as a step of a pipeline")
	c.Flags().StringVar(&req.Pipeline, "pipeline", "", "only of this pipeline")
	c.Flags().Int32VarP(&req.Limit, "lines", "n", 20, "how many, the newest")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if *failed {
			if req.Outcome != "" {
				return usageError("use --failed or --outcome, not both")
			}
			req.Outcome = "failed"
		}
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			res, err := pb.NewLogsClient(cc).ListCalls(ctx, req)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(res)
			}
			return a.printCalls(res)
		})
	})
	c.AddCommand(a.showCallCommand())
	return c
}

func (a *app) printCalls(res *pb.ListCallsResponse) error {
	rows := [][]string{{"TIME", "CALL", "WHAT", "OUTCOME", "TOOK", "START", "MESSAGE"}}
	for _, c := range res.GetCalls() {
		rows = append(rows, []string{
			c.GetTime().AsTime().Local().Format(time.StampMilli), shortID(c.GetCallId()), whatRan(c), c.GetOutcome(),
			micros(c.GetStages().GetTotalUs()), orDash(c.GetStart()), firstLine(c.GetMessage(), 60),
		})
	}
	a.saySourcesMissing(res.GetMissing())
	return table(a.stdout, rows)
}

// saySourcesMissing tells of controllers whose part is not there.
func (a *app) saySourcesMissing(names []string) {
	if len(names) > 0 {
		fmt.Fprintf(a.stderr, "without what these controllers have, which do not answer: %s\n", strings.Join(names, ", "))
	}
}

// whatRan is what a call was of, with the version of a function.
func whatRan(c *pb.CallRecord) string {
	switch {
	case c.GetPipeline() != "":
		return c.GetPipeline() + " (pipeline)"
	case c.GetFunction() != "" && c.GetVersion() > 0:
		return fmt.Sprintf("%s@%d", c.GetFunction(), c.GetVersion())
	}
	return orDefault(c.GetFunction(), "source text")
}

// firstLine is the beginning of a text, for a table.
func firstLine(s string, most int) string {
	line, _, more := strings.Cut(safe(s), "\n")
	if r := []rune(line); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	if more {
		return line + " …"
	}
	return line
}

func (a *app) showCallCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show CALL", Short: "Show a call, its steps and its log", Args: args("CALL"),
		Long:    "Show a call, its steps and its log. CALL is its id, which is on every answer as Paddock-Call-Id, or the beginning of it.",
		Example: `  paddock calls show 5b0c8f3e9a6d`,
	}
	c.RunE = runE(func(cmd *cobra.Command, given []string) error {
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			client := pb.NewLogsClient(cc)
			one, err := a.findCall(ctx, client, given[0])
			if err != nil {
				return err
			}
			lines, err := linesOf(ctx, client, one.GetCallId())
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printCallJSON(one, lines)
			}
			return a.printCall(one, lines)
		})
	})
	return c
}

// mostSearched is how many calls the beginning of an id is looked for in.
const mostSearched = 1000

const idLength = 32 // of a call

// findCall returns the call whose id is given, or begins so.
func (a *app) findCall(ctx context.Context, client pb.LogsClient, id string) (*pb.CallRecord, error) {
	req := &pb.ListCallsRequest{Limit: mostSearched}
	if len(id) == idLength {
		req.CallId = id
	}
	res, err := client.ListCalls(ctx, req)
	if err != nil {
		return nil, err
	}
	var found []*pb.CallRecord
	for _, c := range res.GetCalls() {
		if strings.HasPrefix(c.GetCallId(), id) {
			found = append(found, c)
		}
	}
	a.saySourcesMissing(res.GetMissing())
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, usageError("call %s is not among those that are kept: `paddock calls` lists them, the oldest go first", id)
	}
	return nil, usageError("%d calls begin with %s: write more of the id", len(found), id)
}

// wholeID is the id that is given, or the one that begins so, as `paddock calls` shows them.
func (a *app) wholeID(ctx context.Context, client pb.LogsClient, id string) (string, error) {
	if id == "" || len(id) == idLength {
		return id, nil
	}
	c, err := a.findCall(ctx, client, id)
	return c.GetCallId(), err
}

// linesOf are the kept log lines of a call.
func linesOf(ctx context.Context, client pb.LogsClient, id string) ([]*pb.LogLine, error) {
	stream, err := client.Tail(ctx, &pb.TailRequest{CallId: id, Lines: mostSearched})
	if err != nil {
		return nil, err
	}
	var lines []*pb.LogLine
	for {
		l, err := stream.Recv()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
}

func (a *app) printCallJSON(c *pb.CallRecord, lines []*pb.LogLine) error {
	record, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(c)
	if err != nil {
		return err
	}
	out := struct {
		Call rawJSON `json:"call"`
		Logs []any   `json:"logs"`
	}{Call: record, Logs: []any{}}
	for _, l := range lines {
		out.Logs = append(out.Logs, logJSON(l))
	}
	return a.printJSON(out)
}

// rawJSON is JSON that is there already.
type rawJSON []byte

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

func (a *app) printCall(c *pb.CallRecord, lines []*pb.LogLine) error {
	s := c.GetStages()
	rows := [][]string{
		{"call", c.GetCallId()}, {"ended", c.GetTime().AsTime().Local().Format(time.RFC3339Nano)}, {"what", whatRan(c)},
		{"outcome", c.GetOutcome()}, {"message", orDash(firstLine(c.GetMessage(), maxShownMessage))},
		{"took", fmt.Sprintf("%s (queue %s, assign %s, load %s, run %s)", micros(s.GetTotalUs()), micros(s.GetQueueUs()),
			micros(s.GetAssignUs()), micros(s.GetLoadUs()), micros(s.GetRunUs()))},
		{"container", strings.TrimSpace(orDash(c.GetContainerId()) + " " + c.GetStart())},
		{"input", sizeText(c.GetInputBytes()) + map[bool]string{true: ", recorded"}[c.GetInputKept()]}, {"output", sizeText(c.GetOutputBytes())},
		{"controller", orDash(c.GetController())},
	}
	if err := table(a.stdout, rows); err != nil {
		return err
	}
	if len(c.GetSteps()) > 0 {
		fmt.Fprintln(a.stdout)
		steps := [][]string{{"STEP", "OUTCOME", "TOOK", "MESSAGE"}}
		for _, st := range c.GetSteps() {
			steps = append(steps, []string{fmt.Sprintf("%s@%d", st.GetFunction(), st.GetVersion()), st.GetOutcome(), micros(st.GetRunUs()),
				firstLine(st.GetError().GetMessage(), 60)})
		}
		if err := table(a.stdout, steps); err != nil {
			return err
		}
	}
	if len(lines) > 0 {
		fmt.Fprintln(a.stdout)
	}
	for _, l := range lines {
		if err := a.printLogLine(l); err != nil {
			return err
		}
	}
	return nil
}

// maxShownMessage is as much of a failure's message as is kept.
const maxShownMessage = 1024
