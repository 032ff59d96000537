package main

import (
	"encoding/json"
	"strings"
	"testing"

	pb "paddock/proto/paddock/v1"

	"google.golang.org/protobuf/encoding/protojson"
)

// testVersions: what an author does with the versions of a function.
func testVersions(t *testing.T, s *site) {
	f := newFolder(t, "rule.js", "module.exports = () => 1;\n")
	asAcme := func(args ...string) result { return s.cli(append(args, "--tenant", "acme")...) }
	asAcme("deploy", f.path("rule.js"), "--note", "the first").want(t, 0, "rule@1 is active (", "")
	f.write("rule.js", "module.exports = () => 2;\n")
	asAcme("deploy", f.path("rule.js"), "--no-activate").want(t, 0, "rule@2 is stored, rule@1 stays active", "")
	asAcme("invoke", "rule").want(t, 0, "1\n", "")
	asAcme("invoke", "rule@2").want(t, 0, "2\n", "")
	asAcme("deploy", f.path("rule.js"), "--no-activate").want(t, 0, "rule@2 is stored, rule@1 stays active", "")
	if r := asAcme("functions", "versions", "rule").want(t, 0, "the first", ""); strings.Count(r.out, "\n") != 3 || !strings.Contains(r.out, "active") {
		t.Errorf("versions:\n%s", r.out)
	}
	var listed pb.ListVersionsResponse
	if r := asAcme("functions", "versions", "rule", "--json"); protojson.Unmarshal([]byte(r.out), &listed) != nil ||
		len(listed.GetVersions()) != 2 || listed.GetVersions()[0].GetNumber() != 2 || !listed.GetVersions()[1].GetActive() {
		t.Errorf("--json: %s", r.out)
	}
	asAcme("functions", "diff", "rule").want(t, 0, "-module.exports = () => 1;\n+module.exports = () => 2;\n", "")
	asAcme("functions", "diff", "rule", "1", "1").want(t, 0, "", "rule@1 and rule@1 are the same")
	asAcme("functions", "show", "rule@1", "--source").want(t, 0, "module.exports = () => 1;\n", "")
	var shown struct{ Source string }
	if r := asAcme("functions", "show", "rule@2", "--json"); json.Unmarshal([]byte(r.out), &shown) != nil || shown.Source != "module.exports = () => 2;\n" {
		t.Errorf("--json: %s", r.out)
	}
	asAcme("functions", "activate", "rule", "2", "--percent", "10").want(t, 0, "rule@1 is active, rule@2 gets 10% of the calls\n", "")
	asAcme("functions", "list").want(t, 0, "1, 2 for 10%", "")
	asAcme("functions", "delete", "rule@2").want(t, exitUsage, "", "rule")
	asAcme("functions", "activate", "rule@2").want(t, 0, "rule@2 is active\n", "")
	asAcme("invoke", "rule").want(t, 0, "2\n", "")
	asAcme("functions", "rollback", "rule").want(t, 0, "rule@1 is active\n", "")
	asAcme("invoke", "rule").want(t, 0, "1\n", "")
	asAcme("functions", "delete", "rule@2").want(t, 0, "rule@2 is gone", "")
	asAcme("invoke", "rule@2").want(t, exitUsage, "", "rule")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"activate", "rule"}, "VERSION is missing"}, {[]string{"activate", "rule", "x"}, `version "x": use a number`},
		{[]string{"activate", "rule", "1", "--percent", "101"}, "percent 101"}, {[]string{"activate", "rule", "9"}, "9"},
		{[]string{"show", "rule@0"}, `version "0"`}, {[]string{"diff", "rule", "1", "9"}, "9"}, {[]string{"versions", "none"}, "none"},
		{[]string{"rollback", "rule"}, "rule"},
	} {
		asAcme(append([]string{"functions"}, c.args...)...).want(t, exitUsage, "", c.want)
	}
	f.write("rule.js", "module.exports = () => {\n  const a = ;\n}\n")
	asAcme("deploy", f.path("rule.js")).want(t, exitUser, "", "line 2, column 13")
	asAcme("functions", "versions", "rule").want(t, 0, "active", "")

	asAcme("functions", "access", "rule").want(t, 0, "only those with a key", "")
	asAcme("functions", "access", "rule", "--public", "--rate", "5").want(t, 0, "everybody may call it, at most 5 calls/s", "")
	key := strings.TrimSpace(asAcme("functions", "access", "rule", "--url-key").want(t, 0, "", "who has its ?key= may call it, at most 5 calls/s").out)
	again := strings.TrimSpace(asAcme("functions", "access", "rule", "--url-key", "--new-url-key").want(t, 0, "", "?key=").out)
	if len(key) < 20 || key == again || strings.ContainsAny(key, " \n") {
		t.Errorf("keys %q and %q", key, again)
	}
	asAcme("functions", "access", "rule", "--private").want(t, 0, "only those with a key", "")
	asAcme("functions", "access", "rule", "--private", "--public").want(t, exitUsage, "", "")

	asAcme("__complete", "invoke", "ru").want(t, 0, "rule\n", "")
	asAcme("functions", "delete", "rule").want(t, 0, "rule is gone", "")
}

const loginManifest = `name: login
steps:
  - file: known.js
  - file: extra.ts
    on_failure: skip
  - {file: last.js, disabled: true}
`

// testPublish: what an author does with a pipeline.
func testPublish(t *testing.T, s *site) {
	f := newFolder(t, "pipeline.yaml", loginManifest,
		"known.js", "function (user, context, callback) {\n  if (user.email === 'eve') return callback(new UnauthorizedError('not you'));\n"+
			"  console.log('known', user.email);\n  callback(null, user, context);\n}\n",
		"extra.ts", "export default (user: any, context: any, callback: Function) => {\n  user.extra = configuration.EXTRA || 'none';\n"+
			"  if (user.email === 'max') throw new TypeError('no extra');\n  callback(null, user, context);\n};\ndeclare const configuration: Record<string, string>;\n",
		"last.js", "function (user, context, callback) { callback(new Error('never')) }",
		"pipeline.jane.case.json", `{"input": {"user": {"email": "jane"}, "context": {}}, "configuration": {"EXTRA": "1"},
			"expected": {"user": {"email": "jane", "extra": "1"}, "context": {}}, "steps": {"known": "ok", "extra": "ok", "last": "disabled"}}`,
		"pipeline.eve.case.json", `{"input": {"user": {"email": "eve"}, "context": {}}, "error": {"name": "UnauthorizedError", "message": "not you"},
			"steps": {"known": "refused"}}`,
		"pipeline.max.case.json", `{"input": {"user": {"email": "max"}, "context": {}}, "expected": {"user": {"email": "max"}, "context": {}},
			"steps": {"extra": "skipped"}}`)
	asAcme := func(args ...string) result { return s.cli(append(args, "--tenant", "acme")...) }
	input := func(email string) string { return `{"user":{"email":"` + email + `"},"context":{}}` }

	asAcme("test", f.dir).want(t, 0, "3 cases, 3 passed, 0 failed", "") // nothing is stored yet
	asAcme("pipelines", "put", f.dir).want(t, exitUsage, "", "known")
	asAcme("publish", f.dir, "--dry-run").want(t, 0, "login would be published", "")
	asAcme("pipelines", "show", "login").want(t, exitUsage, "", "login")
	r := asAcme("publish", f.dir, "--note", "first").want(t, 0, "login is published (revision ", "")
	if strings.Count(r.out, "new, version 1") != 3 || !strings.Contains(r.out, "disabled") {
		t.Errorf("publish says\n%s", r.out)
	}
	r = asAcme("publish", f.dir).want(t, 0, "login is as it was", "")
	if strings.Count(r.out, "version 1, as before") != 3 {
		t.Errorf("published again it says\n%s", r.out)
	}
	r = asAcme("invoke", "--pipeline", "login", "--input", input("jane")).want(t, 0, `{"user":{"email":"jane","extra":"none"},"context":{}}`, "known jane")
	for _, text := range []string{"step  known@1  ok", "step  extra@1  ok", "step  last@1   disabled  -"} {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("%q is missing in\n%s", text, r.stderr)
		}
	}
	asAcme("pipelines", "invoke", "login", "--input", input("eve")).want(t, exitUser, "", "UnauthorizedError: not you")
	asAcme("invoke", "--pipeline", "login", "--input", input("max")).want(t, 0, `{"user":{"email":"max"},"context":{}}`, "TypeError: no extra")
	var a jsonAnswer
	if r := asAcme("invoke", "--pipeline", "login", "--input", input("max"), "--json"); json.Unmarshal([]byte(r.out), &a) != nil ||
		len(a.Steps) != 3 || a.Steps[1].Outcome != "skipped" || a.Steps[1].Error.Thrown.Name != "TypeError" || a.Revision == 0 || len(a.Warnings) == 0 {
		t.Errorf("--json: %s", r.out)
	}
	asAcme("try", f.dir, "--input", input("jane"), "--compare").want(t, 0, "the same answer as login", "")

	f.write("extra.ts", "export default (user: any, context: any, callback: Function) => { user.extra = 'changed'; callback(null, user, context); };")
	asAcme("try", f.dir, "--input", input("jane"), "--compare").want(t, 0, "+     \"extra\": \"changed\"", "")
	asAcme("publish", f.dir, "--dry-run").want(t, 0, "changed since version 1", "")
	f.write("pipeline.yaml", "name: login\nsteps:\n  - {file: extra.ts}\n  - {file: known.js}\n")
	f.write("known.js", "function (user, context, callback) {\n  const x = ;\n}\n")
	asAcme("publish", f.dir).want(t, exitUser, "", "line 2, column 13")
	asAcme("invoke", "--pipeline", "login", "--input", input("jane")).want(t, 0, `"extra":"none"`, "") // nothing of it is there
	f.write("known.js", "function (user, context, callback) { callback(null, user, context) }")
	r = asAcme("publish", f.dir).want(t, 0, "version 1 → 2, was skip", "")
	if !strings.Contains(r.out, "gone: last") {
		t.Errorf("publish says\n%s", r.out)
	}
	asAcme("invoke", "--pipeline", "login", "--input", input("eve")).want(t, 0, `"extra":"changed"`, "")

	asAcme("pipelines", "list").want(t, 0, "login", "")
	yaml := asAcme("pipelines", "show", "login", "--yaml").want(t, 0, "name: login\nkind: rule\n", "").out
	f.write("pipeline.yaml", strings.Replace(yaml, "name: login", "name: other", 1))
	asAcme("pipelines", "put", f.dir).want(t, 0, "other has 2 steps", "")
	asAcme("functions", "delete", "known").want(t, exitUsage, "", "login")
	asAcme("__complete", "pipelines", "show", "o").want(t, 0, "other\n", "")
	asAcme("pipelines", "delete", "other").want(t, 0, "other is gone", "")
	asAcme("pipelines", "delete", "login").want(t, 0, "login is gone", "")
}
