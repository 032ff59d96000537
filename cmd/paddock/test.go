package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"paddock/cmd/paddock/project"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func (a *app) testCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "test DIR|FILE", Short: "Run the cases that stand beside code in a directory", Args: args("DIR"),
		Long: `Run every DIR/NAME.js against its cases, DIR/NAME.case.json or DIR/NAME.WHAT.case.json, in a sandbox of the tenant,
without storing anything; and the pipeline of DIR/pipeline.yaml against DIR/pipeline.WHAT.case.json. A FILE of code, a manifest
or a case stands for what belongs to it. A case is JSON:

  {"input": …, "expected": …}                              the value must be this
  {"input": …, "error": {"name": …, "message": …}}         or it must fail like this
  "configuration": {"KEY": "value"}                        laid over the tenant's secrets
  "serve": {"GET /users?id=1": {"status": 200, "json": …}} answers of a server that the code finds at ${serve} (--serve;
                                                           the tenant must be allowed to reach it: --egress-private)
  "steps": {"country": "skipped"}                          of a pipeline: what must become of a function in it
  "kind": "rule", "repeat": 3                              as the names say

The exit code is 1 if a case fails.`,
		Example: `  paddock test rules/
  paddock test rules/country.js
  paddock test rules/ --serve 127.0.0.1:8099 --tenant acme`,
	}
	serve := addServeFlag(c)
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		folder, err := project.Scan(args[0])
		if err != nil {
			return usageError("%w", err)
		}
		if err := folder.Err(); err != nil { // before any is run: a slip in one is found at once
			return usageError("%w", err)
		}
		if folder.Cases() == 0 {
			return usageError("%s has no cases: put NAME%s beside NAME.js, with {\"input\": …, \"expected\": …}", args[0], project.CaseSuffix)
		}
		s, err := newCaseServer(*serve)
		if err != nil {
			return err
		}
		defer s.close()
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			return a.runCases(ctx, cc, folder, s)
		})
	})
	return c
}

func addServeFlag(c *cobra.Command) *string {
	return c.Flags().String("serve", "", "address at which the cases' server listens, for example 127.0.0.1:8099")
}

// caseResult is what --json prints of a case.
type caseResult struct {
	Case   string     `json:"case"`
	OK     bool       `json:"ok"`
	TookUs int64      `json:"tookUs"`
	Why    string     `json:"why,omitempty"`
	Steps  []jsonStep `json:"steps,omitempty"`

	logs  []*pb.LogLine
	steps []*pb.StepResult
	// loadError: the code does not compile, so no other case of it will do better.
	loadError bool
}

func (a *app) runCases(ctx context.Context, cc *grpc.ClientConn, folder *project.Folder, s *caseServer) error {
	var results []caseResult
	failed := 0
	for _, u := range folder.Units {
		if len(u.Cases) == 0 {
			continue
		}
		d, err := readDraft(u.Path)
		for i := range u.Cases {
			c := &u.Cases[i]
			r := caseResult{Case: c.Name}
			if err != nil {
				r.Why = err.Error()
			} else if r, err = runCase(ctx, cc, d, c, s); err != nil {
				return fmt.Errorf("%s: %w", c.Path, err)
			}
			results = append(results, r)
			if !r.OK {
				failed++
			}
			if !a.jsonOut {
				fmt.Fprint(a.stdout, a.caseText(r, !r.OK))
			}
		}
	}
	if a.jsonOut {
		if err := a.printJSON(results); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.stdout, "%d cases, %d passed, %d failed\n", len(results), len(results)-failed, failed)
	}
	if failed > 0 {
		return &exitError{code: exitUser, err: fmt.Errorf("%d cases failed", failed), silent: true}
	}
	return nil
}

// caseText shows a case's verdict, with what it logged if that is wanted.
func (a *app) caseText(r caseResult, withLogs bool) string {
	var b strings.Builder
	verdict := "ok  "
	if !r.OK {
		verdict = "FAIL"
	}
	fmt.Fprintf(&b, "%s  %s  (%s)\n", verdict, r.Case, brief(time.Duration(r.TookUs)*time.Microsecond))
	for line := range strings.Lines(r.Why) {
		fmt.Fprintf(&b, "      %s\n", a.safeText(strings.TrimRight(line, "\n")))
	}
	if withLogs {
		for _, l := range r.logs {
			fmt.Fprintf(&b, "      log: %-5s %s\n", l.GetLevel(), a.safeText(strings.TrimSuffix(l.GetText(), "\n")))
		}
	}
	return b.String()
}

// runCase runs a draft against a case. An error means that it could not be run.
func runCase(ctx context.Context, cc *grpc.ClientConn, d *draft, c *project.Case, s *caseServer) (r caseResult, err error) {
	r.Case = c.Name
	if len(c.Serve) > 0 && s == nil {
		r.Why = "it has a server: say where it may listen with --serve"
		return r, nil
	}
	s.play(c.Serve)
	configuration := map[string]string{}
	for name, value := range c.Configuration {
		configuration[name] = s.fill(value)
	}
	began := time.Now()
	var resp *pb.InvokeResponse
	for range c.Repeat {
		req := d.request(c.Kind, configuration)
		req.Input, req.WithLogs = []byte(s.fill(string(c.Input))), true
		if resp, err = exchange(ctx, cc, req, func(l *pb.LogLine) { r.logs = append(r.logs, l) }); err != nil {
			return r, err
		}
	}
	r.TookUs = time.Since(began).Microseconds()
	r.logs, r.steps = append(r.logs, resp.GetLogs()...), resp.GetSteps()
	r.Steps, r.loadError = stepsJSON(r.steps), resp.GetError().GetKind() == string(errs.LoadError)
	var all []string
	if text := judge(c, resp); text != "" {
		all = append(all, text)
	}
	r.Why = strings.Join(append(all, s.complaints()...), "\n")
	r.OK = r.Why == ""
	return r, nil
}

// judge compares what came with what was wanted.
func judge(c *project.Case, r *pb.InvokeResponse) string {
	var all []string
	if text := judgeAnswer(c, r); text != "" {
		all = append(all, text)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Steps)) {
		got := "not reached"
		for _, s := range r.GetSteps() {
			if s.GetFunction() == name {
				got = s.GetOutcome()
				break
			}
		}
		if got != c.Steps[name] {
			all = append(all, fmt.Sprintf("step %s: %s instead of %s", name, got, c.Steps[name]))
		}
	}
	return strings.Join(all, "\n")
}

func judgeAnswer(c *project.Case, r *pb.InvokeResponse) string {
	switch {
	case c.Error == nil && r.GetError() == nil:
		return diffJSON(c.Expected, r.GetOutput())
	case c.Error == nil:
		return "it failed: " + errorLine(r.GetError()) + framesOf(r.GetError().GetThrown().GetStack())
	case r.GetError() == nil:
		return "it did not fail, but answered " + string(r.GetOutput())
	}
	got := project.WantedError{
		Kind: r.GetError().GetKind(), Name: r.GetError().GetThrown().GetName(), Message: r.GetError().GetMessage(),
	}
	if th := r.GetError().GetThrown(); th != nil {
		got.Message = th.GetMessage()
	}
	for _, f := range [][2]string{{c.Error.Kind, got.Kind}, {c.Error.Name, got.Name}, {c.Error.Message, got.Message}} {
		if f[0] != "" && f[0] != f[1] {
			return fmt.Sprintf("it failed with %s\n     instead of %s", errorLine(r.GetError()), wantedLine(c.Error))
		}
	}
	return ""
}

func errorLine(e *pb.CallError) string {
	th := e.GetThrown()
	switch {
	case th != nil && e.GetKind() == string(errs.LoadError) && th.GetLine() > 0:
		return fmt.Sprintf("%s: %s (%s, line %d, column %d)\n%s", orDefault(th.GetName(), "SyntaxError"), th.GetMessage(), e.GetKind(),
			th.GetLine(), th.GetColumn(), strings.TrimRight(th.GetExcerpt(), "\n"))
	case th != nil:
		return fmt.Sprintf("%s: %s (%s)", orDefault(th.GetName(), "Error"), th.GetMessage(), e.GetKind())
	}
	return fmt.Sprintf("%s (%s)", e.GetMessage(), e.GetKind())
}

func wantedLine(w *project.WantedError) string {
	text := strings.Join(nonEmpty(w.Name, w.Message), ": ")
	if w.Kind != "" {
		text += " (" + w.Kind + ")"
	}
	return strings.TrimSpace(text)
}
