package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tempDir is t.TempDir that others can pass through.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDataDirIsHeldByOne(t *testing.T) {
	path := filepath.Join(tempDir(t), "data")
	d, err := OpenDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if !idForm.MatchString(d.ID) {
		t.Errorf("id %q", d.ID)
	}
	for dir, want := range map[string]os.FileMode{path: 0o711, d.Images(): 0o711, d.Private(): 0o700} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", dir, st.Mode(), err, want)
		}
	}
	_, err = OpenDataDir(path)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Errorf("a second one: %v, want the directory and the pid", err)
	}
	d.Close()
	d.Close()
	again, err := OpenDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ID != d.ID {
		t.Errorf("the id changed from %s to %s", d.ID, again.ID)
	}
}

func TestDataDirSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(filepath.Join(file, "data")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("below a file: %v", err)
	}
	secret := tempDir(t)
	if err := os.Chmod(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(filepath.Join(secret, "data")); err == nil || !strings.Contains(err.Error(), "chmod o+x") {
		t.Errorf("below a directory that nobody else may enter: %v", err)
	}
	full := mountTmpfs(t, "size=4k")
	if _, err := OpenDataDir(filepath.Join(full, "data")); err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("on a full disk: %v", err)
	}
}

// mountTmpfs mounts a tmpfs that is full when one page is in it, and fills it.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := tempDir(t)
	if err := syscall.Mount("test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount tmpfs (run the tests as root): %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestATornIDIsMadeAgain(t *testing.T) {
	path := tempDir(t)
	if err := os.WriteFile(filepath.Join(path, "id"), []byte("12"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !idForm.MatchString(d.ID) {
		t.Errorf("id %q", d.ID)
	}
}

func TestWriteFileIsWholeOrNot(t *testing.T) {
	dir := mountTmpfs(t, "size=8k")
	file := filepath.Join(dir, "f")
	if err := WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(file, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("a megabyte fitted into 8 KiB")
	}
	if b, err := os.ReadFile(file); string(b) != "old" {
		t.Errorf("after a failed write: %q, %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".f*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRunDir(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	d, err := OpenRunDir(base, "abcd1234")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Remove() })
	var st syscall.Statfs_t
	const tmpfsMagic = 0x01021994
	if err := syscall.Statfs(d.Secret(), &st); err != nil || st.Type != tmpfsMagic {
		t.Errorf("%s: type %x, %v", d.Secret(), st.Type, err)
	}
	for dir, want := range map[string]os.FileMode{d.Path: 0o711, d.Containers(): 0o711, d.Secret(): 0o700} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", dir, st.Mode(), err, want)
		}
	}
	latch := filepath.Join(d.Secret(), "latch")
	if err := os.WriteFile(latch, []byte("acme"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := OpenRunDir(base, "abcd1234") // as after a kill -9
	if err != nil {
		t.Fatal(err)
	}
	if d.Found || !again.Found {
		t.Errorf("found: %v at first, %v then", d.Found, again.Found)
	}
	if b, err := os.ReadFile(latch); string(b) != "acme" {
		t.Errorf("the next start lost the latch: %q, %v", b, err)
	}
	other := filepath.Join(base, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, stays := range []string{other, "", filepath.Join(base, "none")} {
		if err := RemoveRunDir(stays); err != nil {
			t.Errorf("%q: %v", stays, err)
		}
	}
	if err := os.Remove(other); err != nil { // it was no run directory
		t.Error(err)
	}
	if err := RemoveRunDir(d.Path); err != nil { // as the keeper does
		t.Error(err)
	}
	if _, err := os.Stat(base); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
	if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), base) {
		t.Error("still mounted")
	}
}

func TestRunDirGoesAlthoughAFileIsOpen(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	d, err := OpenRunDir(base, "abcd1234")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(d.Secret(), "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Path); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

func TestRecords(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	if all, err := Running(base); err != nil || len(all) != 0 {
		t.Fatalf("before anything ran: %v, %v", all, err)
	}
	d, err := OpenDataDir(filepath.Join(tempDir(t), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	withdraw, err := Announce(base, d.ID, Record{HTTP: "http://127.0.0.1:1", GRPC: "0.0.0.0:2", PID: os.Getpid(), DataDir: d.Path})
	if err != nil {
		t.Fatal(err)
	}
	all, err := Running(base)
	if err != nil || len(all) != 1 || all[0].Dial() != "127.0.0.1:2" {
		t.Fatalf("running: %+v, %v", all, err)
	}
	d.Close() // as after a kill -9: the record stays, the lock is free
	if all, err := Running(base); err != nil || len(all) != 0 {
		t.Errorf("a dead one counts: %+v, %v", all, err)
	}
	withdraw()
	if _, err := os.Stat(base); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

func TestFindRuntime(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "runsc")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if got, err := FindRuntime("runsc", ""); err != nil || got != program {
		t.Errorf("in PATH: %q, %v", got, err)
	}
	if got, err := FindRuntime("runsc", program); err != nil || got != program {
		t.Errorf("named: %q, %v", got, err)
	}
	if _, err := FindRuntime("runsc", filepath.Join(dir, "none")); err == nil {
		t.Error("a missing one that was named was taken from elsewhere")
	}
	if _, err := FindRuntime("crun", ""); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("none: %v, want the remedy", err)
	}
	if _, err := exec.LookPath("runsc"); err != nil {
		t.Error(err)
	}
}
