package project

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"paddock/internal/call"
)

// folder writes files and returns their folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const good = `{"input": 1, "expected": 2}`

func TestScanFindsWhatBelongsTogether(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.js": "", "a.case.json": good, "a.of.two.words.case.json": good, "b.ts": "", "b.d.ts": "", "lib.mjs": "", "notes.txt": "",
		"c.d.js": "", "c.d.case.json": good, "pipeline.yaml": "", "pipeline.x.case.json": `{"input": 1, "expected": 2, "steps": {"a": "ok"}}`,
		"other.pipeline.yaml": "", "other.pipeline.y.case.json": good, "compose.yaml": "", "sub/deep.js": "",
	})
	f, err := Scan(dir)
	if err != nil || f.Err() != nil {
		t.Fatal(err, f.Err())
	}
	got := map[string][]string{}
	for _, u := range f.Units {
		got[u.Name] = []string{}
		for _, c := range u.Cases {
			got[u.Name] = append(got[u.Name], c.Name)
		}
	}
	want := map[string]string{
		"a": "a a.of.two.words", "b": "", "lib": "", "c.d": "c.d", "pipeline": "pipeline.x", "other.pipeline": "other.pipeline.y",
	}
	if len(got) != len(want) {
		t.Errorf("found %v", got)
	}
	for name, cases := range want {
		if strings.Join(got[name], " ") != cases {
			t.Errorf("%s has cases %v, want %s", name, got[name], cases)
		}
	}
	for _, c := range []struct {
		path         string
		units, cases int
	}{
		{"a.js", 1, 2}, {"b.ts", 1, 0}, {"a.case.json", 1, 1}, {"pipeline.yaml", 1, 1},
	} {
		if f, err := Scan(filepath.Join(dir, c.path)); err != nil || len(f.Units) != c.units || f.Cases() != c.cases {
			t.Errorf("%s alone: %+v, %v", c.path, f, err)
		}
	}
	for _, path := range []string{"notes.txt", "compose.yaml", "none.js"} {
		if f, err := Scan(filepath.Join(dir, path)); err == nil {
			t.Errorf("%s: %+v", path, f)
		}
	}
}

func TestBadCasesAreProblems(t *testing.T) {
	for text, want := range map[string]string{
		`{"input": 1}`:                           `give "expected" or "error"`,
		`{"expected": 1, "error": {}}`:           `give "expected" or "error"`,
		`{"expect": 1}`:                          `unknown field "expect"`,
		"{\n\"input\": 1,\n\"expected\": }":      "line 3: invalid character",
		"{\n\"input\": 1,\n\n\"repeat\": \"x\"}": "line 4: json: cannot unmarshal string",
		`{"expected": 1} {}`:                     "one file holds one",
		`{"expected": 1, "kind": "cron"}`:        `"kind" "cron": use function`,
		`{"expected": 1, "steps": {"a": "ok"}}`:  `"steps" is for cases of a pipeline`,
	} {
		dir := folder(t, map[string]string{"a.js": "", "a.case.json": text, "a.fine.case.json": good})
		f, err := Scan(dir)
		if err != nil {
			t.Fatal(err)
		}
		if f.Cases() != 1 || f.Err() == nil || !strings.Contains(f.Err().Error(), want) || !strings.Contains(f.Err().Error(), "a.case.json") {
			t.Errorf("%s: %d cases, %v", text, f.Cases(), f.Err())
		}
		if other, err := Scan(filepath.Join(dir, "a.fine.case.json")); err != nil || other.Err() != nil {
			t.Errorf("a case beside it: %v, %v", err, other.Err())
		}
	}
	f, err := Scan(folder(t, map[string]string{"b.case.json": good, "pipeline.yaml": "",
		"pipeline.k.case.json": `{"expected": 1, "kind": "rule"}`, "pipeline.o.case.json": `{"expected": 1, "steps": {"a": "fine"}}`}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"b.case.json: there is no file of code", "a pipeline's is in its manifest", `outcome "fine" of "a"`} {
		if !strings.Contains(f.Err().Error(), want) {
			t.Errorf("%q is missing in %v", want, f.Err())
		}
	}
}

func TestExampleManifest(t *testing.T) {
	m, err := ParseManifest([]byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "login" || m.Kind != call.KindRule || time.Duration(m.Timeout) != 5*time.Second || len(m.Steps) != 3 {
		t.Errorf("%+v", m)
	}
	want := []Step{
		{File: "block-by-domain.js", Function: "block-by-domain", OnFailure: call.OnFailureFail},
		{File: "country.ts", Function: "country-of-login", OnFailure: call.OnFailureSkip, Timeout: Duration(500 * time.Millisecond)},
		{Function: "mint-token@3", OnFailure: call.OnFailureFail, Disabled: true},
	}
	for i, s := range m.Steps {
		if s != want[i] {
			t.Errorf("step %d is %+v, want %+v", i+1, s, want[i])
		}
	}
	text, err := yaml.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseManifest(text); err != nil || again.Steps[1] != m.Steps[1] || again.Timeout != m.Timeout {
		t.Errorf("written and read again: %+v, %v\n%s", again, err, text)
	}
}

func TestBadManifests(t *testing.T) {
	for text, want := range map[string]string{
		"":        "name is missing",
		"name: a": "steps are missing",
		"name: a\nkind: webtask\nsteps: [{function: f}]":               `kind "webtask": use rule or action`,
		"name: a\nsteps: [{}]":                                         "step 1: give file or function",
		"name: a\nsteps: [{function: f}, {file: x.js, function: f@2}]": `step 2 (x.js): function "f@2": a file becomes a new version`,
		"name: a\nsteps: [{function: f, on_failure: ignore}]":          `step 1 (f): on_failure "ignore": use fail, skip or last_good`,
		"name: a\nsteps:\n- {file: x.js}\n- {file: y/x.js}":            `step 2 (y/x.js): x.js is function "x" already`,
		"name: a\nsteps:\n- function: f\n  onfailure: skip":            `line 4: there is no "onfailure" in a step`,
		"name: a\nstep: []":                                            `line 2: there is no "step" in a pipeline`,
		"name: a\ntimeout: 5\nsteps: [{function: f}]":                  "line 2: timeout \"5\": write a time with its unit",
		"name: a\nsteps:\n- function: f\n  timeout: -1s":               "line 4: timeout",
		"name: a\nsteps:\n- function: f\n  disabled: maybe":            "into true or false",
		"name: a\nsteps: [{function: f, note: x}]":                     "note is kept with a version",
		"name: a\nsteps: [{function: f}]\n---\nname: b":                "a second document follows",
		"name: [": "yaml: line 1",
	} {
		if m, err := ParseManifest([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %s", text, m, err, want)
		}
	}
	dir := folder(t, map[string]string{"pipeline.yaml": "name: a\nsteps: [{file: none.js}]"})
	if _, err := ReadManifest(dir); err == nil || !strings.Contains(err.Error(), "there is no file "+dir+"/none.js") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := ReadManifest(t.TempDir()); err == nil || !strings.Contains(err.Error(), "pipeline.yaml: it says which files") {
		t.Errorf("no manifest: %v", err)
	}
	if _, err := ReadManifest(filepath.Join(dir, "none.yaml")); err == nil {
		t.Error("a manifest that is not there")
	}
}

// The examples are read as an author's folder is.
func TestExamplesAreRead(t *testing.T) {
	dirs, err := filepath.Glob("../../../examples/pipelines/*")
	if err != nil || len(dirs) < 2 {
		t.Fatalf("%d examples, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		m, err := ReadManifest(dir)
		if err != nil {
			t.Error(err)
			continue
		}
		f, err := Scan(dir)
		if err != nil || f.Err() != nil || f.Cases() < 2 || m.Name != filepath.Base(dir) {
			t.Errorf("%s: pipeline %s, %v", dir, m.Name, err)
		}
	}
}
