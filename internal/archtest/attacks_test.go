package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/attacks.md says where each attack is tried: all that it names exists, and nothing that exists is left out.
func TestAttacksAreWhereTheyAreSaidToBe(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "attacks.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root(t), "test", "hostile", "attacks", "*.js"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no attacks: %v", err)
	}
	var there, named []string
	for _, f := range files {
		there = append(there, filepath.Base(f))
	}
	for _, m := range regexp.MustCompile("`([a-z0-9-]+\\.js)`").FindAllSubmatch(text, -1) {
		named = append(named, string(m[1]))
	}
	for _, f := range there {
		if !slices.Contains(named, f) {
			t.Errorf("docs/attacks.md leaves out %s", f)
		}
	}
	for _, f := range named {
		if !slices.Contains(there, f) {
			t.Errorf("docs/attacks.md names %s: there is no such file", f)
		}
	}
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz|test)[A-Z][A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1) {
		cmd := exec.Command("git", "grep", "-qE", `^func `+m[1]+`\(`, "--", "*.go")
		cmd.Dir = root(t)
		if err := cmd.Run(); err != nil {
			t.Errorf("docs/attacks.md names %s: there is no such test", m[1])
		}
	}
	list, err := exec.Command("git", "-C", root(t), "grep", "-hoE", `id: "[A-Z][0-9]+`, "--", "test/hostile/*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		id := strings.TrimSpace(strings.TrimPrefix(line, `id: "`))
		if id[0] != 'R' && !regexp.MustCompile(`(?m)^\|[^|]*\b`+id+`\b`).Match(text) { // R: others of them again, after a restart
			t.Errorf("docs/attacks.md has no row %s", id)
		}
	}
}
