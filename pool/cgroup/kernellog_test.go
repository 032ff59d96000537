package cgroup

import (
	"os/exec"
	"testing"
)

func TestRefusedIn(t *testing.T) {
	for record, want := range map[string]bool{
		"6,1,2,-;cgroup: fork rejected by pids controller in /p/c\n SUBSYSTEM=x\n": true,
		"6,1,2,-;cgroup: fork rejected by pids controller in /docker/host/p/c\n":   true, // we are in a cgroup namespace
		"6,1,2,-;cgroup: fork rejected by pids controller in /p/c/below\n":         false,
		"6,1,2,-;cgroup: fork rejected by pids controller in /p/cc\n":              false,
		"6,1,2,-;something about /p/c\n":                                           false,
		"6,1,2,-;else\n cgroup: fork rejected by pids controller in /p/c\n":        false,
		"cgroup: fork rejected by pids controller in /p/c":                         false,
		"6,1,2,c;/p/c\n": false,
		"":               false,
	} {
		if got := refusedIn(record, "/p/c"); got != want {
			t.Errorf("%q: %t", record, got)
		}
	}
}

// The kernel remembers what the counters of a group that is gone would have said.
func TestRealForkRefusedOutlivesTheGroup(t *testing.T) {
	for name, g := range real(t) {
		if name == "v2 of hybrid" {
			continue
		}
		if err := g.Ensure(Limits{Pids: 3}); err != nil {
			t.Fatal(err)
		}
		if g.ForkRefused() {
			t.Error("before anything ran in it")
		}
		script := `echo $$ > $1/cgroup.procs || exit 9; (for i in 1 2 3 4 5; do sleep 60 & done) >/dev/null 2>&1; exit 0`
		if out, err := exec.Command("/bin/sh", "-c", script, "sh", g.dir("pids")).CombinedOutput(); err != nil {
			t.Logf("the shell: %v, %s", err, out) // it may die of the refusal
		}
		if err := g.Remove(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if !g.ForkRefused() {
			t.Error("the kernel's log does not say that a fork was refused")
		}
		if other := g.fs.At(g.path + "0"); other.ForkRefused() {
			t.Error("another group is charged")
		}
	}
}
