package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// poll is how often a state that the kernel reaches by itself is looked at again.
const poll = 500 * time.Microsecond

// Freeze stops everything in the group and returns when the kernel says that it has stopped.
func (g Group) Freeze(ctx context.Context) error { return g.setFrozen(ctx, true) }

// Thaw undoes Freeze and returns when the kernel says so.
func (g Group) Thaw(ctx context.Context) error { return g.setFrozen(ctx, false) }

func (g Group) setFrozen(ctx context.Context, frozen bool) error {
	for i := 1; ; i++ {
		if err := g.writeFrozen(frozen); err != nil {
			return fmt.Errorf("freeze=%t cgroup %s: %w", frozen, g.path, err)
		}
		is, err := g.Frozen()
		if err != nil {
			return fmt.Errorf("read freezer of cgroup %s: %w", g.path, err)
		}
		if is == frozen {
			return nil
		}
		if err := sleep(ctx, poll); err != nil {
			return errors.Join(fmt.Errorf("freeze=%t cgroup %s: not confirmed: %w", frozen, g.path, err), g.thawOnce())
		}
		// on v1 a process that forks or execs meanwhile keeps the group in FREEZING for ever: let it get on with it
		if frozen && !g.fs.v2 && i%8 == 0 {
			if err := errors.Join(g.thawOnce(), sleep(ctx, 2*time.Millisecond)); err != nil {
				return fmt.Errorf("freeze cgroup %s: %w", g.path, err)
			}
		}
	}
}

func (g Group) writeFrozen(frozen bool) error {
	if g.fs.v2 {
		return write(g.dir(""), "cgroup.freeze", map[bool]string{true: "1", false: "0"}[frozen])
	}
	return write(g.dir("freezer"), "freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}[frozen])
}

// Frozen says whether all of the group has stopped.
func (g Group) Frozen() (bool, error) {
	if g.fs.v2 {
		n, err := readKey(g.dir(""), "cgroup.events", "frozen")
		return n == 1, err
	}
	state, err := readFile(filepath.Join(g.dir("freezer"), "freezer.state"))
	return state == "FROZEN", err
}

// Procs lists the processes of the group and of what is below it, over all hierarchies. A group that is gone has none.
func (g Group) Procs() ([]int, error) {
	var pids []int
	for _, dir := range g.dirs() {
		for _, d := range below(dir) {
			found, err := procsOf(d)
			if err != nil && !gone(err) {
				return nil, err
			}
			pids = append(pids, found...)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

func procsOf(dir string) ([]int, error) {
	text, err := readFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(text) {
		// 0 is a process of another pid namespace: not ours to kill by number
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Kill sends SIGKILL to every process that is in the group now, then thaws it (on v1 a frozen process does not die). What
// forks meanwhile may be missed: Remove loops. A group that is gone is no error. One that SetIdle made idle is not any more: a
// process dies on the CPU, and an idle one gets that only when nobody else wants to run.
func (g Group) Kill() error {
	if idle, err := g.Idle(); err == nil && idle {
		_ = g.SetIdle(false) // the processes are killed all the same
	}
	if g.fs.v2 {
		err := write(g.dir(""), "cgroup.kill", "1")
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(forgiveGone(err), g.thawOnce())
		}
	}
	return errors.Join(g.killEach(), g.thawOnce())
}

func (g Group) thawOnce() error {
	err := g.writeFrozen(false)
	if errors.Is(err, fs.ErrPermission) { // the root group has no freezer
		return nil
	}
	return forgiveGone(err)
}

// killEach goes by pidfd: a pid that was listed, opened, and is listed still is the process that was opened, or that one
// has died and the signal goes nowhere. So a reused pid is never hit.
func (g Group) killEach() error {
	first, err := g.Procs()
	if err != nil || len(first) == 0 {
		return err
	}
	fds := map[int]int{}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range first {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		}
	}
	still, err := g.Procs()
	if err != nil {
		return err
	}
	for pid, fd := range fds {
		if !slices.Contains(still, pid) {
			continue
		}
		if e := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); e != nil && e != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("kill pid %d of cgroup %s: %w", pid, g.path, e))
		}
	}
	return err
}

// Remove kills everything in the group and removes it, and what is below it, from all hierarchies. It returns nil only
// when nothing is left, and tries until ctx ends.
func (g Group) Remove(ctx context.Context) error {
	if g.path == "/" {
		return errors.New("refusing to remove the root cgroup")
	}
	for wait := poll; ; wait = min(2*wait, 20*time.Millisecond) {
		if !g.Exists() {
			return nil
		}
		killErr := g.Kill()
		left := g.rmdirAll()
		if left == nil {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", g.path, errors.Join(err, killErr, left))
		}
	}
}

// RemoveEmpty removes the group where it has neither processes nor children; what is in use stays, without error.
func (g Group) RemoveEmpty() {
	for _, dir := range g.dirs() {
		_ = unix.Rmdir(dir)
	}
}

func (g Group) rmdirAll() error {
	var left error
	for _, dir := range g.dirs() {
		all := below(dir)
		slices.Reverse(all) // deepest first
		for _, d := range all {
			if err := unix.Rmdir(d); err != nil && err != unix.ENOENT {
				left = errors.Join(left, &fs.PathError{Op: "rmdir", Path: d, Err: err})
			}
		}
	}
	return left
}

// below lists dir and the groups below it, parents first; empty if dir is gone.
func below(dir string) []string {
	var all []string
	// errors: a group that vanishes meanwhile is what we want
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// gone: the group is not there, or vanished between open and read.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

func forgiveGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
