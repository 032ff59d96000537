package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"paddock/internal/testenv"
)

func TestParseLayouts(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), []byte("cpu memory pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	v1 := "32 31 0:29 / /c/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 31 0:30 / /c/mem\\040ory rw - cgroup cgroup rw,memory\n" +
		"34 31 0:31 / /c/pids rw - cgroup cgroup rw,pids\n" +
		"35 31 0:32 / /c/freezer rw - cgroup cgroup rw,freezer\n" +
		"36 31 0:33 / /c/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n"
	v2 := fmt.Sprintf("40 31 0:40 / %s rw - cgroup2 cgroup2 rw,nsdelegate\n", root)
	for _, c := range []struct {
		name, mountinfo string
		version         int
		hierarchies     []string
		fails           string
	}{
		{name: "v1", mountinfo: v1, version: 1, hierarchies: []string{"/c/cpu", "/c/freezer", "/c/mem ory", "/c/pids", "/c/systemd"}},
		{name: "hybrid", mountinfo: v2 + v1, version: 1,
			hierarchies: []string{root, "/c/cpu", "/c/freezer", "/c/mem ory", "/c/pids", "/c/systemd"}},
		{name: "v2", mountinfo: v2, version: 2, hierarchies: []string{root}},
		{name: "no pids", mountinfo: strings.ReplaceAll(v1, "pids", "blkio"), fails: `controller "pids"`},
		{name: "nothing", mountinfo: "garbage\n1 2 3\n", fails: "no cgroup controller"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Parse(strings.NewReader(c.mountinfo))
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("error %v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(c.hierarchies)
			if f.Version() != c.version || !slices.Equal(f.hierarchies(), c.hierarchies) {
				t.Errorf("got v%d %q, want v%d %q", f.Version(), f.hierarchies(), c.version, c.hierarchies)
			}
		})
	}
}

// fixture makes a tree of plain files that looks like a v2 group.
func fixture(t *testing.T, files map[string]string) *FS {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n", "cgroup.subtree_control": "\n"}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := NewV2(root)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestV2ReadsLimitsAndUsage(t *testing.T) {
	f := fixture(t, map[string]string{
		"p/c/memory.max": "134217728\n", "p/c/memory.swap.max": "0\n", "p/c/pids.max": "64\n",
		"p/c/cpu.max": "50000 100000\n", "p/c/cpu.weight": "39\n",
		"p/c/memory.current": "1048576\n", "p/c/cpu.stat": "usage_usec 1500\nuser_usec 1\n", "p/c/pids.current": "7\n",
		"p/c/memory.events": "low 0\nmax 4\noom 2\noom_kill 1\n", "p/c/pids.events": "max 3\n",
	})
	g := f.At("p/c")
	l, err := g.Limits()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Limits{MemoryBytes: 128 << 20, CPUMillis: 500, Pids: 64, CPUWeight: weightToShares(39)}); l != want {
		t.Errorf("limits %+v, want %+v", l, want)
	}
	u, err := g.Usage()
	if err != nil {
		t.Fatal(err)
	}
	want := Usage{MemoryBytes: 1 << 20, CPU: 1500 * time.Microsecond, Pids: 7, OOMKills: 1, PidsRefused: 3}
	if u != want {
		t.Errorf("usage %+v, want %+v", u, want)
	}
}

func TestV2UnlimitedAndMissing(t *testing.T) {
	f := fixture(t, map[string]string{
		"c/memory.max": "max\n", "c/pids.max": "max\n", "c/cpu.max": "max 100000\n", "c/cpu.weight": "100\n",
	})
	l, err := f.At("c").Limits()
	if err != nil {
		t.Fatal(err)
	}
	if l.MemoryBytes != Unlimited || l.SwapBytes != Unlimited || l.CPUMillis != Unlimited || l.Pids != Unlimited {
		t.Errorf("limits %+v, want none", l)
	}
	if _, err := f.At("gone").Usage(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("usage of a missing group: %v", err)
	}
}

func TestV2EnsureHandsControllersDownAndCaps(t *testing.T) {
	files := map[string]string{}
	for _, dir := range []string{"", "p/", "p/x/"} {
		files[dir+"cgroup.subtree_control"] = "pids"
		files[dir+"memory.max"], files[dir+"memory.swap.max"] = "max", "max"
		files[dir+"cpu.weight"] = "100"
	}
	f := fixture(t, files)
	if err := f.At("p/x").Ensure(Limits{MemoryBytes: 1 << 30, CPUWeight: 512}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"p/x/memory.max": "1073741824", "p/x/memory.swap.max": "0", "p/memory.max": "max", "p/x/cpu.weight": "20",
		"cgroup.subtree_control": "+cpu", "p/cgroup.subtree_control": "+cpu", "p/x/cgroup.subtree_control": "+cpu",
	} {
		if got, err := readFile(filepath.Join(f.root, file)); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", file, got, err, want)
		}
	}
}

func TestSharesWeights(t *testing.T) {
	for _, c := range [][2]int64{{2, 1}, {262144, 10000}, {1024, 39}} {
		if got := sharesToWeight(c[0]); got != c[1] {
			t.Errorf("sharesToWeight(%d) = %d, want %d", c[0], got, c[1])
		}
	}
}

// real returns this machine's layout and the v2 mount beside v1, if there is one, with a group name of the test's own.
func real(t *testing.T) map[string]Group {
	t.Helper()
	f, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("paddock-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	groups := map[string]Group{fmt.Sprintf("v%d", f.Version()): f.At(name)}
	if !f.v2 && f.v1[""] != "" {
		// freezing and killing need no controllers, so that the hybrid mount shows v2's for real
		groups["v2 of hybrid"] = (&FS{v2: true, root: f.v1[""]}).At(name + "-h")
	}
	t.Cleanup(func() {
		for _, g := range groups {
			ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience(5*time.Second))
			if err := g.Remove(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
	})
	return groups
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience(10*time.Second))
	t.Cleanup(cancel)
	return ctx
}

// spin starts a process with a child, both burning CPU, and moves them into the group in every hierarchy.
func spin(t *testing.T, g Group) *exec.Cmd {
	t.Helper()
	return startIn(t, g, `(while :; do :; done) & echo up; while :; do :; done`)
}

// startIn starts a shell with a script, which says something first, and moves it into the group in every hierarchy.
func startIn(t *testing.T, g Group, script string) *exec.Cmd {
	t.Helper()
	for _, d := range g.dirs() {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for _, d := range g.dirs() {
		// cpuset needs cpus first: leave it alone
		if err := write(d, "cgroup.procs", fmt.Sprint(cmd.Process.Pid)); err != nil && !strings.Contains(d, "cpuset") {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(in, "go")
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// narrow makes a group with limits for processes. Ensure makes parents: on v2 what hands controllers down has no processes.
func narrow(t *testing.T, g Group, l Limits) {
	t.Helper()
	above := g
	if g.fs.v2 {
		above = g.fs.At(filepath.Dir(g.path))
	}
	if err := above.mkdir(); err != nil {
		t.Fatal(err)
	}
	quota, period := CPUQuota(l.CPUMillis)
	for _, f := range []struct {
		wanted             int64
		controller, v1, v2 string
		textV1, textV2     string
	}{
		{l.MemoryBytes, "memory", "memory.limit_in_bytes", "memory.max", fmt.Sprint(l.MemoryBytes), fmt.Sprint(l.MemoryBytes)},
		{l.Pids, "pids", "pids.max", "pids.max", fmt.Sprint(l.Pids), fmt.Sprint(l.Pids)},
		{l.CPUMillis, "cpu", "cpu.cfs_quota_us", "cpu.max", fmt.Sprint(quota), fmt.Sprint(quota, period)},
	} {
		if f.wanted == 0 {
			continue
		}
		dir, file, text := g.dir(f.controller), f.v1, f.textV1
		if g.fs.v2 {
			file, text = f.v2, f.textV2
		}
		if err := errors.Join(os.MkdirAll(dir, 0o755), write(dir, file, text)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := g.Limits(); err != nil || l.MemoryBytes > 0 && got.MemoryBytes != l.MemoryBytes ||
		l.Pids > 0 && got.Pids != l.Pids || l.CPUMillis > 0 && got.CPUMillis != l.CPUMillis {
		t.Fatalf("limits %+v, %v; want %+v", got, err, l)
	}
}

func TestRealFreezeThawKillRemove(t *testing.T) {
	for name, g := range real(t) {
		t.Run(name, func(t *testing.T) {
			cmd := spin(t, g)
			pids, err := g.Procs()
			if err != nil || len(pids) != 2 || !slices.Contains(pids, cmd.Process.Pid) {
				t.Fatalf("processes %v, %v; want 2 with %d", pids, err, cmd.Process.Pid)
			}
			if err := g.Freeze(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if err := g.Freeze(deadline(t)); err != nil {
				t.Fatalf("freezing twice: %v", err)
			}
			if frozen, err := g.Frozen(); !frozen || err != nil {
				t.Fatalf("frozen = %t, %v", frozen, err)
			}
			if err := g.Thaw(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if err := g.Freeze(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if err := g.Kill(); err != nil { // frozen: must die all the same
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("the process ended with %v, want killed", err)
			}
			if err := g.Remove(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if g.Exists() {
				t.Error("the group is still there")
			}
			if err := errors.Join(g.Remove(deadline(t)), g.Kill()); err != nil {
				t.Errorf("a group that is gone: %v", err)
			}
		})
	}
}

func TestRealFreezeOfWhatForks(t *testing.T) {
	for name, g := range real(t) {
		t.Run(name, func(t *testing.T) {
			for _, d := range g.dirs() {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("/bin/sh", "-c", `read go; while :; do /bin/true; done`)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			for _, d := range g.dirs() {
				if err := write(d, "cgroup.procs", fmt.Sprint(cmd.Process.Pid)); err != nil && !strings.Contains(d, "cpuset") {
					t.Fatal(err)
				}
			}
			fmt.Fprintln(in, "go")
			for range 50 {
				if err := errors.Join(g.Freeze(deadline(t)), g.Thaw(deadline(t))); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestRealRemoveKillsByItselfAndTakesChildren(t *testing.T) {
	for name, g := range real(t) {
		t.Run(name, func(t *testing.T) {
			for _, d := range g.dirs() {
				if err := os.MkdirAll(filepath.Join(d, "in", "deep"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := spin(t, g.fs.At(g.path+"/in"))
			names, err := g.fs.Children(g.path)
			if err != nil || !slices.Equal(names, []string{"in"}) {
				t.Errorf("children %q, %v", names, err)
			}
			if err := g.Remove(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("the process ended with %v, want killed", err)
			}
		})
	}
}

func TestRealParentIsCapped(t *testing.T) {
	for name, g := range real(t) {
		if name == "v2 of hybrid" {
			continue // no controllers there
		}
		weight := int64(512)
		if g.fs.v2 {
			weight = weightToShares(sharesToWeight(weight)) // coarser
		}
		for _, size := range []int64{256 << 20, 64 << 20, 512 << 20} { // down and up again
			if err := g.Ensure(Limits{MemoryBytes: size, CPUWeight: 512, Pids: 1000}); err != nil {
				t.Fatal(err)
			}
			l, err := g.Limits()
			if err != nil {
				t.Fatal(err)
			}
			if l.MemoryBytes != size || l.SwapBytes != 0 || l.Pids != 1000 || l.CPUMillis != Unlimited || l.CPUWeight != weight {
				t.Errorf("limits %+v, want %d bytes without swap", l, size)
			}
		}
		if u, err := g.Usage(); err != nil || u.OOMKills != 0 || u.PidsRefused != 0 {
			t.Errorf("usage %+v, %v", u, err)
		}
	}
}

func TestRealOOMAndPidsAreCounted(t *testing.T) {
	for name, g := range real(t) {
		if name == "v2 of hybrid" {
			continue
		}
		narrow(t, g, Limits{MemoryBytes: 32 << 20, Pids: 4})
		// a shell joins the group, then runs out of pids, then of memory
		script := `for f in "$@"; do echo $$ > $f/cgroup.procs || exit 9; done
			(for i in 1 2 3 4 5 6; do sleep 60 & done) >/dev/null 2>&1; exec tail /dev/zero`
		args := append([]string{"-c", script, "sh"}, g.dir("memory"), g.dir("pids"))
		out, err := exec.Command("/bin/sh", args...).CombinedOutput()
		if err == nil {
			t.Fatalf("the hog lives: %s", out)
		}
		u, err := g.Usage()
		if err != nil {
			t.Fatal(err)
		}
		if u.OOMKills == 0 {
			t.Errorf("usage %+v after %s, want an OOM kill", u, out)
		}
		if u.PidsRefused == 0 {
			t.Errorf("usage %+v, want refused forks", u)
		}
	}
}

func TestRemoveRefusesTheRoot(t *testing.T) {
	if err := (&FS{v2: true, root: t.TempDir()}).At("/").Remove(t.Context()); err == nil {
		t.Error("removing the root group must be refused")
	}
}

func TestRemoveEndsWithTheContext(t *testing.T) {
	f := fixture(t, map[string]string{"c/stays": "a plain file makes rmdir fail for ever"})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := f.At("c").Remove(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
}
