package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"paddock/pool/oci/keeper"
)

// errNotRunning: there is nothing to freeze.
var errNotRunning = errors.New("the container does not run")

// Freeze implements pool.Container. gVisor's sandboxes die in a control group's freezer, so there only the sentry stops:
// without it the guest's threads get no further than to their next system call or fault.
func (c *container) Freeze(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if !c.gvisor() {
		if !c.started() { // its group may be there all the same, and on cgroup v2 an empty one can be frozen
			return fmt.Errorf("freeze container %s: %w", c.id, errNotRunning)
		}
		return c.group.Freeze(ctx)
	}
	if err := c.signalFirst(unix.SIGSTOP); err != nil {
		return fmt.Errorf("freeze container %s: %w", c.id, err)
	}
	if err := c.awaitStopped(ctx, true); err != nil {
		return fmt.Errorf("freeze container %s: %w", c.id, err)
	}
	// a guest that computes without a system call goes on while its sentry stands still
	if err := c.group.AwaitIdle(ctx); err != nil {
		return fmt.Errorf("freeze container %s: %w", c.id, err)
	}
	return nil
}

// Thaw implements pool.Container.
func (c *container) Thaw(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if !c.gvisor() {
		return c.group.Thaw(ctx)
	}
	if err := c.signalFirst(unix.SIGCONT); err != nil {
		return fmt.Errorf("thaw container %s: %w", c.id, err)
	}
	return c.awaitStopped(ctx, false)
}

// signalFirst signals the first process (gVisor: the sentry) by pidfd, after making sure that the pid is still that process's.
func (c *container) signalFirst(signal unix.Signal) error {
	c.mu.Lock()
	status, ending := c.status, c.ending
	c.mu.Unlock()
	if status.PID <= 0 || ending {
		return errNotRunning
	}
	fd, err := unix.PidfdOpen(status.PID, 0)
	if err != nil {
		return errors.Join(errNotRunning, err)
	}
	defer unix.Close(fd)
	if start, err := keeper.StartTime(status.PID); err != nil || start != status.StartTime {
		return errors.Join(errNotRunning, err)
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0)
}

// awaitStopped waits until all threads of the sentry have stopped, or run again.
func (c *container) awaitStopped(ctx context.Context, stopped bool) error {
	c.mu.Lock()
	pid := c.status.PID
	c.mu.Unlock()
	for {
		is, err := allStopped(pid)
		if err != nil {
			return errors.Join(errNotRunning, err)
		}
		if is == stopped {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stopped=%t is not confirmed: %w", stopped, ctx.Err())
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// allStopped says whether every thread of a process is stopped.
func allStopped(pid int) (bool, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, t := range tasks {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/stat")
		if err != nil {
			continue // the thread is gone
		}
		state := strings.TrimLeft(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
		if state == "" || (state[0] != 'T' && state[0] != 't') {
			return false, nil
		}
	}
	return true, nil
}
