package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"paddock/internal/testenv"
	"paddock/runtimes/node"
)

// What is computed from an image's files is what its build has named it by.
func TestSum(t *testing.T) {
	image := testenv.NodeImage(t)
	if got, err := node.Sum(t.Context(), image.Rootfs); err != nil || got != image.Digest {
		t.Fatalf("%s, %v, want %s", got, err, image.Digest)
	}
}

// Whatever is changed of an image's files, it has another sum, or none.
func TestSumNotices(t *testing.T) {
	testenv.NeedRoot(t)
	agent := func(root string) string { return filepath.Join(root, "paddock", "agent.js") }
	for name, change := range map[string]func(root string) error{
		"content": func(root string) error { return os.WriteFile(agent(root), []byte("b"), 0o644) },
		"mode":    func(root string) error { return os.Chmod(agent(root), 0o755) },
		"setuid":  func(root string) error { return os.Chmod(agent(root), 0o644|os.ModeSetuid) },
		"missing": func(root string) error { return os.Remove(agent(root)) },
		"more":    func(root string) error { return os.Symlink("agent.js", agent(root)+"x") },
		"owner":   func(root string) error { return os.Chown(agent(root), 1, 0) },
		"group":   func(root string) error { return os.Chown(agent(root), 0, 1) },
		"dir":     func(root string) error { return os.Chmod(filepath.Dir(agent(root)), 0o777) },
		"root":    func(root string) error { return os.Chmod(root, 0o777) },
		"capabilities": func(root string) error {
			return unix.Setxattr(agent(root), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "rootfs")
			if err := os.MkdirAll(filepath.Dir(agent(root)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(agent(root), []byte("a"), 0o644); err != nil {
				t.Fatal(err)
			}
			was, err := node.Sum(t.Context(), root)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := node.Sum(t.Context(), root); err != nil || again != was {
				t.Fatalf("%s, %v, and before %s", again, err, was)
			}
			if err := change(root); err != nil {
				t.Fatal(err)
			}
			if got, err := node.Sum(t.Context(), root); err == nil && got == was {
				t.Error("it is not noticed")
			}
		})
	}
}
