package oci_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/enginetest"
	"paddock/pool/oci"
	"paddock/pool/oci/keeper"
)

var isolations = map[tenant.Isolation]string{tenant.IsolationRunc: "runc", tenant.IsolationGVisor: "runsc"}

// rig is an engine's surroundings, and containers that only sleep.
type rig struct {
	oci.Options
	lock *os.File
	run  string
}

func newRig(t *testing.T, iso tenant.Isolation) *rig {
	t.Helper()
	r := &rig{run: testenv.RunDir(t)}
	r.Options = options(t, iso, isolations[iso], enginetest.State{
		Dir: filepath.Join(r.run, "s"), ControllerID: testenv.ControllerID(t), LockFile: filepath.Join(r.run, "lock"),
		MemoryBudgetBytes: 1 << 30,
	})
	r.takeLock(t)
	t.Cleanup(func() { r.lock.Close() })
	return r
}

// takeLock takes the lock that a controller holds while it lives.
func (r *rig) takeLock(t *testing.T) {
	t.Helper()
	var err error
	if r.lock, err = os.Create(r.LockFile); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) engine(t *testing.T) *oci.Engine {
	t.Helper()
	e, err := oci.New(soon(t), r.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.sweep(t, e)
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func (r *rig) sweep(t *testing.T, e *oci.Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience(20*time.Second))
	defer cancel()
	all, err := e.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, c := range all {
		if err := c.Destroy(ctx); err != nil {
			t.Error(err)
		}
	}
}

// spec is a container that sleeps.
func (r *rig) spec(t *testing.T, n int) pool.Spec {
	t.Helper()
	id := pool.ContainerID(fmt.Sprintf("%s%024d", testenv.ControllerID(t), n))
	dir := filepath.Join(r.run, "c", string(id))
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711)); err != nil {
		t.Fatal(err)
	}
	image := enginetest.ProbeImage(t)
	image.Argv = []string{"/probe", "sleep"}
	return pool.Spec{
		ID: id, UID: testenv.UID(t), LinkDir: dir, Image: image, MemoryBytes: 64 << 20, CPUMillis: 1000, TmpBytes: 1 << 20,
	}
}

func (r *rig) keeperPid(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	path := keeper.SocketPath(filepath.Join(r.StateDir, "k"))
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		t.Fatal(err)
	}
	return int(cred.Pid)
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience(20*time.Second))
	t.Cleanup(cancel)
	return ctx
}

func awaitExit(t *testing.T, c pool.Container) pool.Exit {
	t.Helper()
	select {
	case <-c.Exited():
	case <-soon(t).Done():
		t.Fatal("it does not end")
	}
	return c.Exit()
}

func TestDeathOfTheKeeper(t *testing.T) {
	for iso := range isolations {
		t.Run(string(iso), func(t *testing.T) {
			r := newRig(t, iso)
			e := r.engine(t)
			c, err := e.Create(soon(t), r.spec(t, 1))
			if err != nil {
				t.Fatal(err)
			}
			old := r.keeperPid(t)
			if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			// a new container needs a new keeper at once; a start that ran into the death fails and leaves nothing
			d, err := e.Create(soon(t), r.spec(t, 2))
			for n := 3; err != nil && n < 10; n++ {
				t.Log(err)
				d, err = e.Create(soon(t), r.spec(t, n))
			}
			if err != nil {
				t.Fatal(err)
			}
			if all, err := e.List(soon(t)); err != nil || len(all) != 2 {
				t.Errorf("found %v, %v", all, err)
			}
			if r.keeperPid(t) == old {
				t.Error("the dead keeper answers")
			}
			select {
			case <-c.Exited():
				t.Fatalf("the container ended with its keeper: %+v", c.Exit())
			default:
			}
			if err := errors.Join(c.Freeze(soon(t)), c.Thaw(soon(t))); err != nil {
				t.Error(err)
			}
			if err := errors.Join(c.Kill(), d.Kill()); err != nil {
				t.Fatal(err)
			}
			if exit := awaitExit(t, c); exit.Known {
				t.Errorf("exit %+v, want it unknown", exit)
			}
			if exit := awaitExit(t, d); !exit.Known || exit.Signal != 9 {
				t.Errorf("exit %+v, want signal 9", exit)
			}
			if err := errors.Join(c.Destroy(soon(t)), d.Destroy(soon(t))); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKeeperEndsWhatNobodyAdopts(t *testing.T) {
	for iso := range isolations {
		t.Run(string(iso), func(t *testing.T) {
			r := newRig(t, iso)
			r.KeeperGrace = 300 * time.Millisecond
			e, err := oci.New(soon(t), r.Options)
			if err != nil {
				t.Fatal(err)
			}
			c, err := e.Create(soon(t), r.spec(t, 1))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Freeze(soon(t)); err != nil { // the worst case
				t.Fatal(err)
			}
			pid := r.keeperPid(t)
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, 0); err != nil {
				t.Fatal("the keeper left its container")
			}
			r.lock.Close()
			for ctx := soon(t); keeper.NewClient(filepath.Join(r.StateDir, "k")).Alive(ctx); time.Sleep(5 * time.Millisecond) {
				if ctx.Err() != nil {
					t.Fatal("the keeper stays")
				}
			}
			if left, _ := filepath.Glob(testenv.GroupDir("*", "paddock/"+r.ControllerID+"/*"+string(c.ID())+"*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			// the next controller sweeps up
			r.takeLock(t)
			e = r.engine(t)
			all, err := e.List(soon(t))
			if err != nil || len(all) != 1 {
				t.Fatalf("found %v, %v", all, err)
			}
			awaitExit(t, all[0])
			if err := all[0].Destroy(soon(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAGroupThatExistsIsRefused(t *testing.T) {
	for iso := range isolations {
		t.Run(string(iso), func(t *testing.T) {
			r := newRig(t, iso)
			e := r.engine(t)
			spec := r.spec(t, 1)
			group := testenv.GroupDir("memory", "paddock/"+r.ControllerID+"/"+string(spec.ID))
			if err := os.MkdirAll(group, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Create(soon(t), spec); err == nil || !strings.Contains(err.Error(), "exists already") {
				t.Errorf("error %v", err)
			}
			if _, err := os.Stat(group); err == nil {
				t.Error("the group is left")
			}
		})
	}
}

// fakeRuntime makes a program that does what the script says for "run"; "$id", "$pidfile", "$log" and "$group" (the
// container's path in the memory hierarchy) are set.
func (r *rig) fakeRuntime(t *testing.T, script string) {
	t.Helper()
	r.Runtime = filepath.Join(r.run, "runtime")
	text := `#!/bin/sh
for a in "$@"; do
	case "$before" in --pid-file) pidfile=$a;; --log) log=$a;; esac
	before=$a; id=$a
done
group=paddock/` + r.ControllerID + `/$id
case " $* " in *" run "*) ;; *) exit 0;; esac
` + script
	if err := os.WriteFile(r.Runtime, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestRuntimeThatHangs(t *testing.T) {
	r := newRig(t, tenant.IsolationRunc)
	mark := testenv.ControllerID(t)
	r.fakeRuntime(t, "sleep 1000 & sh -c ': "+mark+"; sleep 1000; :'")
	e := r.engine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := e.Create(ctx, r.spec(t, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
	if took := time.Since(start); took > testenv.Patience(5*time.Second) {
		t.Errorf("it took %v", took)
	}
	if out, _ := exec.Command("pgrep", "-f", mark).Output(); len(out) > 0 {
		t.Errorf("processes are left: %s", out)
	}
	if all, err := e.List(soon(t)); err != nil || len(all) != 0 {
		t.Errorf("left %v, %v", all, err)
	}
}

func TestRuntimeThatFails(t *testing.T) {
	r := newRig(t, tenant.IsolationRunc)
	r.fakeRuntime(t, `echo '{"level":"error","msg":"no such luck"}' > $log; exit 7`)
	e := r.engine(t)
	_, err := e.Create(soon(t), r.spec(t, 1))
	if err == nil || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), "7") {
		t.Errorf("error %v", err)
	}
	if all, err := e.List(soon(t)); err != nil || len(all) != 0 {
		t.Errorf("left %v, %v", all, err)
	}
}

// a runtime that sets no limits, or other ones, must not get away with it
func TestRuntimeThatSetsNoLimits(t *testing.T) {
	var dirs []string
	for _, controller := range []string{"memory", "pids", "cpu", "cpuacct", "freezer"} {
		dirs = append(dirs, testenv.GroupDir(controller, "$group"))
	}
	for name, script := range map[string]string{
		"no group": `sleep 1000 & echo $! > $pidfile`,
		"no limits": `sleep 1000 & pid=$!; echo $pid > $pidfile
			for d in ` + strings.Join(dirs, " ") + `; do mkdir -p $d; echo $pid > $d/cgroup.procs; done`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tenant.IsolationRunc)
			r.fakeRuntime(t, script)
			e := r.engine(t)
			if c, err := e.Create(soon(t), r.spec(t, 1)); err == nil {
				t.Errorf("container %s without limits was accepted", c.ID())
			} else {
				t.Log(err)
			}
			if all, err := e.List(soon(t)); err != nil || len(all) != 0 {
				t.Errorf("left %v, %v", all, err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*oci.Options){
		"isolation":     func(o *oci.Options) { o.Isolation = "none" },
		"runtime":       func(o *oci.Options) { o.Runtime = "/no/such/runsc" },
		"no program":    func(o *oci.Options) { o.Runtime = "/etc/passwd" },
		"state dir":     func(o *oci.Options) { o.StateDir = "relative" },
		"long path":     func(o *oci.Options) { o.StateDir = "/run/" + strings.Repeat("x", 100) },
		"controller id": func(o *oci.Options) { o.ControllerID = "" },
		"keeper":        func(o *oci.Options) { o.Keeper = nil },
	} {
		r := newRig(t, tenant.IsolationRunc)
		change(&r.Options)
		if e, err := oci.New(soon(t), r.Options); err == nil {
			t.Errorf("a bad %s was accepted", name)
			e.Close()
		}
	}
}

func TestCloseIsIdempotentAndTakesTheKeeperAlong(t *testing.T) {
	r := newRig(t, tenant.IsolationRunc)
	e := r.engine(t)
	pid := r.keeperPid(t)
	if err := errors.Join(e.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.StartTime(pid); err == nil {
		t.Errorf("keeper %d stays though nothing is left", pid)
	}
	if left, _ := filepath.Glob(testenv.GroupDir("*", "paddock/"+r.ControllerID)); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// what a controller that was killed in the middle of a start leaves, in every half-made form, is listed and can be removed
func TestHalfMadeContainers(t *testing.T) {
	r := newRig(t, tenant.IsolationRunc)
	e := r.engine(t)
	id := func(n int) string { return fmt.Sprintf("%032d", n) }
	for _, dir := range []string{
		filepath.Join(r.StateDir, "b", id(1)), filepath.Join(r.StateDir, "r", id(2)), filepath.Join(r.StateDir, "r", "not-ours"),
		testenv.GroupDir("pids", "paddock/"+r.ControllerID+"/"+id(3)),
		testenv.GroupDir("systemd", "paddock/"+r.ControllerID+"/"+id(3)),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.StateDir, "b", id(1), "facts.json"), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := e.List(soon(t))
	if err != nil || len(all) != 3 {
		t.Fatalf("found %v, %v; want 3", all, err)
	}
	for _, c := range all {
		if exit := awaitExit(t, c); exit.Known {
			t.Errorf("exit %+v of a container that never ran", exit)
		}
		if c.Facts().Created.IsZero() {
			t.Error("no time")
		}
		if err := c.Freeze(soon(t)); err == nil {
			t.Error("what does not run was frozen")
		}
		if err := c.Destroy(soon(t)); err != nil {
			t.Error(err)
		}
	}
	if all, err = e.List(soon(t)); err != nil || len(all) != 0 {
		t.Errorf("left %v, %v", all, err)
	}
}

// starts that are broken off at any point leave nothing, and nothing that the keeper says of them later is listed
func TestStartsThatAreBrokenOff(t *testing.T) {
	for iso, step := range map[tenant.Isolation]time.Duration{
		tenant.IsolationRunc: 3 * time.Millisecond, tenant.IsolationGVisor: 10 * time.Millisecond,
	} {
		t.Run(string(iso), func(t *testing.T) {
			r := newRig(t, iso)
			e := r.engine(t)
			for n := range 24 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*step)
				if c, err := e.Create(ctx, r.spec(t, n)); err == nil {
					if err := c.Destroy(soon(t)); err != nil {
						t.Error(err)
					}
				}
				cancel()
			}
			time.Sleep(50 * time.Millisecond) // for what is still to be told
			if all, err := e.List(soon(t)); err != nil || len(all) != 0 {
				t.Errorf("left %v, %v", all, err)
			}
		})
	}
}

func TestNothingGrows(t *testing.T) {
	r := newRig(t, tenant.IsolationRunc)
	e := r.engine(t)
	turn := func(n int) {
		var all sync.WaitGroup
		for i := range 4 {
			spec := r.spec(t, 4*n+i)
			all.Go(func() {
				c, err := e.Create(soon(t), spec)
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.Destroy(soon(t)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	count := func(pid int) int {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	turn(0) // connections that stay open are open now
	keeperBefore, oursBefore, goroutines := count(r.keeperPid(t)), count(os.Getpid()), runtime.NumGoroutine()
	for n := 1; n <= 6; n++ {
		turn(n)
	}
	// each of the four parallel callers may keep one connection
	if now := count(r.keeperPid(t)); now > keeperBefore+8 {
		t.Errorf("the keeper has %d descriptors, had %d", now, keeperBefore)
	}
	if now := count(os.Getpid()); now > oursBefore+8 {
		t.Errorf("the engine has %d descriptors, had %d", now, oursBefore)
	}
	if now := runtime.NumGoroutine(); now > goroutines+16 {
		t.Errorf("%d goroutines, were %d", now, goroutines)
	}
}
