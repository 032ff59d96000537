package etcdstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"paddock/controller/etcdstore"
	"paddock/controller/store"
)

const writerDir = "ETCDSTORE_TEST_WRITER_DIR"

// TestMain: this binary is also the process that gets killed while it writes.
func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

func writeForEver(dir string) {
	s, err := etcdstore.Embed(context.Background(), etcdstore.EmbedOptions{Dir: dir})
	for i := 0; err == nil; i++ {
		if _, err = put(context.Background(), s, "/n/"+strconv.Itoa(i), "value"); err == nil {
			fmt.Println(i)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestKilled: what was acknowledged before kill -9 is there afterwards.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	last := -1
	for range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				break // cut by the kill
			}
			if last = max(last, n); n == 300 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
	}
	if last < 300 {
		t.Fatalf("the writer came to %d", last)
	}
	s := embedded(t, etcdstore.EmbedOptions{Dir: dir})
	for i := range last + 1 {
		if _, err := s.Get(t.Context(), "/n/"+strconv.Itoa(i)); err != nil {
			t.Fatalf("write %d of %d acknowledged ones: %v", i, last+1, err)
		}
	}
}

func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestDiskFillsUp: writes are refused while there is still room for etcd's own needs, reads go on, and once there is room
// again all is as before.
func TestDiskFillsUp(t *testing.T) {
	dir := smallDisk(t, "300m")
	s := embedded(t, etcdstore.EmbedOptions{Dir: filepath.Join(dir, "etcd")})
	if _, err := put(t.Context(), s, "/a", "before"); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 100<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := put(t.Context(), s, "/a", "full")
	if !errors.Is(err, store.ErrNoSpace) || !strings.Contains(err.Error(), "96") {
		t.Errorf("%v", err)
	}
	if kv, err := s.Get(t.Context(), "/a"); err != nil || string(kv.Value) != "before" {
		t.Errorf("%q, %v", kv.Value, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t.Context(), s, "/a", "after"); err != nil {
		t.Error(err)
	}
}

// TestDiskFull: with nothing left at all the store fails, and only the store: this process goes on to say so.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "150m")
	s, err := etcdstore.Embed(t.Context(), etcdstore.EmbedOptions{Dir: filepath.Join(dir, "etcd"), MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 150<<20), 0o600)
	value := strings.Repeat("x", 512<<10)
	acknowledged := 0
	for i := 0; ; i++ {
		if _, err = put(t.Context(), s, "/a/"+strconv.Itoa(i), value); err != nil {
			break
		}
		acknowledged++
	}
	if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("after %d writes: %v", acknowledged, err)
	}
	<-s.Failed()
	t.Logf("failed after %d writes: %v", acknowledged, s.Cause())
	if _, err := s.Get(t.Context(), "/a/0"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("reading from a failed store: %v", err)
	}
	_ = s.Close()
	// Where there is room, what was acknowledged is found. (The directory is copied: this process still holds its files.)
	roomy := filepath.Join(t.TempDir(), "etcd")
	if err := os.CopyFS(roomy, os.DirFS(filepath.Join(dir, "etcd"))); err != nil {
		t.Fatal(err)
	}
	again := embedded(t, etcdstore.EmbedOptions{Dir: roomy})
	for i := range acknowledged {
		if kv, err := again.Get(t.Context(), "/a/"+strconv.Itoa(i)); err != nil || len(kv.Value) != len(value) {
			t.Errorf("write %d of %d acknowledged ones: %v", i, acknowledged, err)
		}
	}
}
