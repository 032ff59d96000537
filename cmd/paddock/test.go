package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "paddock/proto/paddock/v1"
)

const caseSuffix = ".case.json"

// testCase is a file beside NAME.js, NAME.case.json or NAME.WHAT.case.json: an input and what must come of it.
type testCase struct {
	About         string            `json:"about"`
	Kind          string            `json:"kind"` // default auto
	Input         json.RawMessage   `json:"input"`
	Configuration map[string]string `json:"configuration"` // laid over the tenant's secrets
	Serve         map[string]reply  `json:"serve"`         // "METHOD /path?query" → what a server at ${serve} answers
	Repeat        int               `json:"repeat"`        // calls, of which the last one counts; default 1
	Expected      json.RawMessage   `json:"expected"`      // the value, or
	Error         *wantedError      `json:"error"`

	file, source, name string
}

// wantedError is a failure; what is not stated may be anything.
type wantedError struct {
	Kind    string `json:"kind,omitempty"`
	Name    string `json:"name,omitempty"`
	Message string `json:"message,omitempty"`
}

// reply is what the test's server answers, and what it demands of the request.
type reply struct {
	Headers map[string]string `json:"headers"` // of the request
	Body    json.RawMessage   `json:"body"`    // of the request
	Status  int               `json:"status"`  // default 200
	JSON    json.RawMessage   `json:"json"`
	Text    string            `json:"text"`
}

func (a *app) testCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "test DIR", Short: "Run the cases that stand beside code in a directory", Args: args("DIR"),
		Long: `Run every DIR/NAME.js against its cases, DIR/NAME.case.json or DIR/NAME.WHAT.case.json, in a sandbox of the tenant,
without storing anything. A case is JSON:

  {"input": …, "expected": …}                              the value must be this
  {"input": …, "error": {"name": …, "message": …}}         or it must fail like this
  "configuration": {"KEY": "value"}                        laid over the tenant's secrets
  "serve": {"GET /users?id=1": {"status": 200, "json": …}} answers of a server that the code finds at ${serve} (--serve;
                                                           the tenant must be allowed to reach it: --egress-private)
  "kind": "rule", "repeat": 3                              as the names say

The exit code is 1 if a case fails.`,
		Example: `  paddock test rules/
  paddock test rules/ --serve 127.0.0.1:8099 --tenant acme`,
	}
	serve := c.Flags().String("serve", "", "address at which the cases' server listens, for example 127.0.0.1:8099")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		cases, err := readCases(args[0])
		if err != nil {
			return err
		}
		s, err := newCaseServer(*serve)
		if err != nil {
			return err
		}
		defer s.close()
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			return a.runCases(ctx, cc, cases, s)
		})
	})
	return c
}

// readCases reads all cases before any is run: a slip in one is found at once.
func readCases(dir string) ([]testCase, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+caseSuffix))
	if err != nil {
		return nil, usageError("%s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, usageError("%s has no cases: put NAME%s beside NAME.js, with {\"input\": …, \"expected\": …}", dir, caseSuffix)
	}
	var cases []testCase
	for _, file := range files {
		c, err := readCase(file)
		if err != nil {
			return nil, usageError("%s: %w", file, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func readCase(file string) (c testCase, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, err
	}
	if (c.Expected == nil) == (c.Error == nil) {
		return c, errors.New(`give "expected" or "error", one of them`)
	}
	c.file, c.Repeat = file, max(c.Repeat, 1)
	for base := strings.TrimSuffix(file, caseSuffix); ; {
		for _, ending := range codeEndings {
			if _, err := os.Stat(base + ending); err == nil {
				c.source, c.name = base+ending, strings.TrimSuffix(filepath.Base(file), caseSuffix)
				return c, nil
			}
		}
		dot := strings.LastIndexByte(base, '.')
		if dot <= strings.LastIndexByte(base, '/') {
			return c, errors.New("there is no file of code that it belongs to")
		}
		base = base[:dot]
	}
}

// caseResult is what --json prints of a case.
type caseResult struct {
	Case   string `json:"case"`
	OK     bool   `json:"ok"`
	TookUs int64  `json:"tookUs"`
	Why    string `json:"why,omitempty"`
}

func (a *app) runCases(ctx context.Context, cc *grpc.ClientConn, cases []testCase, s *caseServer) error {
	var results []caseResult
	failed := 0
	for i := range cases {
		c := &cases[i]
		began := time.Now()
		why, err := a.runCase(ctx, cc, c, s)
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		r := caseResult{c.name, why == "", time.Since(began).Microseconds(), why}
		results = append(results, r)
		if !r.OK {
			failed++
		}
		if !a.jsonOut {
			a.printCase(r)
		}
	}
	if a.jsonOut {
		if err := a.printJSON(results); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.stdout, "%d cases, %d passed, %d failed\n", len(cases), len(cases)-failed, failed)
	}
	if failed > 0 {
		return &exitError{code: exitUser, err: fmt.Errorf("%d cases failed", failed), silent: true}
	}
	return nil
}

func (a *app) printCase(r caseResult) {
	verdict := "ok  "
	if !r.OK {
		verdict = "FAIL"
	}
	fmt.Fprintf(a.stdout, "%s  %s  (%s)\n", verdict, r.Case, brief(time.Duration(r.TookUs)*time.Microsecond))
	for line := range strings.Lines(r.Why) {
		fmt.Fprintf(a.stdout, "      %s\n", a.safeText(strings.TrimRight(line, "\n")))
	}
}

// runCase says why the case failed, "" if it passed. An error means that it could not be run.
func (a *app) runCase(ctx context.Context, cc *grpc.ClientConn, c *testCase, s *caseServer) (why string, err error) {
	source, _, err := a.readSource(c.source)
	if err != nil {
		return err.Error(), nil
	}
	if len(c.Serve) > 0 && s == nil {
		return "it has a server: say where it may listen with --serve", nil
	}
	s.play(c.Serve)
	configuration := map[string]string{}
	for name, value := range c.Configuration {
		configuration[name] = s.fill(value)
	}
	var resp *pb.InvokeResponse
	var logs []*pb.LogLine
	for range c.Repeat {
		resp, err = exchange(ctx, cc, &pb.InvokeRequest{
			Target: &pb.InvokeRequest_Source{Source: &pb.Source{
				Code: source, Kind: c.Kind, Name: filepath.Base(c.source), Configuration: configuration,
			}},
			Input: []byte(s.fill(string(c.Input))), WithLogs: true,
		}, func(l *pb.LogLine) { logs = append(logs, l) })
		if err != nil {
			return "", err
		}
	}
	var all []string
	if text := c.judge(resp); text != "" {
		all = append(all, text)
	}
	all = append(all, s.complaints()...)
	if len(all) > 0 {
		for _, l := range append(logs, resp.GetLogs()...) {
			all = append(all, fmt.Sprintf("log: %-5s %s", l.GetLevel(), strings.TrimSuffix(l.GetText(), "\n")))
		}
	}
	return strings.Join(all, "\n"), nil
}

// judge compares what came with what was wanted.
func (c *testCase) judge(r *pb.InvokeResponse) string {
	if c.Error == nil && r.GetError() == nil {
		return diffJSON(c.Expected, r.GetOutput())
	}
	if c.Error == nil {
		return fmt.Sprintf("it failed: %s", errorLine(r.GetError()))
	}
	if r.GetError() == nil {
		return "it did not fail, but answered " + string(r.GetOutput())
	}
	got := wantedError{r.GetError().GetKind(), r.GetError().GetThrown().GetName(), r.GetError().GetMessage()}
	if th := r.GetError().GetThrown(); th != nil {
		got.Message = th.GetMessage()
	}
	for _, f := range [][2]string{{c.Error.Kind, got.Kind}, {c.Error.Name, got.Name}, {c.Error.Message, got.Message}} {
		if f[0] != "" && f[0] != f[1] {
			return fmt.Sprintf("it failed with %s\n     instead of %s %s", errorLine(r.GetError()), c.Error.Name, c.Error.Message)
		}
	}
	return ""
}

func errorLine(e *pb.CallError) string {
	if th := e.GetThrown(); th != nil {
		return fmt.Sprintf("%s: %s (%s)", orDefault(th.GetName(), "Error"), th.GetMessage(), e.GetKind())
	}
	return fmt.Sprintf("%s (%s)", e.GetMessage(), e.GetKind())
}

// diffJSON shows, line by line, where two JSON texts differ; "" if they say the same.
func diffJSON(want, got []byte) string {
	var w, g any
	if err := json.Unmarshal(want, &w); err != nil {
		return "expected is not JSON: " + err.Error()
	}
	if err := json.Unmarshal(got, &g); err != nil {
		return "the value is not JSON: " + err.Error()
	}
	if reflect.DeepEqual(w, g) {
		return ""
	}
	a, _ := json.MarshalIndent(w, "", "  ")
	b, _ := json.MarshalIndent(g, "", "  ")
	return "- expected, + answered:\n" + diffLines(strings.Split(string(a), "\n"), strings.Split(string(b), "\n"))
}

// diffLines is a diff by the longest common subsequence, with two lines around each change.
func diffLines(a, b []string) string {
	const around, most = 2, 2000
	if len(a) > most || len(b) > most {
		return "(too long to compare line by line)"
	}
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var lines []string
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			lines = append(lines, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, "- "+a[i])
			i++
		default:
			lines = append(lines, "+ "+b[j])
			j++
		}
	}
	var out []string
	for i, line := range lines {
		near := lines[max(0, i-around):min(len(lines), i+around+1)]
		if slices.ContainsFunc(near, func(l string) bool { return l[0] != ' ' }) {
			out = append(out, line)
		} else if len(out) > 0 && out[len(out)-1] != "  …" {
			out = append(out, "  …")
		}
	}
	return strings.Join(out, "\n")
}

// caseServer answers as the case that is running says. A nil one serves nothing.
type caseServer struct {
	server *http.Server
	url    string

	mu      sync.Mutex
	replies map[string]reply
	wrong   []string
}

func newCaseServer(addr string) (*caseServer, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, usageError("--serve %s: %w", addr, err)
	}
	s := &caseServer{url: "http://" + l.Addr().String()}
	s.server = &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: 5 * time.Second}
	go s.server.Serve(l)
	return s, nil
}

func (s *caseServer) close() {
	if s != nil {
		s.server.Close()
	}
}

func (s *caseServer) fill(text string) string {
	if s == nil {
		return text
	}
	return strings.ReplaceAll(text, "${serve}", s.url)
}

func (s *caseServer) play(replies map[string]reply) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replies, s.wrong = replies, nil
}

func (s *caseServer) complaints() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

func (s *caseServer) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	asked := r.Method + " " + r.URL.RequestURI()
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.replies[asked]
	if !ok {
		s.wrong = append(s.wrong, fmt.Sprintf("it asked for %q, which \"serve\" does not have", asked))
		http.Error(w, "not in this case", http.StatusNotImplemented)
		return
	}
	for name, value := range a.Headers {
		if got := r.Header.Get(name); got != value {
			s.wrong = append(s.wrong, fmt.Sprintf("%s: header %s is %q, not %q", asked, name, got, value))
		}
	}
	if a.Body != nil {
		if diff := diffJSON(a.Body, body); diff != "" || err != nil {
			s.wrong = append(s.wrong, fmt.Sprintf("%s: the request's body: %v%s", asked, err, diff))
		}
	}
	if a.JSON != nil {
		w.Header().Set("Content-Type", "application/json")
		a.Text = string(a.JSON)
	}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Text)
}
