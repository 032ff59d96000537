package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// Every test that SECURITY.md names as the proof of a promise exists.
func TestPromisesHaveTheirTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
	if len(named) < 20 {
		t.Fatalf("SECURITY.md names %d tests", len(named))
	}
	for _, m := range named {
		cmd := exec.Command("git", "grep", "-qE", `^func `+string(m[1])+`\(`, "--", "*_test.go")
		cmd.Dir = root(t)
		if err := cmd.Run(); err != nil {
			t.Errorf("SECURITY.md names %s: there is no such test", m[1])
		}
	}
}
