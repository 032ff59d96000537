// Package testenv gives tests the real things that they run on: the node image, the runtime binaries, a directory short
// enough for socket paths, an id of their own. What is missing fails the test and says what to install; nothing is
// skipped. Only tests import it.
package testenv

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/runtimes"
	"paddock/runtimes/node"
)

// buildTimeout bounds the first build of the image, download included.
const buildTimeout = 5 * time.Minute

// CacheDir keeps images and downloads between test runs; it may be deleted at any time. It is not below a home directory because
// those are often 0700, and a container's mapped root must pass through.
const CacheDir = "/var/cache/paddock-test"

// NodeImage returns the node runtime's image of the agent in this tree. Test processes at the same time share it. Old ones
// stay: they may be in use by another process.
func NodeImage(t testing.TB) runtimes.Image {
	t.Helper()
	NeedRoot(t)
	if err := os.MkdirAll(CacheDir, 0o711); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Patience(buildTimeout))
	defer cancel()
	image, err := node.Build(ctx, node.Options{
		Dir: filepath.Join(CacheDir, "images"), CacheDir: filepath.Join(CacheDir, "downloads"),
		Progress: func(line string) { t.Log(line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// Binary returns the path of runsc or runc: PADDOCK_RUNSC or PADDOCK_RUNC, else bin/ of this repository.
func Binary(t testing.TB, name string) string {
	t.Helper()
	variable := "PADDOCK_" + strings.ToUpper(name)
	path := os.Getenv(variable)
	if path == "" {
		path = filepath.Join(Root(t), "bin", name)
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Fatalf("%s: %v: run make tools, or set %s to its path", name, err, variable)
	}
	return path
}

// started is where the test binary was started: go test starts it in its package's directory.
var started, _ = os.Getwd()

// Root returns the repository's directory. It does not ask where the sources were compiled, so that -trimpath does no harm and
// several checkouts share what is compiled.
func Root(t testing.TB) string {
	t.Helper()
	for dir := started; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod above %q: run the tests from a checkout", started)
		}
	}
}

// RunDir returns a new directory on a tmpfs with a path short enough for sockets (sun_path is 108 bytes), mode 0711. It is
// removed after the test, with whatever is mounted there.
func RunDir(t testing.TB) string {
	t.Helper()
	NeedRoot(t)
	dir := filepath.Join("/run", "pt-"+ControllerID(t))
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711,size=256m"); err != nil {
		os.Remove(dir)
		t.Fatalf("mount a tmpfs on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// ControllerID returns 8 hex digits that no other test has.
func ControllerID(t testing.TB) string {
	t.Helper()
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}

// UID returns an even host user id that no other test is likely to have, far from the range of real controllers.
func UID(t testing.TB) uint32 {
	t.Helper()
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return 1_000_000_000 + (uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2]))<<1
}

// GroupDir returns where the control group at path has its directory: on cgroup v1 in the hierarchy of a controller ("*" makes
// it a pattern for all of them), on v2 in the one there is.
func GroupDir(controller, path string) string {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return filepath.Join(root, path)
	}
	return filepath.Join(root, controller, path)
}

// Patience stretches a time limit by PADDOCK_TEST_PATIENCE, a number, for machines that are slow by nature (an emulated one).
// Without it limits are what they say.
func Patience(d time.Duration) time.Duration {
	if by, err := strconv.ParseFloat(os.Getenv("PADDOCK_TEST_PATIENCE"), 64); err == nil && by > 1 {
		return time.Duration(float64(d) * by)
	}
	return d
}

// NeedRoot fails the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("%s makes real containers and needs root: run the tests with sudo", t.Name())
	}
}
