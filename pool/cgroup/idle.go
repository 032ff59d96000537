package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// How AwaitIdle looks. Windows are many because a machine under load takes a while to let everything go to sleep.
const (
	idleWindow  = 20 * time.Millisecond
	idleBurn    = time.Millisecond
	idleWindows = 25
)

// AwaitIdle returns nil when nothing in the group runs or wants to run, and an error when something still does after half a
// second. The CPU counter alone does not tell: what spins burns nothing while its quota is used up, or while others have the
// CPU.
func (g Group) AwaitIdle(ctx context.Context) error {
	var burned time.Duration
	running := 0
	for range idleWindows {
		before, err := g.CPU()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(idleWindow):
		}
		if running, err = g.runnable(); err != nil {
			return err
		}
		after, err := g.CPU()
		if err != nil {
			return err
		}
		if burned = after - before; burned <= idleBurn && running == 0 {
			return nil
		}
	}
	return fmt.Errorf("group %s: %d threads run, and burned %v in the last %v", g.path, running, burned, idleWindow)
}

// runnable counts the threads that run or wait for a CPU.
func (g Group) runnable() (n int, err error) {
	pids, err := g.Procs()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		tasks := filepath.Join("/proc", strconv.Itoa(pid), "task")
		threads, err := os.ReadDir(tasks)
		if err != nil {
			continue // it has ended
		}
		for _, t := range threads {
			text, err := os.ReadFile(filepath.Join(tasks, t.Name(), "stat"))
			if err == nil && stateOf(string(text)) == 'R' {
				n++
			}
		}
	}
	return n, nil
}

// stateOf is the third field of a stat file, behind the name, which may have anything in it.
func stateOf(stat string) byte {
	rest := strings.TrimLeft(stat[strings.LastIndexByte(stat, ')')+1:], " ")
	if rest == "" {
		return 0
	}
	return rest[0]
}
