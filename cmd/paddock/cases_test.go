package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The rules that customers write, each with its cases, in real sandboxes.
func TestExampleRules(t *testing.T) {
	s := newSite(t, "oci", "runc")
	s.start()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s.cli("tenants", "create", "acme", "--egress-private", addr, "--timeout", "1m").want(t, 0, "", "")
	rules := filepath.Join("..", "..", "examples", "rules")
	r := s.cli("test", rules, "--serve", addr, "--tenant", "acme")
	if r.code != 0 || !strings.Contains(r.out, " 0 failed\n") {
		t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.stderr)
	}
	files, err := filepath.Glob(filepath.Join(rules, "*.js"))
	if err != nil || len(files) < 12 {
		t.Errorf("%d rules, %v; want 12 or more", len(files), err)
	}
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".js"); !strings.Contains(r.out, "ok    "+name+".") {
			t.Errorf("%s has no case that passed", name)
		}
	}
	s.cli("test", rules, "--tenant", "acme").want(t, 1, "FAIL  legacy.known", "")
	for _, name := range []string{"login", "post-login"} {
		dir := filepath.Join("..", "..", "examples", "pipelines", name)
		cases, err := filepath.Glob(filepath.Join(dir, "pipeline.*.case.json"))
		if err != nil || len(cases) < 2 {
			t.Fatalf("%s has %d cases, %v", name, len(cases), err)
		}
		r := s.cli("test", dir, "--serve", addr, "--tenant", "acme")
		if r.code != 0 || !strings.Contains(r.out, " 0 failed\n") || strings.Count(r.out, "ok    pipeline.") != len(cases) {
			t.Errorf("pipeline %s: exit code %d\n%s%s", name, r.code, r.out, r.stderr)
		}
	}

	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.cli("test", dir, "--tenant", "acme").want(t, 2, "", "has no cases")
	write("double.case.json", `{"input": 2, "expected": 4}`)
	s.cli("test", dir, "--tenant", "acme").want(t, 2, "", "no file of code")
	write("double.js", `(n) => { console.log("n is", n); if (n < 0) throw new RangeError("negative"); return { n: n * 2, list: [1, 2, 3] } }`)
	write("double.case.json", `{"input": 2, "expected": {"n": 5, "list": [1, 2, 3]}}`)
	write("double.negative.case.json", `{"input": -1, "error": {"name": "RangeError", "message": "negative", "kind": "user_error"}}`)
	write("double.other.case.json", `{"input": -1, "error": {"name": "TypeError"}}`)
	write("double.no.case.json", `{"input": 1, "error": {"name": "TypeError"}}`)
	r = s.cli("test", dir, "--tenant", "acme").want(t, 1, "4 cases, 1 passed, 3 failed", "")
	for _, text := range []string{
		"- expected, + answered:", `-   "n": 5`, `+   "n": 4`, "log: info  n is 2", "RangeError: negative (user_error)",
		"it did not fail, but answered", "ok    double.negative",
	} {
		if !strings.Contains(r.out, text) {
			t.Errorf("%q is missing in\n%s", text, r.out)
		}
	}
	write("typed.ts", "import { twice } from './lib';\nexport default (n: number) => { if (n > 9) throw new Error('big'); return twice(n); }\n")
	write("lib.ts", "export function twice(n: number): number {\n  if (n < 0) throw new RangeError('small');\n  return 2 * n;\n}\n")
	write("typed.case.json", `{"input": 4, "expected": 8}`)
	s.cli("test", dir, "--tenant", "acme").want(t, 1, "ok    typed ", "")
	s.cli("deploy", filepath.Join(dir, "typed.ts"), "--tenant", "acme").want(t, 0, "typed@1 is active", "")
	s.cli("invoke", "typed", "--tenant", "acme", "--input", "-1").want(t, 1, "", "at twice (lib.ts:2:20)")
	s.cli("invoke", "typed", "--tenant", "acme", "--input", "10").want(t, 1, "", "(typed.ts:2:50)")
	s.cli("test", dir, "--tenant", "acme", "--json").want(t, 1, `"case": "double"`, "")
	for _, bad := range []string{`{"input": 1}`, `{"expected": 1, "error": {}}`, `{"expect": 1}`, `{`} {
		write("double.case.json", bad)
		s.cli("test", dir, "--tenant", "acme").want(t, 2, "", "double.case.json")
	}
}
