package pool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestLatchHoldsOneTenant(t *testing.T) {
	dir, id := t.TempDir(), newContainerID()
	if whose, _, err := readLatch(dir, id); whose != "" || err != nil {
		t.Fatalf("no latch: got %q, %v", whose, err)
	}
	if err := writeLatch(dir, id, "acme"); err != nil {
		t.Fatal(err)
	}
	if err := writeLatch(dir, id, "other"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second latch: got %v, want EEXIST", err)
	}
	if err := writeLatch(dir, id, "acme"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second latch of the same tenant: got %v, want EEXIST", err)
	}
	if whose, since, err := readLatch(dir, id); whose != "acme" || err != nil || since.IsZero() {
		t.Errorf("latch: got %q, %v, %v", whose, since, err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestLatchTorn(t *testing.T) {
	id := newContainerID()
	for name, text := range map[string]string{
		"empty":           "",
		"no newline":      "acme",
		"half":            "acme\n" + string(id[:9]),
		"no last newline": "acme\n" + string(id),
		"bad tenant":      "../acme\n" + string(id) + "\n",
		"other container": "acme\n" + string(newContainerID()) + "\n",
		"trailing bytes":  "acme\n" + string(id) + "\nx",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, latchName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if whose, _, err := readLatch(dir, id); whose != "" || !errors.Is(err, errTorn) {
			t.Errorf("%s: got %q, %v, want errTorn", name, whose, err)
		}
	}
	if _, _, err := readLatch(filepath.Join(t.TempDir(), "gone"), id); !errors.Is(err, errTorn) {
		t.Errorf("no directory: got %v, want errTorn", err)
	}
}

func TestUIDsAreNeverShared(t *testing.T) {
	u := newUIDs(1000, 8)
	seen := map[uint32]bool{}
	for i := range 4 {
		uid, err := u.take(ContainerID(rune('a' + i)))
		if err != nil || seen[uid] || uid%2 != 0 {
			t.Fatalf("take %d: %d, %v", i, uid, err)
		}
		seen[uid] = true
	}
	if _, err := u.take("e"); !errors.Is(err, errNoUID) {
		t.Errorf("full: got %v", err)
	}
	u.release(1002, "a") // not its uid
	if _, err := u.take("e"); !errors.Is(err, errNoUID) {
		t.Errorf("a stranger released a uid")
	}
	u.release(1002, "b")
	if uid, err := u.take("e"); uid != 1002 || err != nil {
		t.Errorf("after release: %d, %v", uid, err)
	}
	if err := u.reserve(1002, "x"); err == nil {
		t.Error("reserve of a used uid succeeded")
	}
	if err := u.reserve(1002, "e"); err != nil {
		t.Error(err)
	}
	if err := u.reserve(1001, "x"); err == nil {
		t.Error("reserve of half a pair succeeded")
	}
}
