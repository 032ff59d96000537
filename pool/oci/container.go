package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/pool/oci/keeper"
)

// container implements pool.Container. It is made by Create or found by List, and its end is told by the keeper's events.
// Its control group, bundle and runtime state may or may not exist at any time.
type container struct {
	engine *Engine
	id     pool.ContainerID
	facts  pool.Facts
	bundle bundle
	group  cgroup.Group
	exited chan struct{}

	destroying sync.Mutex // one Destroy at a time

	mu     sync.Mutex
	status keeper.Status
	ending bool // exited will be closed, or is
	exit   pool.Exit
	gone   bool // destroyed: nothing of it is left
}

func newContainer(e *Engine, id pool.ContainerID, facts pool.Facts) *container {
	return &container{engine: e, id: id, facts: facts, bundle: e.bundle(id), group: e.group(id), exited: make(chan struct{})}
}

func (c *container) ID() pool.ContainerID    { return c.id }
func (c *container) Facts() pool.Facts       { return c.facts }
func (c *container) Exited() <-chan struct{} { return c.exited }

func (c *container) Exit() pool.Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit
}

func (c *container) started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.PID != 0
}

// see takes what the keeper says. The first end counts.
func (c *container) see(s keeper.Status) {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return
	}
	c.status = s
	c.ending = s.Exited
	c.mu.Unlock()
	if s.Exited {
		c.end(s)
	}
}

// lose ends a container whose wait status nobody has.
func (c *container) lose() {
	c.mu.Lock()
	s := c.status
	c.mu.Unlock()
	s.Exited, s.Known, s.Code, s.Signal = true, false, -1, 0
	c.see(s)
}

// end tells how it ended: the wait status says how, the counters of the control group, which live until it is removed,
// say why.
func (c *container) end(s keeper.Status) {
	exit := pool.Exit{Code: s.Code, Signal: s.Signal, Known: s.Known, Tail: s.Tail}
	if usage, err := c.group.Usage(); err == nil {
		exit.OOMKilled = usage.OOMKills > 0
		exit.PidsHit = usage.PidsRefused > 0 && !exit.OOMKilled && (exit.Code != 0 || exit.Signal != 0)
	} else if s.Known && !errors.Is(err, fs.ErrNotExist) {
		c.engine.log.Warn("why did it end?", "container", c.id, "error", err)
	}
	exit.HeapAbort = aborted(s) && pool.SaysHeapIsFull(c.output(s.Tail))
	c.mu.Lock()
	c.exit = exit
	c.mu.Unlock()
	close(c.exited)
}

// aborted says whether the wait status is that of an abort or a trap. gVisor reports a signal as 128 and its number; as
// pid 1 of a namespace a process cannot die of its own abort signal and falls through to the next fault.
func aborted(s keeper.Status) bool {
	signal := syscall.Signal(s.Signal)
	if signal == 0 && s.Code > 128 {
		signal = syscall.Signal(s.Code - 128)
	}
	switch signal {
	case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGTRAP, syscall.SIGILL:
		return s.Known
	}
	return false
}

// Output implements pool.Container.
func (c *container) Output() []byte {
	c.mu.Lock()
	tail := c.exit.Tail
	c.mu.Unlock()
	return c.output(tail)
}

func (c *container) output(otherwise []byte) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	out, err := c.engine.keeper.Output(ctx, string(c.id))
	if err != nil {
		return otherwise
	}
	return out
}

// Usage implements pool.Container.
func (c *container) Usage(context.Context) (pool.Usage, error) {
	u, err := c.group.Usage()
	return pool.Usage(u), err
}

// SetCPU implements pool.Container. runc and runsc have set limits once and do not look again, so that the group's files are all
// there is to it; what was made without the runtime having put it there would have no limit, which reading back shows.
func (c *container) SetCPU(_ context.Context, millis int64) error { return c.group.SetCPU(millis) }

// CPU implements pool.Container.
func (c *container) CPU(context.Context) (time.Duration, error) { return c.group.CPU() }

// Yield implements pool.Container.
func (c *container) Yield(_ context.Context, yield bool) error { return c.group.SetIdle(yield) }

// Kill implements pool.Container. All of its processes are in the control group, gVisor's sentry and gofer too; the first
// one is killed by its own pidfd besides, should a runtime have left it outside.
func (c *container) Kill() error {
	err := c.signalFirst(unix.SIGKILL)
	if errors.Is(err, errNotRunning) {
		err = nil
	}
	return errors.Join(err, c.group.Kill())
}

// Destroy implements pool.Container. The order matters: nothing may run when the runtime is asked, for its commands hang
// on a stopped sandbox; the bundle goes last, for it is what makes a container listed.
func (c *container) Destroy(ctx context.Context) error {
	c.destroying.Lock()
	defer c.destroying.Unlock()
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*cleanupTimeout) // whatever the caller allows
	defer cancel()
	if err := c.destroy(ctx); err != nil {
		return fmt.Errorf("destroy container %s: %w", c.id, err)
	}
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.lose() // if its end was never told, it is now
	c.engine.forget(c.id)
	return nil
}

func (c *container) destroy(ctx context.Context) error {
	if !c.started() {
		// ends a start that is under way, so that it makes nothing behind our back
		if err := c.forgetRecord(ctx); err != nil {
			return err
		}
	}
	if err := c.awaitEnd(ctx); err != nil {
		return err
	}
	if c.engine.runtime.has(c.id) {
		deadline, cancel := context.WithTimeout(ctx, commandTimeout)
		defer cancel()
		if err := c.engine.runtime.remove(deadline, c.bundle); err != nil {
			c.engine.log.Warn("removing the runtime's state by hand", "container", c.id, "error", err)
		}
		if err := c.engine.runtime.removeByHand(c.id); err != nil {
			return err
		}
	}
	if err := c.group.Remove(ctx); err != nil {
		return err
	}
	if err := c.forgetRecord(ctx); err != nil {
		return err
	}
	return c.bundle.remove()
}

// awaitEnd kills until no process is left in the control group and the first process's end is told. The group's counters
// are read by then.
func (c *container) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		killed := c.Kill()
		left, err := c.group.Procs()
		if err != nil {
			return err
		}
		if len(left) == 0 && (c.over() || !c.started()) {
			return nil
		}
		select {
		case <-ctx.Done():
			if len(left) == 0 {
				return nil // its end is not told: lost
			}
			return fmt.Errorf("processes %v do not die: %w", left, errors.Join(ctx.Err(), killed))
		case <-c.exitedIf(len(left) == 0):
		case <-time.After(wait):
		}
	}
}

// exitedIf is Exited when only that is waited for.
func (c *container) exitedIf(only bool) <-chan struct{} {
	if only {
		return c.exited
	}
	return nil
}

func (c *container) over() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// forgetRecord drops the keeper's record, output included. Without a keeper there is one to start: it holds files.
func (c *container) forgetRecord(ctx context.Context) error {
	err := c.engine.keeper.Forget(ctx, string(c.id))
	if err == nil || ctx.Err() != nil {
		return err
	}
	if spawnErr := c.engine.spawnKeeper(ctx); spawnErr != nil {
		return errors.Join(err, spawnErr)
	}
	return c.engine.keeper.Forget(ctx, string(c.id))
}

func (c *container) gvisor() bool { return c.engine.Options.Isolation == tenant.IsolationGVisor }
