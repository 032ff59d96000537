package docker

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

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
		group := fs.At(fmt.Sprintf("paddock-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
		if err := group.Ensure(cgroup.Limits{Pids: 4}); err != nil {
			t.Fatal(err)
		}
		procs := "/sys/fs/cgroup/pids" + group.Path() + "/cgroup.procs"
		if fs.Version() == 2 {
			procs = "/sys/fs/cgroup" + group.Path() + "/cgroup.procs"
		}
		script := `echo $$ > $1 || exit 9; (for i in $(seq $2); do sleep 60 & done) >/dev/null 2>&1; exit 0`
		out, err := exec.Command("/bin/sh", "-c", script, "sh", procs, fmt.Sprint(forks)).CombinedOutput()
		if err != nil {
			t.Logf("the shell: %v, %s", err, out) // it may die of the refusal
		}
		if err := group.Remove(within(t)); err != nil {
			t.Fatal(err)
		}
		c := newContainer(nil, newID(t), pool.Facts{})
		c.remember(cgroup.Usage{MemoryBytes: 7})
		c.countLast(group)
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
