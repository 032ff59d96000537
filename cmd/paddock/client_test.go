package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
)

// TestClient goes through the client commands against one running service, as a user would.
func TestClient(t *testing.T) {
	s := newSite(t, "oci", "runc")
	s.start()
	for name, test := range map[string]func(*testing.T, *site){
		"run": testRun, "deploy": testDeploy, "tenants": testTenants, "keys": testKeys, "logs": testLogs, "calls": testCalls, "pool": testPool,
		"where": testWhere, "bad input": testBadInput, "egress": testEgress, "http": testHTTP,
	} {
		t.Run(name, func(t *testing.T) { test(t, s.in(t)) })
	}
	s.stop(syscall.SIGTERM)
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// in is the same site in another test.
func (s *site) in(t *testing.T) *site {
	other := *s
	other.t = t
	return &other
}

func testRun(t *testing.T, s *site) {
	s.cliAs(nil, `module.exports = async (input) => ({ twice: input.n * 2 })`, "run", "-", "--input", `{"n":21}`).
		want(t, 0, `{"twice":42}`, "")
	file := source(t, `module.exports = async (i, ctx) => { console.warn("careful", i); return null }`)
	s.cli("run", file, "--input", `"x"`, "--fresh").want(t, 0, "null", "warn  careful x")
	r := s.cli("run", file, "--json").want(t, 0, "", "")
	var a jsonAnswer
	if err := json.Unmarshal([]byte(r.out), &a); err != nil || string(a.Output) != "null" || len(a.Logs) != 1 || a.Start == "" ||
		len(a.CallID) != 32 || a.Stages.Total == 0 || a.Isolation != "runc" {
		t.Errorf("--json says %s (%v)", r.out, err)
	}
	s.cliAs(nil, `module.exports = () => { class Broken extends Error {}; throw new TypeError("no good") }`, "run", "-").
		want(t, exitUser, "", "TypeError: no good\n    at ")
	s.cliAs(nil, `function (user, context, callback) { callback(new UnauthorizedError("not you")) }`, "run", "-", "--kind", "rule",
		"--input", `{"user":{},"context":{}}`).want(t, exitUser, "", "UnauthorizedError: not you")
	r = s.cliAs(nil, "const a = 1\nlet b = ;\n", "run", "-").want(t, exitUser, "", "line 2, column 9")
	if !strings.Contains(r.stderr, "let b = ;\n        ^") || !strings.Contains(r.stderr, "load_error, started: no") {
		t.Errorf("no excerpt in %q", r.stderr)
	}
	r = s.cliAs(nil, `module.exports = () => { throw new Error("x") }`, "run", "-", "--json").want(t, exitUser, "", "")
	if err := json.Unmarshal([]byte(r.out), &a); err != nil || a.Error == nil || a.Error.Kind != "user_error" || a.Error.Thrown.Message != "x" {
		t.Errorf("--json of a failure says %s (%v)", r.out, err)
	}
	// In a sandbox of its own: a loop that does not stop takes the tenant's other calls in its sandbox with it.
	s.cliAs(nil, `while(1){}`, "run", "-", "--timeout", "2s", "--fresh").want(t, exitUser, "", "timeout, started: maybe")
}

func testDeploy(t *testing.T, s *site) {
	file := filepath.Join(t.TempDir(), "greet.js")
	for n, text := range []string{`module.exports = async (i) => "hello " + i`, `module.exports = async (i) => "good day " + i`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.cli("deploy", file, "--note", "a greeting").want(t, 0, fmt.Sprintf("greet@%d is active", n+1), "")
	}
	s.cli("deploy", file, "--name", "greet").want(t, 0, "greet@2 is active", "") // the same code is the same version
	s.cli("invoke", "greet", "-i", `"you"`).want(t, 0, `"good day you"`, "")
	s.cli("invoke", "greet@1", "-i", `"you"`).want(t, 0, `"hello you"`, "")
	s.cli("functions", "list").want(t, 0, "greet", "")
	s.cli("functions", "show", "greet").want(t, 0, "a greeting", "")
	s.cli("functions", "delete", "greet").want(t, 0, "gone", "")
	s.cli("invoke", "greet").want(t, exitUsage, "", "greet")
	s.cliAs(nil, "let = = 1", "deploy", "-", "--name", "broken")
	s.cliAs(nil, "x", "deploy", "-").want(t, exitUsage, "", "--name")
	s.cli("deploy", "/nowhere.js").want(t, exitUsage, "", "/nowhere.js")
	s.cli("deploy", file, "--name", "no/slash").want(t, exitUsage, "", "no/slash")
}

func testTenants(t *testing.T, s *site) {
	s.cli("tenants", "create", "acme", "--timeout", "2s", "--concurrency", "7", "--egress", "api.example.com:443").want(t, 0, "acme is active", "")
	r := s.cli("tenants", "show", "acme").want(t, 0, "api.example.com:443", "")
	for _, want := range []string{"timeout", "2s", "concurrency", "7", "idle-ttl", "5m0s"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("show does not say %q: %s", want, r.out)
		}
	}
	s.cli("tenants", "update", "acme", "--egress", "").want(t, 0, "acme", "")
	s.cli("tenants", "list").want(t, 0, "acme", "")
	s.cli("tenants", "create", "acme").want(t, exitUsage, "", "acme")
	s.cli("tenants", "create", "Not Good").want(t, exitUsage, "", "Not Good")
	s.cli("tenants", "show", "nobody").want(t, exitUsage, "", "nobody")

	// Suspension cancels what runs and refuses what comes.
	slow := source(t, `module.exports = () => new Promise(r => { console.log("begun"); setTimeout(r, 1900) })`)
	done := make(chan result, 1)
	go func() { done <- s.cli("run", slow, "-t", "acme") }()
	testenv.Await(t, "the call runs", func() bool { return strings.Contains(s.cli("logs", "-t", "acme").out, "begun") })
	s.cli("tenants", "suspend", "acme").want(t, 0, "acme is suspended", "")
	if r := <-done; r.code == 0 {
		t.Errorf("the call of a suspended tenant ended well: %+v", r)
	}
	s.cliAs(nil, counter, "run", "-", "-t", "acme").want(t, exitUsage, "", "suspended")
	s.cli("tenants", "resume", "acme").want(t, 0, "acme is active", "")
	s.cliAs(nil, counter, "run", "-", "-t", "acme").want(t, 0, "1", "")

	// Deletion takes everything, calls in flight too.
	s.cliAs(nil, counter, "deploy", "-", "--name", "count", "-t", "acme").want(t, 0, "count@1", "")
	key := strings.TrimSpace(s.cli("keys", "create", "-t", "acme").want(t, 0, "", "").out)
	go func() { done <- s.cli("run", slow, "-t", "acme") }()
	testenv.Await(t, "the call runs", func() bool { return strings.Count(s.cli("logs", "-t", "acme").out, "begun") == 2 })
	r = s.cli("tenants", "delete", "acme").want(t, 0, "acme is gone: 1 container, 1 key, 1 function", "")
	if r := <-done; r.code == 0 {
		t.Errorf("the call of a deleted tenant ended well: %+v", r)
	}
	s.cliAs(map[string]string{"PADDOCK_URL": s.HTTP, "PADDOCK_KEY": key}, counter, "run", "-").want(t, exitUsage, "", "")
	if out := s.cli("pool", "list").out; strings.Contains(out, "acme") {
		t.Errorf("a container of the deleted tenant is left: %s", out)
	}
	s.cli("logs", "-t", "acme").want(t, exitUsage, "", "acme")
}

func testKeys(t *testing.T, s *site) {
	s.cli("tenants", "create", "keyed").want(t, 0, "", "")
	secret := strings.TrimSpace(s.cli("keys", "create", "--tenant", "keyed", "--role", "deploy", "--note", "ci").want(t, 0, "pdk_", "").out)
	id, _, _ := strings.Cut(strings.TrimPrefix(secret, "pdk_"), ".")
	as := func(args ...string) result {
		return s.cliAs(map[string]string{"PADDOCK_URL": s.HTTP, "PADDOCK_KEY": secret}, counter, args...)
	}
	s.cli("keys", "list", "-t", "keyed").want(t, 0, id, "")
	as("run", "-").want(t, 0, "1", "")
	as("deploy", "-", "--name", "mine").want(t, 0, "mine@1", "")
	as("run", "-", "-t", "default").want(t, exitUsage, "", "tenant") // its own only
	as("tenants", "list").want(t, exitUsage, "", "")
	as("pool", "list").want(t, exitUsage, "", "")
	as("keys", "create", "--role", "operator").want(t, exitUsage, "", "")
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cli("invoke", "mine", "--url", s.HTTP, "--key", "@"+file).want(t, 0, "2", "")
	s.cli("keys", "revoke", id).want(t, 0, "revoked", "")
	as("run", "-").want(t, exitUsage, "", "key")
	s.cli("keys", "create", "--ttl", "-1s").want(t, exitUsage, "", "ttl")
	s.cli("keys", "create", "--role", "king", "-t", "keyed").want(t, exitUsage, "", "king")
	s.cli("tenants", "delete", "keyed").want(t, 0, "", "")
}

func testLogs(t *testing.T, s *site) {
	s.cli("tenants", "create", "chatty").want(t, 0, "", "")
	// A follower in this process, cut off with the tenant.
	follower := make(chan result, 1)
	var heard testenv.Log
	go func() {
		follower <- s.cliInto(&heard, nil, "", "logs", "-f", "-t", "chatty", "--level", "warn", "--json")
	}()
	testenv.Await(t, "the follower gets a line", func() bool {
		s.cliAs(nil, `module.exports = () => { console.log("quiet"); console.error("\u001b[31mloud\nsecond") }`, "run", "-", "-t", "chatty")
		return strings.Contains(heard.String(), "loud")
	})
	if out := s.cli("logs", "-t", "chatty", "--level", "error").out; !strings.Contains(out, "loud") || strings.Contains(out, "quiet") {
		t.Errorf("the level does not filter: %s", out)
	}
	if out := s.cli("logs").out; strings.Contains(out, "loud") {
		t.Errorf("another tenant's lines: %s", out)
	}
	s.cli("logs", "--level", "shrill").want(t, exitUsage, "", "shrill")
	s.cli("tenants", "delete", "chatty").want(t, 0, "", "")
	select {
	case r := <-follower:
		var l jsonLog
		line, _, _ := strings.Cut(r.out, "\n")
		if err := json.Unmarshal([]byte(line), &l); r.code != 0 || err != nil || l.Level != "error" || len(l.Call) != 32 {
			t.Errorf("the follower got %+v (%v)", r, err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the follower goes on after its tenant is gone")
	}
}

func testCalls(t *testing.T, s *site) {
	s.cli("tenants", "create", "history", "--record-inputs", "5").want(t, 0, "", "")
	code := `module.exports = async (input) => { console.log('got', input.n); if (input.n > 1) throw new TypeError('n is ' + input.n); return input.n }`
	s.cli("deploy", source(t, code), "--name", "counter", "--tenant", "history").want(t, 0, "counter@1", "")
	s.cli("invoke", "counter", "--input", `{"n":1}`, "--tenant", "history").want(t, 0, "1", "")
	s.cli("invoke", "counter", "--input", `{"n":2}`, "--tenant", "history").want(t, exitUser, "", "n is 2")
	r := s.cli("calls", "--tenant", "history").want(t, 0, "counter@1", "")
	if rows := strings.Split(strings.TrimSpace(r.out), "\n"); len(rows) != 3 || !strings.Contains(rows[1], "user_error") ||
		!strings.Contains(rows[1], "TypeError: n is 2") || !strings.Contains(rows[2], " ok ") {
		t.Errorf("%s", r.out)
	}
	r = s.cli("calls", "--failed", "--function", "counter", "--json", "--tenant", "history").want(t, 0, `"inputKept":`, "")
	var list struct {
		Calls []struct {
			CallID    string
			InputKept bool
		}
	}
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list.Calls) != 1 || !list.Calls[0].InputKept {
		t.Fatalf("%s: %v", r.out, err)
	}
	id := list.Calls[0].CallID
	s.cli("calls", "show", id[:10], "--tenant", "history").want(t, 0, "got 2", "")
	s.cli("calls", "show", id, "--json", "--tenant", "history").want(t, 0, `"text": "got 2"`, "")
	s.cli("calls", "show", "ffff", "--tenant", "history").want(t, exitUsage, "", "not among those")
	s.cli("calls", "show", id, "--tenant", "default").want(t, exitUsage, "", "not among those")
	s.cli("calls", "--outcome", "good", "--tenant", "history").want(t, exitUsage, "", "out_of_memory")
	key := strings.TrimSpace(s.cli("keys", "create", "--role", "deploy", "--tenant", "history").want(t, 0, "pdk_", "").out)
	req, _ := http.NewRequest("GET", s.HTTP+"/v1/calls/"+id, nil)
	req.Header.Set("Authorization", "Bearer "+key)
	if body := get(t, req, 200); !strings.Contains(body, base64.StdEncoding.EncodeToString([]byte(`{"n":2}`))) {
		t.Errorf("%s", body)
	}
}

func testPool(t *testing.T, s *site) {
	s.cli("tenants", "create", "pooled").want(t, 0, "", "")
	s.cliAs(nil, counter, "run", "-", "-t", "pooled").want(t, 0, "1", "")
	r := s.cli("pool", "list", "-t", "pooled", "--json").want(t, 0, "assigned", "")
	var list struct{ Containers []struct{ ID, Tenant string } }
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list.Containers) != 1 {
		t.Fatalf("pool list: %s (%v)", r.out, err)
	}
	id := list.Containers[0].ID
	s.cli("pool", "explain", id[:10]).want(t, 0, "drains (idle)", "")
	s.cli("pool", "explain", "zzzz").want(t, exitUsage, "", "zzzz")
	s.cli("pool", "drain", id[:10]).want(t, 0, "draining 1 container", "")
	s.cliAs(nil, counter, "run", "-", "-t", "pooled").want(t, 0, "1", "") // a new one
	s.cli("pool", "drain").want(t, exitUsage, "", "--all")
	s.cli("pool", "resize").want(t, exitUsage, "", "--min-ready")
	s.cli("pool", "resize", "--min-ready", "-1").want(t, exitUsage, "", "")
	s.cli("pool", "resize", "--min-ready", "1").want(t, 0, "min-ready 1", "")
	s.cli("pool", "resize", "--min-ready", "2").want(t, 0, "min-ready 2", "")
	s.cli("top", "--once").want(t, 0, "pooled", "")
	s.cli("pool", "fill").want(t, exitUsage, "", "fill")
	s.cli("tenants", "delete", "pooled").want(t, 0, "", "")
}

func testWhere(t *testing.T, s *site) {
	key := "@" + filepath.Join(s.data, "operator.key")
	s.cliAs(map[string]string{"PADDOCK_URL": "http://" + s.GRPC, "PADDOCK_KEY": key, "PADDOCK_TENANT": "default"}, counter, "run", "-").want(t, 0, "", "")
	s.cliAs(map[string]string{"PADDOCK_URL": s.HTTP, "PADDOCK_KEY": key}, counter, "run", "-").want(t, exitUsage, "", "--tenant")
	s.cliAs(map[string]string{"PADDOCK_URL": s.HTTP}, counter, "run", "-").want(t, exitUsage, "", "PADDOCK_KEY")
	s.cliAs(map[string]string{"PADDOCK_URL": s.HTTP, "PADDOCK_KEY": "wrong"}, counter, "run", "-").want(t, exitUsage, "", "key")
	s.cliAs(map[string]string{"PADDOCK_URL": "ftp://x"}, "", "pool").want(t, exitUsage, "", "http://")
	s.cli("pool", "--data-dir", s.data).want(t, 0, "oci/runc", "")
	s.cli("pool", "--data-dir", "/nowhere").want(t, exitPlatform, "", "/nowhere")
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	s.cliAs(map[string]string{"PADDOCK_URL": "http://" + gone.Addr().String(), "PADDOCK_KEY": key}, "", "pool").want(t, exitPlatform, "", gone.Addr().String())
	s.cliAs(map[string]string{"PADDOCK_RUN_DIR": filepath.Join(t.TempDir(), "none")}, "", "pool").want(t, exitPlatform, "", "no 'paddock up' runs")
}

func testBadInput(t *testing.T, s *site) {
	run := func(stdin string, args ...string) result {
		return s.cliAs(nil, stdin, append([]string{"run", "-"}, args...)...)
	}
	run("\xff\xfe not text").want(t, exitUsage, "", "UTF-8")
	run("").want(t, exitUsage, "", "empty")
	run(strings.Repeat("x", 10<<20)).want(t, exitUsage, "", "source")
	run(counter, "-i", "{nope").want(t, exitUsage, "", "JSON")
	run(counter, "-i", "@/nowhere.json").want(t, exitUsage, "", "/nowhere.json")
	run(counter, "-t", "nobody").want(t, exitUsage, "", "nobody")
	run(counter, "--timeout", "-1s").want(t, exitUsage, "", "timeout")
	run(counter, "--timeout", "1h").want(t, exitUsage, "", "5m0s")
	run(counter, "--timeout", "soon").want(t, exitUsage, "", "soon")
	run(counter, "--kind", "poem").want(t, exitUsage, "", "poem")
	s.cli("invoke", "nothing").want(t, exitUsage, "", "nothing")
	s.cli("invoke", "bad@version").want(t, exitUsage, "", "version")
	s.cli("run", "/nowhere.js").want(t, exitUsage, "", "/nowhere.js")
	s.cli("run").want(t, exitUsage, "", "FILE is missing")
	s.cli("run", "a", "b").want(t, exitUsage, "", `unexpected argument "b"`)
	s.cli("fly").want(t, exitUsage, "", "fly")
	s.cli("tenants").want(t, 0, "default", "")                // a bare noun lists
	s.cli("tenants", "sing").want(t, exitUsage, "", "create") // and says what there is
}

func testEgress(t *testing.T, s *site) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "from outside") }))
	defer web.Close()
	addr := web.Listener.Addr().String()
	fetch := source(t, `module.exports = async (url) => (await fetch(url)).text()`)
	input := fmt.Sprintf("%q", web.URL)
	s.cli("tenants", "create", "out").want(t, 0, "", "")
	s.cli("run", fetch, "-t", "out", "-i", input).want(t, exitUser, "", "")
	s.cli("tenants", "update", "out", "--egress", addr).want(t, 0, "", "")
	s.cli("run", fetch, "-t", "out", "-i", input).want(t, exitUser, "", "") // loopback is not reached by an ordinary rule
	s.cli("tenants", "update", "out", "--egress", addr, "--egress-private", addr).want(t, 0, "", "")
	testenv.Await(t, "the new rules are in force", func() bool {
		return s.cli("run", fetch, "-t", "out", "-i", input).code == 0
	})
	s.cli("run", fetch, "-t", "out", "-i", input).want(t, 0, "from outside", "")
	// Not even a rule leads back to the service itself.
	own := strings.TrimPrefix(s.HTTP, "http://")
	s.cli("tenants", "update", "out", "--egress", own, "--egress-private", own).want(t, 0, "", "")
	s.cli("run", fetch, "-t", "out", "-i", fmt.Sprintf("%q", s.HTTP+"/healthz")).want(t, exitUser, "", "")
	s.cli("tenants", "update", "out", "--egress", "no port").want(t, exitUsage, "", "no port")
	s.cli("tenants", "delete", "out").want(t, 0, "", "")
}

// testHTTP is what the banner tells people to try, and what operators look at.
func testHTTP(t *testing.T, s *site) {
	key, err := os.ReadFile(filepath.Join(s.data, "operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, s.HTTP+"/v1/run", bytes.NewReader([]byte(`module.exports = async () => "hello"`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	req.Header.Set("Paddock-Tenant", "default")
	req.Header.Set("Content-Type", "application/javascript")
	if body := get(t, req, http.StatusOK); body != `"hello"` {
		t.Errorf("answer %q", body)
	}
	for path, want := range map[string]string{
		"/healthz": "", "/readyz": "", "/openapi.json": "/v1/tenants", "/metrics": "paddock_pool_containers",
	} {
		req, err := http.NewRequest(http.MethodGet, s.HTTP+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body := get(t, req, http.StatusOK); !strings.Contains(body, want) {
			t.Errorf("%s does not say %q", path, want)
		}
	}
}

func get(t *testing.T, req *http.Request, status int) string {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != status {
		t.Fatalf("%s %s: %s: %s", req.Method, req.URL, res.Status, b.String())
	}
	return b.String()
}
