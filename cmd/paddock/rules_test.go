package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// TestRules goes through what rules of customers may do wrong, in functions and in pipelines, in real sandboxes.
func TestRules(t *testing.T) {
	for _, isolation := range []string{"runc", "gvisor"} {
		t.Run(isolation, func(t *testing.T) {
			s := newSite(t, "oci", isolation)
			s.start()
			s.cli("tenants", "create", "acme", "--timeout", "1m").want(t, 0, "", "")
			for _, test := range []struct {
				name string
				run  func(*testing.T, *tenantAPI)
			}{
				{"bad rules", testBadRules}, {"refusals", testRefusals}, {"last good", testLastGood}, {"secrets", testSecretsInPipelines},
				{"uploads", testBadUploads},
			} {
				t.Run(test.name, func(t *testing.T) { s.in(t).asTenant(t, "acme", test.run) })
			}
			s.stop(syscall.SIGTERM)
		})
	}
}

// tenantAPI is the service as a program of one tenant sees it.
type tenantAPI struct {
	t       *testing.T
	s       *site
	ctx     context.Context
	conn    *grpc.ClientConn
	catalog pb.CatalogClient
}

func (s *site) asTenant(t *testing.T, tenant string, run func(*testing.T, *tenantAPI)) {
	t.Helper()
	a := &app{conn: connFlags{tenant: tenant}, getenv: func(name string) string { return map[string]string{"PADDOCK_RUN_DIR": s.run}[name] }}
	err := a.withTenant(t.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
		run(t, &tenantAPI{t, s, ctx, cc, pb.NewCatalogClient(cc)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *tenantAPI) call(req *pb.InvokeRequest) *pb.InvokeResponse {
	c.t.Helper()
	req.WithLogs = true
	r, err := exchange(c.ctx, c.conn, req, func(*pb.LogLine) {})
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *tenantAPI) deploy(name, source, kind string) {
	c.t.Helper()
	if _, err := c.catalog.DeployFunction(c.ctx, &pb.DeployFunctionRequest{Name: name, Source: []byte(source), Kind: kind}); err != nil {
		c.t.Fatalf("deploy %s: %v", name, err)
	}
}

// told is an answer in one line: the kind, or ok, then what became of each step.
func told(r *pb.InvokeResponse) string {
	text := orDefault(r.GetError().GetKind(), "ok")
	for _, s := range r.GetSteps() {
		text += " " + s.GetFunction() + ":" + s.GetOutcome()
	}
	return text
}

// draftOf is a pipeline of sources, each a step s1, s2, …, of the same policy; limit is the first one's time, 0: none of its own.
func draftOf(kind, policy string, limit time.Duration, sources ...string) *pb.Draft {
	d := &pb.Draft{Kind: kind}
	for i, source := range sources {
		d.Steps = append(d.Steps, &pb.DraftStep{
			Function: fmt.Sprintf("s%d", i+1), Source: &pb.Source{Code: []byte(source)}, OnFailure: policy,
		})
	}
	d.Steps[0].Timeout = durationOf(limit)
	return d
}

// seen is a rule that says in context how it found it.
const seen = `function (user, context, callback) { context.seen = Object.keys(context).concat(Object.keys(user)).join(); callback(null, user, context); }`

// testBadRules: each way to do it wrong has a typed error, alone, as a step and as a step that is skipped; a skipped one leaves
// nothing behind, and the sandbox serves on.
func testBadRules(t *testing.T, c *tenantAPI) {
	const never, late = "never calls back", "calls back after the timeout"
	rules := map[string]struct{ body, kind, name string }{
		"throws":               {`context.bad = 1; null.x;`, "user_error", "TypeError"},
		"throws later":         {`setTimeout(() => { throw new RangeError("later"); }, 5);`, "user_error", "RangeError"},
		"rejects":              {`return Promise.reject(new RangeError("no"));`, "user_error", "RangeError"},
		never:                  {`context.bad = 1;`, "timeout", ""},
		late:                   {`setTimeout(() => { context.bad = 2; callback(null, user, context); }, 1700);`, "timeout", ""},
		"mutates frozen":       {`"use strict"; const f = Object.freeze({}); context.bad = 1; f.x = 1; callback(null, user, context);`, "user_error", "TypeError"},
		"circular":             {`context.self = context; callback(null, user, context);`, "user_error", "TypeError"},
		"BigInt":               {`context.n = 10n; callback(null, user, context);`, "user_error", "TypeError"},
		"BigInt as user":       {`callback(null, 10n, context);`, "user_error", "TypeError"},
		"a string as an error": {`callback("Access to this is limited");`, "user_error", "Error"},
	}
	const input = `{"user":{},"context":{}}`
	for what, rule := range rules {
		source := "function (user, context, callback) { " + rule.body + " }"
		limit := time.Duration(0)
		if what == never || what == late {
			limit = 500 * time.Millisecond
		}
		alone := &pb.InvokeRequest{Target: &pb.InvokeRequest_Source{Source: &pb.Source{Code: []byte(source), Kind: "rule"}}, Input: []byte(input)}
		alone.Timeout = durationOf(limit)
		if r := c.call(alone); r.GetError().GetKind() != rule.kind || r.GetError().GetThrown().GetName() != rule.name || len(r.GetOutput()) != 0 {
			t.Errorf("%s: %v", what, r)
		}
		step := &pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: draftOf("rule", "fail", limit, source, seen)}, Input: []byte(input)}
		if what == "circular" || what == "BigInt" { // it is the last that hands on what cannot be handed on
			step.GetDraft().Steps = step.GetDraft().Steps[:1]
		}
		r := c.call(step)
		if got := told(r); !strings.HasPrefix(got, rule.kind+" s1:failed") || r.GetError().GetThrown().GetName() != rule.name || len(r.GetOutput()) != 0 {
			t.Errorf("%s as a step: %s, %v", what, got, r)
		}
		skip := draftOf("rule", "skip", limit, source, seen)
		r = c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: skip}, Input: []byte(input)})
		if told(r) != "ok s1:skipped s2:ok" || string(r.GetOutput()) != `{"user":{},"context":{"seen":""}}` || len(r.GetWarnings()) != 1 {
			t.Errorf("%s, skipped: %s %s", what, told(r), r)
		}
	}
	twice := `function (user, context, callback) { context.n = 1; callback(null, user, context); context.n = 2; callback(new Error("again")); callback(null, {}, {}); }`
	for _, d := range []*pb.Draft{draftOf("rule", "fail", 0, twice), draftOf("rule", "skip", 0, twice)} {
		if r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte(input)}); string(r.GetOutput()) != `{"user":{},"context":{"n":1}}` &&
			string(r.GetOutput()) != `{"user":{},"context":{"n":2}}` {
			t.Errorf("called back twice: %v", r)
		}
	}
	// 2 MiB of context go through, policy or not; what the tenant may not have is refused with the number.
	large := `{"user":{},"context":{"blob":"` + strings.Repeat("x", 2<<20) + `"}}`
	for _, policy := range []string{"fail", "skip"} {
		d := draftOf("rule", policy, 0, `function (user, context, callback) { context.size = context.blob.length; callback(null, user, context); }`, seen)
		r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte(large)})
		if told(r) != "ok s1:ok s2:ok" || len(r.GetOutput()) < len(large) || !strings.HasSuffix(string(r.GetOutput()), `"size":2097152,"seen":"blob,size"}}`) {
			t.Errorf("2 MiB, %s: %s, %d bytes", policy, told(r), len(r.GetOutput()))
		}
	}
	grows := draftOf("rule", "fail", 0, `function (user, context, callback) { context.more = "x".repeat(7 << 20); callback(null, user, context); }`)
	if r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: grows}, Input: []byte(input)}); r.GetError().GetKind() != "output_too_large" {
		t.Errorf("7 MiB of answer: %s", told(r))
	}
	if r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: draftOf("rule", "fail", 0, seen)}, Input: []byte(`{"user":1}`)}); r.GetError().GetKind() != "invalid" {
		t.Errorf("a user that is no object: %v", r)
	}
}

// testRefusals: nothing turns a refusal into anything else, whatever the policy, however it is said, whatever comes before it
// or after it.
func testRefusals(t *testing.T, c *tenantAPI) {
	const after = `function (user, context, callback) { context.redirect = { url: "https://in.example" }; callback(null, user, context); }`
	rule := func(body string) string { return "function (user, context, callback) { " + body + " }" }
	ways := map[string]string{
		"calls back":              rule(`callback(new UnauthorizedError("no"))`),
		"calls back with objects": rule(`callback(new UnauthorizedError("no"), user, context)`),
		"throws":                  rule(`throw new UnauthorizedError("no")`),
		"throws later":            rule(`setTimeout(() => { throw new UnauthorizedError("no") }, 5)`),
		"rejects":                 `async ` + rule(`throw new UnauthorizedError("no")`),
		"redirects and refuses":   rule(`context.redirect = { url: "https://in.example" }; callback(new UnauthorizedError("no"), user, context)`),
		"refuses and goes on":     rule(`callback(new UnauthorizedError("no")); callback(null, user, context)`),
	}
	for _, policy := range []string{"fail", "skip", "last_good"} {
		for way, source := range ways {
			d := draftOf("rule", policy, 0, seen, source, after)
			r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte(`{"user":{},"context":{}}`)})
			if told(r) != "refused s1:ok s2:refused" || r.GetError().GetThrown().GetName() != "UnauthorizedError" || r.GetError().GetThrown().GetMessage() != "no" ||
				len(r.GetOutput()) != 0 || len(r.GetWarnings()) != 0 {
				t.Errorf("%s, %s: %s %v", policy, way, told(r), r)
			}
		}
		for way, body := range map[string]string{
			"denies": `api.access.deny("no")`, "denies and throws": `api.access.deny("no"); throw new Error("x")`,
			"redirects and denies": `api.redirect.sendUserTo("https://in.example"); api.access.deny("no")`,
			"denies and hangs":     `api.access.deny("no"); await new Promise(() => {})`,
		} {
			d := draftOf("action", policy, time.Second, "exports.onExecutePostLogin = async (event, api) => { "+body+" }",
				`exports.onExecutePostLogin = async (event, api) => { api.redirect.sendUserTo("https://in.example") }`)
			r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte(`{"user":{}}`)})
			if told(r) != "refused s1:refused" || r.GetError().GetThrown().GetMessage() != "no" || len(r.GetOutput()) != 0 {
				t.Errorf("%s, %s: %s %v", policy, way, told(r), r)
			}
		}
	}
	// One that comes after its step was given up still counts, as long as the pipeline runs.
	d := draftOf("rule", "skip", time.Second, rule(`setTimeout(() => callback(new UnauthorizedError("no")), 1300)`),
		rule(`setTimeout(() => callback(null, user, context), 3000)`))
	if r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte(`{"user":{},"context":{}}`)}); told(r) != "refused s1:refused" {
		t.Errorf("a late refusal: %s %v", told(r), r)
	}
	// Nor does a loop that never ends, and takes the sandbox along: each in one of its own.
	for kind, source := range map[string]string{
		"rule":   rule(`callback(new UnauthorizedError("no")); for (;;);`),
		"action": `exports.onExecutePostLogin = async (event, api) => { api.access.deny("no"); for (;;); }`,
	} {
		c.s.cli("tenants", "create", "spinning-"+kind).want(t, 0, "", "")
		c.s.asTenant(t, "spinning-"+kind, func(t *testing.T, own *tenantAPI) {
			for _, policy := range []string{"skip", "last_good"} {
				d := draftOf(kind, policy, 3*time.Second, source, source)
				if r := own.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte(`{"user":{}}`)}); told(r) != "refused s1:refused" {
					t.Errorf("%s that refuses and spins: %s %v", kind, told(r), r)
				}
				own.servedElsewhere("a " + kind + " that refuses and spins, " + policy)
			}
		})
	}
	// Nor what answers and spins then.
	c.s.cli("tenants", "create", "spinning").want(t, 0, "", "")
	c.s.asTenant(t, "spinning", func(t *testing.T, own *tenantAPI) {
		answers := `async ` + rule(`callback(null, user, context); await new Promise(setImmediate); for (;;);`)
		for what, req := range map[string]*pb.InvokeRequest{
			"function": {Target: &pb.InvokeRequest_Source{Source: &pb.Source{Code: []byte(answers), Kind: "rule"}}},
			"pipeline": {Target: &pb.InvokeRequest_Draft{Draft: draftOf("rule", "skip", 0, answers)}},
		} {
			if req.Input = []byte(`{"user":{}}`); told(own.call(req)) != map[string]string{"function": "ok", "pipeline": "ok s1:ok"}[what] {
				t.Errorf("a %s that answers and spins: %v", what, req)
			}
			own.servedElsewhere("a " + what + " that answers and spins")
		}
	})
}

// servedElsewhere calls right after one that keeps its sandbox busy for ever, and of whose end one would hear only after half a minute.
func (c *tenantAPI) servedElsewhere(after string) {
	c.t.Helper()
	r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: draftOf("rule", "", 0, seen)}, Input: []byte(`{"user":{}}`), Timeout: durationpb.New(20 * time.Second)})
	if told(r) != "ok s1:ok" {
		c.t.Errorf("the next call after %s: %v", after, r)
	}
}

// testLastGood: a version that has succeeded a hundred times stands in for a later one that fails; one that refuses is no
// failure, of either of them.
func testLastGood(t *testing.T, c *tenantAPI) {
	rule := func(body string) string { return "function (user, context, callback) { " + body + " }" }
	proven := func(version int64) bool {
		v, err := c.catalog.ListVersions(c.ctx, &pb.ListVersionsRequest{Name: "good"})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range v.GetVersions() {
			if one.GetNumber() == version {
				return one.GetProven()
			}
		}
		return false
	}
	c.deploy("good", rule(`if (user.blocked) return callback(new UnauthorizedError("blocked"));
		if (user.ends) { console.log("the stand-in runs"); return setTimeout(() => { for (const all = []; ; ) all.push(new Array(1e6).fill(1)); }, 100); }
		context.by = "first"; callback(null, user, context);`), "rule")
	if _, err := c.catalog.PutPipeline(c.ctx, &pb.PutPipelineRequest{Name: "lenient", Pipeline: &pb.Pipeline{Steps: []*pb.PipelineStep{
		{Function: "good", OnFailure: "last_good", Timeout: durationpb.New(4 * time.Second)},
	}}}); err != nil {
		t.Fatal(err)
	}
	const input = `{"user":{},"context":{}}`
	run := func(input string) *pb.InvokeResponse {
		return c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Pipeline{Pipeline: "lenient"}, Input: []byte(input)})
	}
	for range 99 {
		c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: "good"}, Input: []byte(input)})
	}
	if proven(1) {
		t.Error("99 successes have proved a version")
	}
	if r := run(input); told(r) != "ok good:ok" {
		t.Fatalf("%v", r)
	}
	testenv.Await(t, "the version has proved itself", func() bool { return proven(1) })
	for _, bad := range []string{`throw new Error("second")`, `for (;;);`, `context.x = 1n; callback(null, user, context)`} {
		c.deploy("good", rule(`context.left = 1; `+bad), "rule")
		r := run(input)
		if told(r) != "ok good:last_good" || string(r.GetOutput()) != `{"user":{},"context":{"by":"first"}}` || r.GetSteps()[0].GetFallback() != 1 ||
			len(r.GetWarnings()) != 1 {
			t.Errorf("%s: %v", bad, r)
		}
	}
	if r := run(`{"user":{"blocked":true},"context":{}}`); told(r) != "refused good:refused" {
		t.Errorf("the stand-in refuses: %v", r)
	}
	// It ends its sandbox: it is not begun again in another one.
	begun := 0
	r, err := exchange(c.ctx, c.conn, &pb.InvokeRequest{
		Target: &pb.InvokeRequest_Pipeline{Pipeline: "lenient"}, Input: []byte(`{"user":{"ends":true},"context":{}}`), WithLogs: true,
	}, func(l *pb.LogLine) {
		if l.GetText() == "the stand-in runs" {
			begun++
		}
	})
	if err != nil || told(r) != "out_of_memory good:failed" || begun != 1 {
		t.Errorf("a stand-in that ends its sandbox began %d times: %v, %v", begun, r, err)
	}
	c.deploy("good", rule(`callback(new UnauthorizedError("no"))`), "rule")
	if r := run(input); told(r) != "refused good:refused" {
		t.Errorf("the new version refuses: %v", r)
	}
	if r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: "good"}, Input: []byte(input)}); r.GetError() == nil {
		t.Errorf("alone it refuses: %v", r)
	}
	c.deploy("good", rule(`callback(new UnauthorizedError("no")); for (;;);`), "rule")
	if r := run(input); told(r) != "refused good:refused" {
		t.Errorf("the new version refuses and spins: %v", r)
	}
	c.servedElsewhere("one with a stand-in that refuses and spins")
}

// testSecretsInPipelines: a changed secret is seen by the next call in the same warm container, and what has captured the old one
// is not used any more; calls that began before may see either, but one value throughout.
func testSecretsInPipelines(t *testing.T, c *tenantAPI) {
	set := func(value string) {
		t.Helper()
		if _, err := c.catalog.SetSecret(c.ctx, &pb.SetSecretRequest{Name: "TOKEN", Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	const capturing = `const captured = configuration.TOKEN; global.loads = (global.loads || 0) + 1;
		module.exports = function (user, context, callback) {
			context.all = (context.all || []).concat(captured, configuration.TOKEN); callback(null, user, context); };`
	c.deploy("capture-1", capturing, "rule")
	c.deploy("capture-2", capturing+" // again", "rule")
	if _, err := c.catalog.PutPipeline(c.ctx, &pb.PutPipelineRequest{Name: "captures", Pipeline: &pb.Pipeline{Steps: []*pb.PipelineStep{
		{Function: "capture-1"}, {Function: "capture-2", OnFailure: "skip"},
	}}}); err != nil {
		t.Fatal(err)
	}
	run := func() (container, values string, err error) {
		r, err := exchange(c.ctx, c.conn, &pb.InvokeRequest{
			Target: &pb.InvokeRequest_Pipeline{Pipeline: "captures"}, Input: []byte(`{"user":{},"context":{}}`),
		}, func(*pb.LogLine) {})
		if err == nil && r.GetError() != nil {
			err = fmt.Errorf("%v", r.GetError())
		}
		return r.GetContainerId(), string(r.GetOutput()), err
	}
	want := func(value string) string {
		return fmt.Sprintf(`{"user":{},"context":{"all":[%[1]q,%[1]q,%[1]q,%[1]q]}}`, value)
	}
	set("value-0")
	first, got, err := run()
	if err != nil || got != want("value-0") {
		t.Fatalf("%s %v", got, err)
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, got, err := run()
				at := strings.Index(got, "value-")
				if err != nil || at < 0 || got != want(got[at:at+len("value-0")]) {
					t.Errorf("a mixture, or a failure: %s %v", got, err)
					return
				}
			}
		})
	}
	for i := range 8 {
		value := fmt.Sprintf("value-%d", i+1)
		set(value)
		if container, got, err := run(); err != nil || got != want(value) || container != first {
			t.Errorf("after %s was set: %s in %s instead of %s, %v", value, got, container, first, err)
		}
	}
	close(stop)
	load.Wait()
}

// testBadUploads: typed errors, nothing lost, nothing half published.
func testBadUploads(t *testing.T, c *tenantAPI) {
	rule := func(n int) []byte {
		return fmt.Appendf(nil, "function (user, context, callback) { context.n = %d; callback(null, user, context); }", n)
	}
	fails := func(what string, err error, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if err == nil || !strings.Contains(classify(err).Error(), text) {
				t.Errorf("%s: %v, want %q", what, err, text)
			}
		}
	}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			var err error
			again := []codes.Code{codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted}
			for try := 0; try < 5 && (try == 0 || slices.Contains(again, status.Code(err))); try++ { // on a busy machine, as it says
				_, err = c.catalog.DeployFunction(c.ctx, &pb.DeployFunctionRequest{Name: "crowd", Source: rule(i)})
			}
			if err != nil {
				t.Errorf("upload %d: %v", i, err)
			}
		})
	}
	all.Wait()
	listed, err := c.catalog.ListVersions(c.ctx, &pb.ListVersionsRequest{Name: "crowd"})
	if err != nil || len(listed.GetVersions()) != 100 {
		t.Fatalf("%d versions of 100 uploads, %v", len(listed.GetVersions()), err)
	}
	hashes, active := map[string]bool{}, 0
	for _, v := range listed.GetVersions() {
		hashes[v.GetHash()] = true
		if v.GetActive() {
			active++
		}
	}
	if len(hashes) != 100 || active != 1 {
		t.Errorf("%d different ones, %d active", len(hashes), active)
	}
	put := func(steps ...*pb.PipelineStep) error {
		_, err := c.catalog.PutPipeline(c.ctx, &pb.PutPipelineRequest{Name: "crowded", Pipeline: &pb.Pipeline{Steps: steps}})
		return err
	}
	fails("duplicate order", put(&pb.PipelineStep{Function: "crowd", Order: 3}, &pb.PipelineStep{Function: "crowd@1", Order: 3}), "same order 3")
	fails("missing version", put(&pb.PipelineStep{Function: "crowd@999"}), "step 1", "no version 999")
	fails("missing function", put(&pb.PipelineStep{Function: "nobody"}), "step 1", "no function nobody")
	if err := put(&pb.PipelineStep{Function: "crowd"}); err != nil {
		t.Fatal(err)
	}
	_, err = c.catalog.DeleteFunction(c.ctx, &pb.DeleteFunctionRequest{Name: "crowd"})
	fails("a function that is used", err, "crowd", "crowded")
	// A publication with code that does not compile changes nothing; the place is said.
	_, err = c.catalog.PublishPipeline(c.ctx, &pb.PublishPipelineRequest{Name: "crowded", Pipeline: &pb.Pipeline{Steps: []*pb.PipelineStep{{Function: "one"}, {Function: "two"}}},
		Functions: []*pb.DeployFunctionRequest{{Name: "one", Source: rule(1)}, {Name: "two", Source: []byte("function (user, context, callback) {\n  let x = ;\n}")}}})
	fails("a step that does not compile", err, "two.js does not compile: line 2, column 11")
	if _, err := c.catalog.GetFunction(c.ctx, &pb.GetFunctionRequest{Name: "one"}); err == nil {
		t.Error("half of it was published")
	}
	if p, err := c.catalog.GetPipeline(c.ctx, &pb.GetPipelineRequest{Name: "crowded"}); err != nil || len(p.GetSteps()) != 1 {
		t.Errorf("%v, %v", p, err)
	}
	for _, name := range []string{"a b", "", "1st", "ключ", "__proto__", "a/b", "a\x00b", strings.Repeat("x", 129), "$(id)", "a\nb"} {
		_, err := c.catalog.SetSecret(c.ctx, &pb.SetSecretRequest{Name: name, Value: "v"})
		fails("secret "+name, err, "secret name")
	}
	for _, name := range []string{"constructor", "toString", "a.b-c_D", strings.Repeat("x", 128)} {
		if _, err := c.catalog.SetSecret(c.ctx, &pb.SetSecretRequest{Name: name, Value: "value of it"}); err != nil {
			t.Errorf("secret %s: %v", name, err)
		}
	}
	d := draftOf("rule", "", 0, `function (user, context, callback) { callback(null, user, { own: [configuration.constructor, configuration.toString, configuration["a.b-c_D"]] }); }`)
	if r := c.call(&pb.InvokeRequest{Target: &pb.InvokeRequest_Draft{Draft: d}, Input: []byte("{}")}); string(r.GetOutput()) !=
		`{"user":{},"context":{"own":["value of it","value of it","value of it"]}}` {
		t.Errorf("secrets with odd names: %v", r)
	}
	// A tenant that is suspended deploys nothing, and runs nothing.
	c.s.cli("tenants", "suspend", "acme").want(t, 0, "", "")
	_, err = c.catalog.DeployFunction(c.ctx, &pb.DeployFunctionRequest{Name: "late", Source: rule(7)})
	fails("a suspended tenant's deployment", err, "suspended")
	c.s.cli("tenants", "resume", "acme").want(t, 0, "", "")
	c.deploy("late", string(rule(7)), "")
}
