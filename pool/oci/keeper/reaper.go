package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// reaper is the only one in the process that waits for children: those that it started and those that it inherits. It is
// safe for concurrent use.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus // pids that somebody asked for
	// statuses nobody has asked for yet; kept only while a command runs whose orphans may be asked for when it is done
	unclaimed map[int]syscall.WaitStatus
	commands  int
}

func newReaper() *reaper {
	return &reaper{waiting: map[int]chan syscall.WaitStatus{}, unclaimed: map[int]syscall.WaitStatus{}}
}

// run reaps until ctx ends. SIGCHLD is this process's own business: it has no other main.
func (r *reaper) run(ctx context.Context) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	// a SIGCHLD that came before Notify is made good at the latest here
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.reap()
		select {
		case <-ctx.Done():
			return
		case <-children:
		case <-tick.C:
		}
	}
}

func (r *reaper) reap() {
	// the lock is held over wait4, which does not block, so that a pid is never reaped between its start and its entry
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if !status.Exited() && !status.Signaled() {
			continue
		}
		if c, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			c <- status // buffered
		} else if r.commands > 0 {
			r.unclaimed[pid] = status
		}
	}
}

// claim returns where the status of a child will come, or has come, in. It is closed without one if there is no such
// process any more and it was not ours to reap: the command that left it behind did so itself.
func (r *reaper) claim(pid int) <-chan syscall.WaitStatus {
	c := make(chan syscall.WaitStatus, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if status, ok := r.unclaimed[pid]; ok {
		delete(r.unclaimed, pid)
		c <- status
	} else if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		close(c)
	} else {
		r.waiting[pid] = c
	}
	return c
}

// errTimeout: the command was killed at its deadline.
var errTimeout = errors.New("killed at its deadline")

// Environment is that of a runtime's commands. Each takes one core at a time: with two, the making of a container shuts everybody's
// calls out of a small machine for as long as it lasts. A flood of calls for fresh containers put another tenant's p99 at 31 ms on two
// cores, and at 12 ms so; the sandbox itself does not inherit it.
func Environment() []string { return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1"} }

// command runs a program in a process group of its own and waits; done is called with its status while the statuses of
// processes that it left behind can still be claimed. At ctx's end the whole group is killed.
func (r *reaper) command(
	ctx context.Context, argv []string, stdio [3]*os.File, oomScoreAdj int, done func(syscall.WaitStatus) error,
) error {
	attr := &syscall.ProcAttr{
		Dir: "/", Env: Environment(),
		Files: []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	r.mu.Lock()
	pid, err := forkWithScore(oomScoreAdj, argv, attr)
	if err != nil {
		r.mu.Unlock()
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	exited := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = exited
	r.commands++
	r.mu.Unlock()
	defer r.commandDone()
	select {
	case status := <-exited:
		return done(status)
	case <-ctx.Done():
	}
	r.killGroup(pid)
	<-exited // SIGKILL: soon, unless the kernel itself hangs
	return errTimeout
}

// forkWithScore starts a program that has an OOM score from its first instruction on: it inherits ours, which is changed
// for the moment of the fork.
func forkWithScore(score int, argv []string, attr *syscall.ProcAttr) (int, error) {
	const file = "/proc/self/oom_score_adj"
	ours, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(file, fmt.Append(nil, score), 0); err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	_ = os.WriteFile(file, ours, 0) // going back to what it was is always allowed
	return pid, err
}

// killGroup kills the group of a child that has not been reaped, so that its pid is still its own.
func (r *reaper) killGroup(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; ok {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // ESRCH: gone meanwhile
	}
}

func (r *reaper) commandDone() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.commands--; r.commands == 0 {
		clear(r.unclaimed)
	}
}
