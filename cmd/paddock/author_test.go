package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
)

// TestAuthor goes through what an author of rules does, against one running service.
func TestAuthor(t *testing.T) {
	s := newSite(t, "oci", "runc")
	s.start()
	s.cli("tenants", "create", "acme").want(t, 0, "", "")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *site)
	}{
		{"dev", testDev}, {"try", testTry}, {"bundles", testBundles}, {"versions", testVersions}, {"pipelines", testPipelineDrafts},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s.in(t)) })
	}
	s.stop(syscall.SIGTERM)
}

// folder is an author's, to write to.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T, files ...string) *folder {
	f := &folder{t, t.TempDir()}
	for i := 0; i < len(files); i += 2 {
		f.write(files[i], files[i+1])
	}
	return f
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) write(name, text string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// replace writes a file as editors do: beside it, then in its place.
func (f *folder) replace(name, text string) {
	f.t.Helper()
	f.write(name+"~new", text)
	if err := os.Rename(f.path(name+"~new"), f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

// running is a client command that goes on until it is stopped.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    testenv.Log
	exited chan error
}

func (s *site) begin(args ...string) *running {
	s.t.Helper()
	r := &running{t: s.t, cmd: s.command(args...), exited: make(chan error, 1)}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	if err := r.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { r.exited <- r.cmd.Wait() }()
	s.t.Cleanup(func() { r.cmd.Process.Kill() })
	return r
}

// says waits until the text has come so many times.
func (r *running) says(text string, times int) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for strings.Count(r.out.String(), text) < times {
		select {
		case err := <-r.exited:
			r.t.Fatalf("it ended: %v\n%s", err, r.out.String())
		case <-deadline:
			r.t.Fatalf("it does not say %q %d times:\n%s", text, times, r.out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (r *running) interrupt() {
	r.t.Helper()
	r.cmd.Process.Signal(os.Interrupt)
	select {
	case err := <-r.exited:
		if err != nil {
			r.t.Errorf("after Ctrl-C: %v\n%s", err, r.out.String())
		}
	case <-time.After(time.Minute):
		r.t.Errorf("goes on after Ctrl-C:\n%s", r.out.String())
	}
}

func testDev(t *testing.T, s *site) {
	f := newFolder(t, "twice.js", "const { mul } = require('./lib/mul');\nmodule.exports = (n) => { console.log('n is', n); return mul(n) };",
		"lib/mul.js", "exports.mul = (n) => n * 2;", "twice.case.json", `{"input": 4, "expected": 8}`, "alone.ts", "export default () => 1")
	s.cli("dev", f.path("none")).want(t, exitUsage, "", "no such file")
	s.cli("dev", f.dir, "--tenant", "acme", "--listen", "0.0.0.0:0").want(t, exitUsage, "", "on this machine alone")
	d := s.begin("dev", f.dir, "--tenant", "acme", "--listen", "127.0.0.1:0")
	d.says("ok    twice  (", 1)
	d.says("log: info  n is 4", 1)
	d.says("alone.ts has no cases", 1)
	f.replace("lib/mul.js", "exports.mul = (n) => n * 3;") // a file that is imported, in a folder below
	d.says("-   8", 0)
	d.says("- 8\n      + 12", 1)
	f.write("twice.js", "module.exports = (n) => { return n * 2 +; };")
	d.says("FAIL  twice", 2)
	f.write("twice.js", "module.exports = (n) => n * 2;")
	d.says("ok    twice  (", 2)
	f.write("twice.neg.case.json", `{"input": -1}`)
	d.says(`give "expected" or "error"`, 1)
	f.write("twice.neg.case.json", `{"input": -1, "expected": -2}`)
	d.says("ok    twice.neg", 1)

	at := regexp.MustCompile(`answering on (http://\S+)`).FindStringSubmatch(d.out.String())
	if at == nil {
		t.Fatalf("no endpoint in\n%s", d.out.String())
	}
	post := func(name, body string) (int, string) {
		t.Helper()
		res, err := http.Post(at[1]+"/v1/functions/"+name+"/invoke", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for i, text := range []string{"10", "20"} { // each request runs what is on disk, whether or not the loop has seen it
		f.replace("twice.js", "module.exports = (n) => n + "+text+";")
		if status, body := post("twice", "5"); status != 200 || body != []string{"15", "25"}[i] {
			t.Errorf("answers %d %s", status, body)
		}
	}
	f.write("twice.js", "module.exports = (n) => { throw new RangeError('too much') };")
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"twice", "5", 500, `"name":"RangeError"`}, {"nope", "5", 404, `"kind":"not_found"`}, {"twice", "{", 400, `"kind":"invalid"`},
		{"twice", "5", 500, `"kind":"user_error"`}, {"alone", "5", 200, "1"},
	} {
		if status, body := post(c.name, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("POST %s %s: %d %s", c.name, c.body, status, body)
		}
	}
	d.interrupt()

	d = s.begin("dev", f.path("alone.ts"), "--tenant", "acme", "--input", "@"+f.path("input.json"))
	d.says("no such file", 1)
	f.write("input.json", `{"a": 1}`)
	d.says("in the sandbox", 1)
	f.write("alone.ts", "export default (input: unknown) => ({ got: input })")
	d.says(`{"got":{"a":1}}`, 1)
	f.write("input.json", `{"a": 2}`)
	d.says(`{"got":{"a":2}}`, 1)
	d.interrupt()
}

func testTry(t *testing.T, s *site) {
	f := newFolder(t, "sum.js", "module.exports = (list, ctx) => ({ sum: list.reduce((a, b) => a + b, 0), by: ctx.secrets.WHO })")
	asAcme := func(args ...string) result { return s.cli(append(args, "--tenant", "acme")...) }
	asAcme("deploy", f.path("sum.js")).want(t, 0, "sum@1", "")
	s.cliAs(nil, "all", "secrets", "set", "WHO", "-", "--tenant", "acme").want(t, 0, "", "")
	s.cliAs(nil, "sum alone", "secrets", "set", "WHO", "-", "--function", "sum", "--tenant", "acme").want(t, 0, "", "")
	asAcme("try", f.path("sum.js"), "--input", "[1,2]").want(t, 0, `{"sum":3,"by":"sum alone"}`, "")
	asAcme("try", f.path("sum.js"), "--input", "[1,2]", "--as", "other").want(t, 0, `{"sum":3,"by":"all"}`, "")
	asAcme("try", f.path("sum.js"), "--input", "[1,2]", "--compare").want(t, 0, "the same answer as sum", "")
	f.write("draft.js", "module.exports = (list) => { console.log('draft'); return { sum: list.length } }")
	r := asAcme("try", f.path("draft.js"), "--as", "sum", "--input", "[1,2]", "--compare").want(t, 0, "-   \"sum\": 3", "info  draft")
	if !strings.Contains(r.out, "+   \"sum\": 2") || !strings.Contains(r.out, "-   \"by\": \"sum alone\"") {
		t.Errorf("no difference in\n%s", r.out)
	}
	asAcme("try", f.path("draft.js"), "--as", "sum", "--input", "[1,2]", "--compare", "--json").want(t, 0, `"same": false`, "")
	asAcme("try", f.path("draft.js"), "--input", "null", "--as", "sum", "--compare").want(t, exitUser, `"name": "TypeError"`, "")
	asAcme("try", f.path("draft.js"), "--input", "null").want(t, exitUser, "", "TypeError: Cannot read")
	asAcme("try", f.path("draft.js"), "--input", "[1]", "--compare").want(t, exitUsage, "", "the active version: ")
	asAcme("try", f.dir, "--input", "[1]").want(t, exitUsage, "", "pipeline.yaml")
	callID := func() string {
		t.Helper()
		var a jsonAnswer
		r := asAcme("invoke", "sum", "--input", "[40,2]", "--json").want(t, 0, "", "")
		if err := json.Unmarshal([]byte(r.out), &a); err != nil {
			t.Fatal(err)
		}
		return a.CallID
	}
	asAcme("try", f.path("draft.js"), "--call", callID()).want(t, exitUsage, "", "its input was not recorded")
	asAcme("try", f.path("draft.js"), "--call", "0123", "--input", "1").want(t, exitUsage, "", "input")
	asAcme("try", f.path("draft.js"), "--call", strings.Repeat("0", 32)).want(t, exitUsage, "", "is not kept")
	s.cli("tenants", "update", "acme", "--record-inputs", "5").want(t, 0, "", "")
	kept := callID()
	for _, id := range []string{kept, shortID(kept)} {
		asAcme("try", f.path("sum.js"), "--call", id).want(t, 0, `"sum":42`, "")
		asAcme("logs", "--call", id).want(t, 0, "", "")
	}
	asAcme("logs", "--call", "0123").want(t, exitUsage, "", "is not among those that are kept")
	if r := asAcme("functions", "list").want(t, 0, "sum", ""); strings.Contains(r.out, "draft") {
		t.Errorf("a draft was stored:\n%s", r.out)
	}
}

// testPipelineDrafts: a pipeline as it stands on disk runs like a published one, and nothing of it is stored.
func testPipelineDrafts(t *testing.T, s *site) {
	f := newFolder(t, "pipeline.yaml", "name: flow\nsteps:\n- file: first.js\n- file: odd.ts\n  on_failure: skip\n- function: stored@1\n",
		"first.js", "function (user, context, cb) { context.who = configuration.WHO; context.n = 1; cb(null, user, context); }",
		"odd.ts", "import { name } from './lib';\nexport default function (user: any, context: any, cb: Function) { context.odd = 1; cb(new Error(name)); }\n",
		"lib.ts", "export const name = 'odd one';\n",
		"pipeline.a.case.json", `{"configuration": {"WHO": "the case"}, "input": {"user": {}, "context": {}},
			"expected": {"user": {}, "context": {"who": "the case", "n": 2}}, "steps": {"first": "ok", "odd": "skipped", "stored": "ok"}}`)
	asAcme := func(args ...string) result { return s.cli(append(args, "--tenant", "acme")...) }
	stored := source(t, "function (user, context, cb) { context.n++; cb(null, user, context); }")
	asAcme("test", f.dir).want(t, exitUser, "step 3: there is no function stored", "")
	asAcme("deploy", stored, "--name", "stored", "--kind", "rule").want(t, 0, "stored@1", "")
	s.cliAs(nil, "first alone", "secrets", "set", "WHO", "-", "--function", "first", "--tenant", "acme").want(t, 0, "", "")
	asAcme("test", f.dir).want(t, 0, "1 cases, 1 passed", "")
	f.write("pipeline.b.case.json", `{"input": {"user": {}, "context": {}}, "expected": {"user": {}, "context": {}}, "steps": {"odd": "ok"}}`)
	r := asAcme("test", f.dir).want(t, 1, "step odd: skipped instead of ok", "")
	if !strings.Contains(r.out, `+     "who": "first alone"`) {
		t.Errorf("no difference in\n%s", r.out)
	}
	const input = `{"user":{},"context":{"x":1}}`
	asAcme("try", f.dir, "--input", input).want(t, 0, `{"user":{},"context":{"x":1,"who":"first alone","n":2}}`, "odd one")
	asAcme("try", f.dir, "--input", input, "--compare").want(t, exitUsage, "", "the active version: ")
	asAcme("publish", f.dir).want(t, 0, "flow is published", "")
	f.write("same.yaml", "name: flow\nsteps:\n- file: first.js\n- file: odd.ts\n  on_failure: skip\n- function: stored@1\n")
	asAcme("publish", f.path("same.yaml"), "--dry-run").want(t, 0, "flow", "")
	asAcme("try", f.path("same.yaml"), "--input", input).want(t, 0, `"n":2`, "odd one")
	asAcme("test", f.path("same.yaml")).want(t, exitUsage, "", "neither code")
	asAcme("try", f.dir, "--input", input, "--compare").want(t, 0, "the same answer as flow", "")
	f.write("first.js", "function (user, context, cb) { cb(new UnauthorizedError('not today')); }")
	asAcme("try", f.dir, "--input", input).want(t, exitUser, "", "UnauthorizedError: not today")
	asAcme("invoke", "flow", "--pipeline", "--input", input).want(t, 0, `"who":"first alone"`, "")

	f.write("first.js", "function (user, context, cb) { context.n = 1; cb(null, user, context); }")
	d := s.begin("dev", f.dir, "--tenant", "acme", "--listen", "127.0.0.1:0", "--input", input)
	d.says("ok    pipeline.a", 0)
	d.says("skipped", 1)
	d.says(`"n":2`, 1)
	f.replace("first.js", "function (user, context, cb) { context.n = 40; cb(null, user, context); }")
	d.says(`"n":41`, 1)
	f.write("first.js", "function (user, context, cb) { context.n = +; }")
	d.says("load_error", 1)
	f.write("first.js", "function (user, context, cb) { context.n = 7; cb(null, user, context); }")
	d.says(`"n":8`, 1)
	at := regexp.MustCompile(`answering on (http://\S+)`).FindStringSubmatch(d.out.String())
	if at == nil {
		t.Fatalf("no endpoint in\n%s", d.out.String())
	}
	res, err := http.Post(at[1]+"/v1/pipelines/flow/invoke", "application/json", strings.NewReader(input))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), `"n":8`) {
		t.Errorf("the endpoint says %d %s, %v", res.StatusCode, body, err)
	}
	d.interrupt()
	if r := asAcme("functions", "versions", "first").want(t, 0, "", ""); strings.Contains(r.out, "2 ") && strings.Count(r.out, "\n") > 2 {
		t.Errorf("a draft was stored:\n%s", r.out)
	}
	asAcme("calls").want(t, 0, "(draft)", "")
}

func testBundles(t *testing.T, s *site) {
	f := newFolder(t, "rule.js", "function (user, context, callback) {\n  require('./lib/deny')(user);\n  callback(null, user, context);\n}\n",
		"lib/deny.ts", "function deny(user: { email: string }): void {\n  if (user.email.endsWith('.evil'))\n    throw new TypeError('denied');\n}\n"+
			"export = deny;\n",
		"later.mjs", "import { EOL } from 'node:os';\nconst value = await Promise.resolve(EOL.length);\nexport default () => { if (value) throw new Error('late'); };\n",
		"large.mjs", "import list from 'huge';\nexport default () => list.length;\n",
		"node_modules/huge/index.js", "module.exports = ["+strings.Repeat("'0123456789012345678901234567890123456789',\n", 30_000)+"];\n")
	asAcme := func(args ...string) result { return s.cli(append(args, "--tenant", "acme")...) }
	asAcme("deploy", f.path("rule.js"), "--kind", "rule", "--name", "bundled").want(t, 0, "bundled@1 is active", "")
	asAcme("invoke", "bundled", "--input", `{"user":{"email":"a@b.c"},"context":{"x":1}}`).want(t, 0, `{"user":{"email":"a@b.c"},"context":{"x":1}}`, "")
	r := asAcme("invoke", "bundled", "--input", `{"user":{"email":"a@b.evil"},"context":{}}`).want(t, exitUser, "", "TypeError: denied")
	if !strings.Contains(r.stderr, "lib/deny.ts:3:11") || !strings.Contains(r.stderr, "rule.js:2:3") {
		t.Errorf("not the author's lines:\n%s", r.stderr)
	}
	asAcme("run", f.path("later.mjs")).want(t, exitUser, "", "later.mjs:3:41")
	asAcme("deploy", f.path("large.mjs")).want(t, exitUsage, "", "at most 1048576 are allowed\nit is a bundle of 2 files")
}

// TestDevEndpointIsForThisMachine: a page in the author's browser must not run his drafts.
func TestDevEndpointIsForThisMachine(t *testing.T) {
	h := onlyLocal(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{"127.0.0.1:9000", "", 204}, {"localhost:9000", "", 204}, {"[::1]:9000", "", 204}, {"localhost", "", 204},
		{"evil.example:9000", "", 403}, {"10.0.0.1:9000", "", 403}, {"localhost.evil.example", "", 403}, {"", "", 403},
		{"127.0.0.1:9000", "https://evil.example", 403}, {"127.0.0.1:9000", "null", 403},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("host %q, origin %q: %d, want %d", c.host, c.origin, w.Code, c.want)
		}
	}
}
