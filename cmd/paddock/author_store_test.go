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
	asAcme("functions", "access", "rule").want(t, 0, "only those with a key", "")
	asAcme("functions", "access", "rule", "--public", "--rate", "5").want(t, 0, "everybody may call it, at most 5 calls/s", "")
	asAcme("functions", "show", "rule", "--json").want(t, 0, `"rateBurst": 10`, "") // it follows the rate
	key := strings.TrimSpace(asAcme("functions", "access", "rule", "--url-key").want(t, 0, "", "who has its ?key= may call it, at most 5 calls/s").out)
	again := strings.TrimSpace(asAcme("functions", "access", "rule", "--url-key", "--new-url-key").want(t, 0, "", "?key=").out)
	if len(key) < 20 || key == again || strings.ContainsAny(key, " \n") {
		t.Errorf("keys %q and %q", key, again)
	}
	asAcme("functions", "access", "rule", "--private").want(t, 0, "only those with a key", "")
	asAcme("functions", "access", "rule", "--private", "--public").want(t, exitUsage, "", "")

	s.cli("__complete", "invoke", "--tenant", "acme", "ru").want(t, 0, "rule\n", "")
	asAcme("functions", "delete", "rule").want(t, 0, "rule is gone", "")
}
