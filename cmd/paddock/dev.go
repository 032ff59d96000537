package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"paddock/cmd/paddock/project"
	pb "paddock/proto/paddock/v1"
)

// devFlags are the flags of `dev`.
type devFlags struct {
	callFlags
	kind, listen, serve, configuration string
}

func (a *app) devCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "dev DIR|FILE", Short: "Run code again whenever it is saved, in real sandboxes, without storing anything", Args: args("DIR"),
		Long: `Watch DIR, and whenever a file in it is saved, or one that it imports, run what has changed: against its cases (see 'paddock
test'), and with --input against that. Verdict, answer, logs and timing are shown. The code runs in the same sandboxes, limits and
agent as what is deployed, as if it were the function of the file's name and with its secrets; a pipeline.yaml runs as that
pipeline. Nothing is stored. Ctrl-C ends it.

With --listen an address of this machine answers like the service does, with the code as it stands on disk at each request:

  POST /v1/functions/NAME/invoke    the file NAME.js, NAME.ts, …
  POST /v1/pipelines/NAME/invoke    the pipeline that a manifest calls NAME`,
		Example: `  paddock dev rules/
  paddock dev rules/country.js --input @login.json
  paddock dev login/ --listen 127.0.0.1:9000 --tenant acme
  curl -d @login.json http://127.0.0.1:9000/v1/pipelines/login/invoke`,
	}
	flags := addCallFlags(c)
	var f devFlags
	c.Flags().StringVar(&f.kind, "kind", "", "with --input and --listen: function, rule, webtask or action (default: Paddock looks at the code)")
	c.Flags().StringVar(&f.listen, "listen", "", "answer HTTP here, for example 127.0.0.1:9000; port 0 takes a free one")
	c.Flags().StringVar(&f.configuration, "configuration", "", "with --input and --listen: JSON file of names and values, laid over the tenant's secrets")
	serve := addServeFlag(c)
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		f.callFlags, f.serve = flags(), *serve
		if a.jsonOut {
			return usageError("dev shows a person what happens and has no JSON form: use 'paddock test --json'")
		}
		if _, err := project.Scan(args[0]); err != nil {
			return usageError("%w", err)
		}
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, tenant string) error {
			return a.dev(ctx, cc, args[0], &f, tenant)
		})
	})
	return c
}

// dev is the loop of an author: look, run what has changed, wait for the next save. One goroutine but for the HTTP endpoint,
// which shares nothing with it that changes.
type dev struct {
	app     *app
	conn    *grpc.ClientConn
	path    string
	flags   *devFlags
	cases   *caseServer
	seen    map[string]string // path of a unit → digest of what was run, or the error that was shown
	problem string            // of the folder, shown last
}

func (a *app) dev(ctx context.Context, cc *grpc.ClientConn, path string, f *devFlags, tenant string) error {
	cases, err := newCaseServer(f.serve)
	if err != nil {
		return err
	}
	defer cases.close()
	d := &dev{app: a, conn: cc, path: path, flags: f, cases: cases, seen: map[string]string{}}
	w, err := newWatcher()
	if err != nil {
		return err
	}
	defer w.close()
	if f.listen != "" {
		closeEndpoint, err := d.listen(ctx)
		if err != nil {
			return err
		}
		defer closeEndpoint()
	}
	fmt.Fprintf(a.stdout, "watching %s%s; Ctrl-C ends it\n", path, inTenant(tenant))
	for {
		for changed := true; changed; { // what was saved before its folder was watched is seen now
			if changed, err = w.watch(d.round(ctx)); err != nil {
				return err
			}
		}
		if err := w.wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func inTenant(tenant string) string {
	if tenant == "" {
		return ""
	}
	return " as tenant " + tenant
}

// round runs what has changed since the last one and returns the files that matter.
func (d *dev) round(ctx context.Context) (files []string) {
	files = []string{d.path, strings.TrimPrefix(d.flags.input, "@"), d.flags.configuration}
	folder, err := project.Scan(d.path)
	if err != nil {
		d.complain(err)
		return files
	}
	d.complain(folder.Err())
	drafts, imported := map[string]*draft{}, map[string]bool{}
	for _, u := range folder.Units {
		draft, err := readDraft(u.Path)
		if err != nil {
			d.failed(u, err)
			files = append(files, u.Path)
			continue
		}
		drafts[u.Path] = draft
		files = append(files, draft.files...)
		for _, file := range draft.files[1:] {
			imported[file] = true
		}
	}
	for _, u := range folder.Units {
		if draft := drafts[u.Path]; draft != nil && ctx.Err() == nil {
			d.look(ctx, u, draft, imported[draft.files[0]])
		}
	}
	return files
}

// complain shows what is wrong with the folder, once.
func (d *dev) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != d.problem && text != "" {
		fmt.Fprintf(d.app.stdout, "%s  %s\n", clock(), d.app.safeText(text))
	}
	d.problem = text
}

// failed shows why a unit cannot be run, once.
func (d *dev) failed(u project.Unit, err error) {
	if text := err.Error(); d.seen[u.Path] != text {
		d.seen[u.Path] = text
		fmt.Fprintf(d.app.stdout, "%s  %s\nFAIL  %s\n", clock(), filepath.Base(u.Path), d.app.safeText(text))
	}
}

func clock() string { return time.Now().Format(time.TimeOnly) }

// look runs a unit if it is not what was run before. What others import runs only if it has cases of its own.
func (d *dev) look(ctx context.Context, u project.Unit, draft *draft, imported bool) {
	withInput := d.flags.input != "" && !imported
	var input []byte
	var configuration map[string]string
	var err error
	if withInput {
		input, err = d.app.readInput(d.flags.input)
		if err == nil {
			configuration, err = readConfiguration(d.flags.configuration)
		}
	}
	if err != nil {
		d.failed(u, err)
		return
	}
	digest, err := digestOf(draft.digest(), u.Cases, input, configuration)
	if err != nil || d.seen[u.Path] == digest {
		return
	}
	d.seen[u.Path] = digest
	if len(u.Cases) == 0 && !withInput {
		if !imported {
			fmt.Fprintf(d.app.stdout, "%s  %s has no cases and there is no --input: not run\n", clock(), filepath.Base(u.Path))
		}
		return
	}
	fmt.Fprintf(d.app.stdout, "%s  %s\n", clock(), filepath.Base(u.Path))
	err = d.runCases(ctx, u, draft)
	if err == nil && withInput {
		err = d.runInput(ctx, draft, input)
	}
	if err != nil && ctx.Err() == nil {
		delete(d.seen, u.Path) // was not run: the next save tries again
		fmt.Fprintf(d.app.stdout, "FAIL  not run: %s\n", d.app.safeText(classify(err).Error()))
	}
}

// digestOf tells two states of what is run apart.
func digestOf(parts ...any) (string, error) {
	sum := sha256.New()
	err := json.NewEncoder(sum).Encode(parts)
	return hex.EncodeToString(sum.Sum(nil)), err
}

func (d *dev) runCases(ctx context.Context, u project.Unit, draft *draft) error {
	for i := range u.Cases {
		r, err := runCase(ctx, d.conn, draft, &u.Cases[i], d.cases)
		if err != nil {
			return err
		}
		fmt.Fprint(d.app.stdout, d.app.caseText(r, true), indent(d.app.stepsText(r.steps)))
		if left := len(u.Cases) - i - 1; r.loadError && left > 0 {
			fmt.Fprintf(d.app.stdout, "      (and %d more cases, not run)\n", left)
			return nil
		}
	}
	return nil
}

func (d *dev) runInput(ctx context.Context, draft *draft, input []byte) error {
	resp, err := d.exchange(ctx, draft, input, d.flags.timeout)
	if err != nil {
		return err
	}
	fmt.Fprintln(d.app.stdout, d.app.outcomeText(resp))
	return nil
}

// exchange runs a draft once, as --input and the endpoint do. The logs stand in the answer.
func (d *dev) exchange(ctx context.Context, draft *draft, input []byte, timeout time.Duration) (*pb.InvokeResponse, error) {
	configuration, err := readConfiguration(d.flags.configuration)
	if err != nil {
		return nil, err
	}
	req := draft.request(d.flags.kind, configuration)
	req.Input, req.WithLogs, req.Fresh, req.Idempotent = input, true, d.flags.fresh, d.flags.idempotent
	if timeout > 0 {
		req.Timeout = durationOf(timeout)
	}
	var logs []*pb.LogLine
	resp, err := exchange(ctx, d.conn, req, func(l *pb.LogLine) { logs = append(logs, l) })
	if err != nil {
		return nil, err
	}
	resp.Logs = slices.Concat(logs, resp.Logs)
	return resp, nil
}

// outcomeText shows all there is to say of a call, the value last.
func (a *app) outcomeText(r *pb.InvokeResponse) string {
	var b strings.Builder
	for _, l := range r.GetLogs() {
		fmt.Fprintf(&b, "      %-5s %s\n", l.GetLevel(), a.safeText(strings.TrimSuffix(l.GetText(), "\n")))
	}
	for _, w := range r.GetWarnings() {
		fmt.Fprintf(&b, "      warning: %s\n", a.safeText(w))
	}
	b.WriteString(indent(a.stepsText(r.GetSteps())))
	s := r.GetStages()
	fmt.Fprintf(&b, "      %s in the sandbox, %s in all (%s)\n", micros(s.GetRunUs()), micros(s.GetTotalUs()), orDash(r.GetStart()))
	if e := r.GetError(); e != nil {
		fmt.Fprintf(&b, "      %s%s", a.safeText(errorLine(e)), a.safeText(framesOf(e.GetThrown().GetStack())))
	} else {
		b.WriteString(a.safeText(string(r.GetOutput())))
	}
	return b.String()
}

func micros(us int64) string { return brief(time.Duration(us) * time.Microsecond) }

// errConfiguration is what a file of values has to be.
var errConfiguration = errors.New(`write a JSON object of strings: {"API_URL": "https://…"}`)

// readConfiguration reads a file of names and values; "" is none.
func readConfiguration(file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError("configuration: %w", err)
	}
	var values map[string]string
	if err := json.Unmarshal(b, &values); err != nil {
		return nil, usageError("configuration %s: %w", file, errConfiguration) // not what is wrong: it may be a secret
	}
	return values, nil
}
