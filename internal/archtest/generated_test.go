package archtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// sumFile holds the digest of the sources that the checked-in code was generated from. After generating, write the
// digest that the failing test prints.
const sumFile = "testdata/proto.sum"

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The code for the protocol is generated from the files beside it. With the generators at hand it is generated again and
// compared; without, the digest of the sources tells whether they changed since.
func TestGeneratedCodeIsFresh(t *testing.T) {
	proto := filepath.Join(root(t), "proto")
	want, err := os.ReadFile(sumFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := sourcesDigest(t, proto); got != strings.TrimSpace(string(want)) {
		t.Errorf("the sources in proto/ changed: generate (make generate), then write %s into internal/archtest/%s", got, sumFile)
	}
	tools := filepath.Join(root(t), ".cache", "gen")
	if _, err := os.Stat(filepath.Join(tools, "buf")); err != nil {
		t.Logf("no generators in %s: compared by digest", tools)
		return
	}
	compareRegenerated(t, proto, tools)
}

func sourcesDigest(t *testing.T, proto string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(proto, "paddock/v1/*.proto"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no .proto files: %v", err)
	}
	for _, f := range []string{"buf.gen.yaml", "buf.yaml", "gateway.yaml"} {
		files = append(files, filepath.Join(proto, f))
	}
	sort.Strings(files)
	h := sha256.New()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		h.Write([]byte(filepath.Base(f) + "\x00"))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// compareRegenerated generates into a copy and compares file by file.
func compareRegenerated(t *testing.T, proto, tools string) {
	t.Helper()
	// The plugins are named relative to the tree.
	copied := t.TempDir()
	dir := filepath.Join(copied, "proto")
	if err := os.Symlink(filepath.Dir(tools), filepath.Join(copied, ".cache")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(proto)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(tools, "buf"), "generate")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":"+tools)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("buf generate: %v\n%s", err, out)
	}
	for _, pattern := range []string{"paddock/v1/*.go", "*.json"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		if len(files) == 0 {
			t.Errorf("nothing generated for %s", pattern)
		}
		for _, f := range files {
			rel, _ := filepath.Rel(dir, f)
			fresh, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if there, err := os.ReadFile(filepath.Join(proto, rel)); err != nil || !bytes.Equal(fresh, there) {
				t.Errorf("proto/%s is not what its sources generate: run make generate (%v)", rel, err)
			}
		}
	}
}
