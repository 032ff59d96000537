package cgroup

import (
	"fmt"
	"os/exec"
	"testing"
	"time"
)

func TestKernelLogRecords(t *testing.T) {
	refused, killed := Usage{PidsRefused: 1}, Usage{OOMKills: 1}
	const oom = "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
	for record, want := range map[string]Usage{
		"6,1,2,-;cgroup: fork rejected by pids controller in /p/c\n SUBSYSTEM=x\n": refused,
		"6,1,2,-;cgroup: fork rejected by pids controller in /docker/host/p/c\n":   refused, // we are in a cgroup namespace
		"6,1,2,-;cgroup: fork rejected by pids controller in /p/c/below\n":         {},
		"6,1,2,-;cgroup: fork rejected by pids controller in /p/cc\n":              {},
		"6,1,2,-;something about /p/c\n":                                           {},
		"6,1,2,-;else\n cgroup: fork rejected by pids controller in /p/c\n":        {},
		"cgroup: fork rejected by pids controller in /p/c":                         {},
		"": {},
		oom + "oom_memcg=/p/c,task_memcg=/p/c,task=node,pid=7,uid=1\n":           killed,
		oom + "oom_memcg=/p,task_memcg=/p/c,task=node,pid=7,uid=1\n":             killed, // all of them together were too many
		oom + "oom_memcg=/p/c,task_memcg=/p/c/below,task=node,pid=7,uid=1\n":     {},
		oom + "oom_memcg=/p,task_memcg=/p/d,task=,task_memcg=/p/c,pid=7,uid=1\n": {}, // a process may call itself what it likes
		"6,1,2,-;said x oom-kill:constraint=,task_memcg=/p/c,task=node,pid=7\n":  {},
		oom + "oom_memcg=/p/c,task_memcg=/p/c\n":                                 {},
	} {
		var got Usage
		if got.note(record, "/p/c"); got != want {
			t.Errorf("%q: %+v", record, got)
		}
	}
}

// The kernel remembers what the counters of a group that is gone would have said.
func TestRealLogOutlivesTheGroup(t *testing.T) {
	for name, g := range real(t) {
		if name == "v2 of hybrid" {
			continue
		}
		for _, c := range []struct {
			script string
			want   Usage
		}{
			{`exit 0`, Usage{}},
			{`(for i in 1 2 3 4 5 6; do sleep 60 & done) >/dev/null 2>&1; exit 0`, Usage{PidsRefused: 1}},
			{`exec tail /dev/zero`, Usage{OOMKills: 1}},
		} {
			got := suffer(t, g, c.script).Logged()
			for range 3 {
				if got == c.want || c.want.OOMKills == 0 {
					break
				}
				time.Sleep(5 * time.Second) // others' kills have used up what the kernel logs in such a while
				got = suffer(t, g, c.script).Logged()
			}
			if got != c.want {
				t.Errorf("%s: %+v, want %+v", c.script, got, c.want)
			}
		}
	}
}

// suffer runs a shell in a narrow group beside g and returns the group when it is gone.
func suffer(t *testing.T, g Group, script string) Group {
	t.Helper()
	g = g.fs.At(fmt.Sprintf("%s-%d", g.path, time.Now().UnixNano()))
	narrow(t, g, Limits{Pids: 4, MemoryBytes: 32 << 20})
	args := []string{"-c", `for f in "$@"; do echo $$ > "$f/cgroup.procs" || exit 9; done; ` + script, "sh"}
	out, err := exec.Command("/bin/sh", append(args, g.dir("memory"), g.dir("pids"))...).CombinedOutput()
	t.Logf("%s: %v, %s", script, err, out) // it may die of the limit
	if err := g.Remove(deadline(t)); err != nil {
		t.Fatal(err)
	}
	return g
}
