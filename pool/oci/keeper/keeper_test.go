package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/testenv"
)

// keeperCommand makes the test binary be a keeper.
const keeperCommand = "be-the-keeper"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keeperCommand {
		if err := Main(context.Background(), os.Args[2:], func(o Options) error { return os.RemoveAll(o.RunDir) }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const id = "00000000000000000000000000000001"

// rig is a keeper process with its surroundings.
type rig struct {
	Options
	*Client
	command []string
	lock    *os.File
	changes chan Status
	stop    context.CancelFunc // ends the events stream
}

func newRig(t *testing.T) *rig {
	t.Helper()
	run := testenv.RunDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{command: []string{self, keeperCommand}, Options: Options{
		Dir: filepath.Join(run, "k"), LockFile: filepath.Join(run, "lock"), Grace: time.Minute,
		CgroupParent: "paddock-test-" + testenv.ControllerID(t),
	}}
	r.Client = NewClient(r.Dir)
	t.Cleanup(r.Client.Close)
	if r.lock, err = takeLock(r.LockFile, os.O_CREATE|os.O_RDWR); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.lock.Close() })
	r.spawn(t)
	t.Cleanup(func() {
		if pid, err := r.pid(); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return r
}

func (r *rig) spawn(t *testing.T) {
	t.Helper()
	if err := Spawn(soon(t), r.command, r.Options); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.changes, r.stop = make(chan Status, 100), stop
	synced, over := make(chan struct{}), make(chan struct{})
	changes := r.changes
	go func() {
		defer close(over)
		_ = r.Watch(ctx, func(s Status) { changes <- s }, func() { close(synced) })
	}()
	t.Cleanup(func() { stop(); <-over })
	select {
	case <-synced:
	case <-soon(t).Done():
		t.Fatal("the keeper tells nothing")
	}
}

// pid of the keeper, from its end of the socket.
func (r *rig) pid() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: SocketPath(r.Dir)}); err != nil {
		return 0, err
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

func (r *rig) next(t *testing.T) Status {
	t.Helper()
	select {
	case s := <-r.changes:
		return s
	case <-soon(t).Done():
		t.Fatal("the keeper tells nothing")
		panic("not reached")
	}
}

// gone waits until the keeper does not answer.
func (r *rig) gone(t *testing.T) {
	t.Helper()
	testenv.Await(t, "the keeper is gone", func() bool { return !r.Alive(soon(t)) })
}

// run plays a runtime that starts what the script says and detaches.
func (r *rig) run(t *testing.T, script string) (RunReply, error) {
	t.Helper()
	pidFile := filepath.Join(filepath.Dir(r.Dir), "pid")
	// the script outlives the runtime, for a shell may wait for a child that ends before
	runtime := fmt.Sprintf(`(while kill -0 $$ 2>/dev/null; do :; done; %s) & echo $! > %s`, script, pidFile)
	return r.Run(soon(t), RunRequest{
		ID: id, Argv: []string{"/bin/sh", "-c", runtime}, PidFile: pidFile, Timeout: testenv.Patience(10 * time.Second), OOMScoreAdj: 500,
	})
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience(30*time.Second))
	t.Cleanup(cancel)
	return ctx
}

func TestStatusAndOutput(t *testing.T) {
	for _, c := range []struct {
		script       string
		code, signal int
	}{
		{"echo out; echo err >&2; exit 5", 5, 0},
		{"echo out; echo err >&2; exit 0", 0, 0},
		{"echo out; echo err >&2; exec sh -c 'kill -SEGV $$'", -1, int(syscall.SIGSEGV)},
	} {
		r := newRig(t)
		reply, err := r.run(t, c.script)
		if err != nil || reply.Code != 0 || reply.Status.PID == 0 {
			t.Fatalf("%+v, %v", reply, err)
		}
		s := r.next(t)
		for !s.Exited {
			s = r.next(t)
		}
		if s.ID != id || !s.Known || s.Code != c.code || s.Signal != c.signal || string(s.Tail) != "out\nerr\n" {
			t.Errorf("%s: %+v", c.script, s)
		}
		if out, err := r.Output(soon(t), id); err != nil || string(out) != "out\nerr\n" {
			t.Errorf("output %q, %v", out, err)
		}
		if _, err := r.run(t, "true"); !errors.Is(err, ErrExists) {
			t.Errorf("the id was given twice: %v", err)
		}
		if err := errors.Join(r.Forget(soon(t), id), r.Forget(soon(t), id)); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(r.Dir + "/" + id + "*"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

func TestNothingLeaksIntoChildren(t *testing.T) {
	r := newRig(t)
	if _, err := r.run(t, "ls -l /proc/self/fd; env; cat /proc/self/oom_score_adj"); err != nil {
		t.Fatal(err)
	}
	s := r.next(t)
	for !s.Exited {
		s = r.next(t)
	}
	out := string(s.Tail)
	// 0, 1, 2, the directory that ls reads, and perhaps what the shell itself has opened
	for line := range strings.Lines(out) {
		_, to, is := strings.Cut(strings.TrimSpace(line), " -> ")
		if is && to != "/dev/null" && !strings.HasSuffix(to, ".out") && !strings.HasSuffix(to, "/fd") {
			t.Errorf("a descriptor leads to %s", to)
		}
	}
	if !strings.HasSuffix(strings.TrimSpace(out), "500") {
		t.Errorf("the OOM score is not what was asked for:\n%s", out)
	}
	if !strings.Contains(out, "PATH=") || strings.Contains(out, "HOME=") {
		t.Errorf("environment:\n%s", out)
	}
}

func TestRunFailures(t *testing.T) {
	r := newRig(t)
	pidFile := filepath.Join(r.Dir, "none")
	reply, err := r.Run(soon(t), RunRequest{ID: id, Argv: []string{"/bin/sh", "-c", "exit 3"}, PidFile: pidFile, Timeout: time.Second})
	if err != nil || reply.Code != 3 || !reply.Status.Exited || reply.Status.Known {
		t.Errorf("%+v, %v; want code 3", reply, err)
	}
	if err := r.Forget(soon(t), id); err != nil {
		t.Fatal(err)
	}
	// ids are never used again: the order to start may come after the order to forget
	if reply, err = r.Run(soon(t), RunRequest{ID: id, Argv: []string{"/bin/true"}, PidFile: pidFile, Timeout: time.Second}); err == nil {
		t.Errorf("a forgotten container was started: %+v", reply)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, id+".out")); err == nil {
		t.Error("the refused start has left its output")
	}
	// hangs, with a child: the whole group dies at the deadline
	mark := testenv.ControllerID(t)
	hang := "sleep 1000 & sh -c 'sleep 1000; : " + mark + "' & wait"
	other := strings.Repeat("e", 32)
	reply, err = r.Run(soon(t), RunRequest{ID: other, Argv: []string{"/bin/sh", "-c", hang}, PidFile: pidFile, Timeout: 50 * time.Millisecond})
	if err != nil || !reply.TimedOut {
		t.Errorf("%+v, %v; want a timeout", reply, err)
	}
	if out, _ := exec.Command("pgrep", "-f", mark).Output(); len(out) > 0 {
		t.Errorf("processes are left: %s", out)
	}
	for _, bad := range []RunRequest{{}, {ID: "../x", Argv: []string{"x"}, Timeout: 1}, {ID: id, Timeout: 1}, {ID: id, Argv: []string{"x"}}} {
		if _, err := r.Run(soon(t), bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if err := r.Forget(soon(t), "../lock"); err == nil {
		t.Error("a path was forgotten")
	}
}

func TestStatusThatTheRuntimeTook(t *testing.T) {
	r := newRig(t)
	pidFile := filepath.Join(filepath.Dir(r.Dir), "pid")
	script := "true & p=$!; wait $p; echo $p > " + pidFile
	reply, err := r.Run(soon(t), RunRequest{ID: id, Argv: []string{"/bin/sh", "-c", script}, PidFile: pidFile, Timeout: time.Second})
	if err != nil || reply.Code != 0 {
		t.Fatalf("%+v, %v", reply, err)
	}
	s := r.next(t)
	for !s.Exited {
		s = r.next(t)
	}
	if s.Known {
		t.Errorf("%+v, want an unknown end", s)
	}
}

func TestForgetEndsAStart(t *testing.T) {
	r := newRig(t)
	done := make(chan error, 1)
	started := filepath.Join(filepath.Dir(r.Dir), "started")
	go func() {
		reply, err := r.Run(soon(t), RunRequest{
			ID: id, Argv: []string{"/bin/sh", "-c", "touch " + started + "; sleep 1000"}, PidFile: "/none", Timeout: time.Minute,
		})
		if err == nil && !reply.TimedOut {
			err = fmt.Errorf("it ended with %+v", reply)
		}
		done <- err
	}()
	for _, err := os.Stat(started); err != nil; _, err = os.Stat(started) {
		time.Sleep(time.Millisecond)
	}
	if err := r.Forget(soon(t), id); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSecondKeeperRefuses(t *testing.T) {
	r := newRig(t)
	before, err := r.pid()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(r.command[0], append(r.command[1:], r.Args()...)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another keeper") {
		t.Errorf("%v: %s", err, out)
	}
	if after, err := r.pid(); err != nil || after != before {
		t.Errorf("the keeper is %d, was %d: %v", after, before, err)
	}
}

func TestDeathOfTheKeeper(t *testing.T) {
	r := newRig(t)
	reply, err := r.run(t, "read x; i=0; while sleep 0.01; do i=$((i+1)); echo alive $i; done")
	if err != nil || reply.Code != 0 {
		t.Fatalf("%+v, %v", reply, err)
	}
	// "read x" ended at once: no input
	pid, err := r.pid()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.gone(t)
	r.spawn(t)
	if s := r.next(t); s.ID != id || s.PID != reply.Status.PID || s.Exited {
		t.Fatalf("the new keeper says %+v", s)
	}
	// it lives, can write, and is heard
	for ctx := soon(t); ; time.Sleep(5 * time.Millisecond) {
		out, err := r.Output(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("alive")) {
			break
		}
	}
	if err := syscall.Kill(reply.Status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := r.next(t); !s.Exited || s.Known || !bytes.Contains(s.Tail, []byte("alive")) {
		t.Errorf("%+v, want an unknown end", s)
	}
	// a third keeper still knows that
	if pid, err = r.pid(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.gone(t)
	r.spawn(t)
	if s := r.next(t); !s.Exited || s.Known {
		t.Errorf("the third keeper says %+v", s)
	}
}

func TestLeave(t *testing.T) {
	r := newRig(t)
	reply, err := r.run(t, "sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	if idle, err := r.Leave(soon(t)); err != nil || idle {
		t.Fatalf("idle = %t, %v", idle, err)
	}
	if err := syscall.Kill(reply.Status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for s := r.next(t); !s.Exited; {
		s = r.next(t)
	}
	if !r.Alive(soon(t)) {
		t.Fatal("the keeper left while an engine is connected")
	}
	r.stop()
	r.gone(t)
}

func TestEndsWhatNobodyAdopts(t *testing.T) {
	r := newRig(t)
	r.stop()
	if pid, err := r.pid(); err != nil {
		t.Fatal(err)
	} else if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.gone(t)
	r.Grace = 300 * time.Millisecond
	r.RunDir = r.Dir
	r.spawn(t)
	group := testenv.GroupDir("pids", r.CgroupParent+"/"+id)
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(filepath.Dir(group)) })
	reply, err := r.run(t, "echo 0 > "+group+"/cgroup.procs; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	for text := ""; !strings.Contains(text, "sleep"); {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", reply.Status.PID))
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	r.stop()
	time.Sleep(2 * r.Grace) // nothing must happen in this time: the lock is held
	if !r.Alive(soon(t)) {
		t.Fatal("the keeper left although the controller's lock is held")
	}
	if _, err := StartTime(reply.Status.PID); err != nil {
		t.Fatalf("the container ended although the controller's lock is held: %v", err)
	}
	r.lock.Close()
	r.gone(t)
	if _, err := StartTime(reply.Status.PID); err == nil {
		t.Error("the container lives though its keeper ended")
	}
	for _, left := range []string{filepath.Dir(group), r.RunDir} { // its lock is gone a moment before they are
		testenv.Await(t, left+" is gone", func() bool {
			_, err := os.Stat(left)
			return errors.Is(err, os.ErrNotExist)
		})
	}
}

func TestMainNeedsItsFlags(t *testing.T) {
	for _, args := range [][]string{nil, {"-dir", "/x"}, {"-nonsense"}} {
		if err := Main(t.Context(), args, nil); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

func TestSpawnTellsWhatWentWrong(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "k"), LockFile: "/x", CgroupParent: "x"}
	err := Spawn(soon(t), []string{"/bin/sh", "-c", "echo no way >&2; exit 1"}, o)
	if err == nil || !strings.Contains(err.Error(), "no way") {
		t.Errorf("error %v", err)
	}
	if err := Spawn(soon(t), nil, o); err == nil {
		t.Error("no command was accepted")
	}
}

func TestRing(t *testing.T) {
	var want []byte
	var r ring
	for i := range 400 {
		p := bytes.Repeat([]byte{byte(i)}, i*37%5000)
		if i == 300 {
			p = bytes.Repeat([]byte("big"), OutputBytes)
		}
		r.add(p)
		want = append(want, p...)
		want = want[max(0, len(want)-OutputBytes):]
		if !bytes.Equal(r.bytes(), want) {
			t.Fatalf("after %d writes the ring differs", i)
		}
		if cap(r.buf) > 5*OutputBytes {
			t.Fatalf("the ring has grown to %d", cap(r.buf))
		}
	}
}
