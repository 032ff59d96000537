package docker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/cgroup"
)

// The daemon may remove the control group of a container that has ended before its counters are read.
func TestRefusedForksAreKnownWithoutTheGroup(t *testing.T) {
	fs, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, forks := range []int{0, 6} {
		parent := fs.At(fmt.Sprintf("paddock-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
		if err := parent.Ensure(cgroup.Limits{}); err != nil {
			t.Fatal(err)
		}
		group := fs.At(parent.Path() + "/c") // on v2 the parent, which hands controllers down, can have no processes
		dir := testenv.GroupDir("pids", group.Path())
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/pids.max", []byte("4"), 0)); err != nil {
			t.Fatal(err)
		}
		script := `echo $$ > $1 || exit 9; (for i in $(seq $2); do sleep 60 & done) >/dev/null 2>&1; exit 0`
		out, err := exec.Command("/bin/sh", "-c", script, "sh", dir+"/cgroup.procs", fmt.Sprint(forks)).CombinedOutput()
		if err != nil {
			t.Logf("the shell: %v, %s", err, out) // it may die of the refusal
		}
		if err := parent.Remove(within(t)); err != nil {
			t.Fatal(err)
		}
		c := newContainer(nil, newID(t), pool.Facts{})
		c.remember(cgroup.Usage{MemoryBytes: 7})
		c.countLast(group, nil)
		u := c.lastUsage()
		if (u.PidsRefused > 0) != (forks > 0) || u.MemoryBytes != 7 {
			t.Errorf("%d forks with room for few: %+v", forks, u)
		}
		var exit pool.Exit
		judge(&exit, u)
		if exit.PidsHit != (forks > 0) {
			t.Errorf("%d forks: %+v", forks, exit)
		}
	}
}
