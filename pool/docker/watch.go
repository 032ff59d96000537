package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sys/unix"

	"paddock/pool"
	"paddock/pool/cgroup"
)

// How long the end of a container waits for what the daemon knows of it. A daemon that hangs must not hide that it has ended.
const (
	exitTimeout  = 3 * time.Second
	drainTimeout = 200 * time.Millisecond // for the last of its output
)

// watch finds the first process of a started container and follows it to its end. One that has ended already is finished at
// once.
func (c *Container) watch(ctx context.Context) error {
	state, err := c.inspect(ctx)
	if err != nil {
		return err
	}
	ok := false
	if state.Running && state.Pid > 0 {
		if ok, err = c.locate(state.Pid); err != nil {
			return err
		}
	}
	if !ok {
		return c.finishDead(ctx, state)
	}
	if !c.engine.spawn(c.follow) {
		return errClosed
	}
	if c.oom != nil {
		c.engine.spawn(func(context.Context) { c.oom.Listen() }) // until follow closes it
	}
	return nil
}

// finishDead finishes a container that was not running when it was looked at.
func (c *Container) finishDead(ctx context.Context, state container.State) error {
	if state.Running {
		var err error
		if state, err = c.waitDaemon(ctx); err != nil {
			return err
		}
	}
	exit := pool.Exit{Code: -1}
	if state.Status != container.StateCreated {
		exit = exitOf(state)
		c.drain(ctx)
		exit.Tail = c.output.newest(tailBytes)
		exit.HeapAbort = heapAborted(exit)
	}
	c.finish(exit)
	return nil
}

// follow waits for the first process to end, reads the counters of the control group before the daemon removes it, and asks the
// daemon for the wait status.
func (c *Container) follow(ctx context.Context) {
	c.mu.Lock()
	group, p, oom := *c.group, c.process, c.oom
	c.mu.Unlock()
	if oom != nil {
		defer oom.Close()
	}
	unhook := context.AfterFunc(ctx, p.stop)
	err := p.wait()
	if !unhook() { // closed first
		p.close()
		return
	}
	c.countLast(group, oom)
	if err != nil {
		c.engine.logger.Error("waiting for a container failed; its end is taken from the daemon",
			"container", string(c.id), "err", err)
	}
	state, err := c.waitDaemon(ctx)
	exit := pool.Exit{Code: -1}
	if err == nil {
		exit = exitOf(state)
	} else if ctx.Err() == nil {
		c.engine.logger.Warn("the daemon does not say how a container ended", "container", string(c.id), "err", err)
	}
	c.drain(ctx)
	exit.Tail = c.output.newest(tailBytes)
	judge(&exit, c.lastUsage())
	exit.HeapAbort = heapAborted(exit)
	c.finish(exit)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process = nil
	p.close()
}

// countLast reads the counters once more. The daemon may have been faster and have removed them with the group; then there is
// what the kernel told meanwhile, and its log, of whether the container ran into a limit.
func (c *Container) countLast(group cgroup.Group, oom *cgroup.OOMWatch) {
	usage, err := group.Usage()
	if err != nil {
		usage = cgroup.Usage(c.lastUsage())
		if oom != nil {
			usage.OOMKills = max(usage.OOMKills, oom.Kills())
		}
		logged := group.Logged()
		usage.PidsRefused = max(usage.PidsRefused, logged.PidsRefused)
		usage.OOMKills = max(usage.OOMKills, logged.OOMKills)
	}
	c.remember(usage)
}

// drain waits a moment for the reader to come to the end of the output.
func (c *Container) drain(ctx context.Context) {
	c.mu.Lock()
	reader := c.reader
	c.mu.Unlock()
	if reader == nil {
		return
	}
	select {
	case <-reader:
	case <-time.After(drainTimeout):
	case <-ctx.Done():
	}
}

// waitDaemon waits until the daemon has noticed the end, too.
func (c *Container) waitDaemon(ctx context.Context) (container.State, error) {
	ctx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	err := c.engine.api.do(ctx, "wait", exitTimeout, func(ctx context.Context) error {
		answers, errs := c.engine.api.client.ContainerWait(ctx, c.dockerID(), container.WaitConditionNotRunning)
		select {
		case a := <-answers:
			if a.Error != nil {
				return errors.New(a.Error.Message)
			}
			return nil
		case err := <-errs:
			return err
		}
	})
	if err != nil {
		return container.State{}, err
	}
	return c.inspect(ctx)
}

// finish records the end, once.
func (c *Container) finish(exit pool.Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return
	}
	c.finished = true
	c.exit = exit
	close(c.gone)
}

// exitOf reads the daemon's record. It writes 128 + n for a process that died of signal n, so an exit code above 128 may be
// the code's own doing; nothing is decided by it alone.
func exitOf(s container.State) pool.Exit {
	e := pool.Exit{Code: s.ExitCode, OOMKilled: s.OOMKilled, Known: true}
	if s.ExitCode > 128 && s.ExitCode <= 128+64 {
		e.Code, e.Signal = -1, s.ExitCode-128
	}
	return e
}

// judge adds what the kernel counted.
func judge(e *pool.Exit, u pool.Usage) {
	e.OOMKilled = e.OOMKilled || u.OOMKills > 0
	e.PidsHit = u.PidsRefused > 0
}

// heapAborted: it died of an abort (SIGABRT; as the first process of a pid namespace it cannot, and dies of the trap or the
// invalid write that follow), and says that the heap was full.
func heapAborted(e pool.Exit) bool {
	switch unix.Signal(e.Signal) {
	case unix.SIGABRT, unix.SIGTRAP, unix.SIGSEGV, unix.SIGILL:
		return pool.SaysHeapIsFull(e.Tail)
	}
	return false
}

// attach starts to read the container's output. The daemon throws away what nobody reads, so a container never waits for a
// reader that has died; it may have to wait for one that is attached and does not read, which is why nothing here blocks.
func (c *Container) attach(ctx context.Context) error {
	stream, err := c.openOutput(ctx)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	ok := c.engine.spawn(func(ctx context.Context) {
		defer close(done)
		c.readOutput(ctx, stream)
	})
	if !ok {
		stream.Close()
		return fmt.Errorf("attach: %w", errClosed)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reader = done
	return nil
}

func (c *Container) openOutput(ctx context.Context) (types.HijackedResponse, error) {
	deadline := time.Now().Add(quickTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	var stream types.HijackedResponse
	ctx = context.WithValue(ctx, handshake{}, deadline)
	err := c.engine.api.do(ctx, "attach", quickTimeout, func(ctx context.Context) error {
		s, err := c.engine.api.client.ContainerAttach(ctx, c.dockerID(),
			container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
		if err != nil {
			return err
		}
		if err := s.Conn.SetDeadline(time.Time{}); err != nil {
			s.Close()
			return err
		}
		stream = s
		return nil
	})
	return stream, err
}

// reattachPause is how long a reader whose connection broke waits before it tries again: the daemon may be starting anew.
const reattachPause = 2 * time.Second

// readOutput reads until the container has ended or the engine is closed. After a restart of the daemon it connects again.
func (c *Container) readOutput(ctx context.Context, stream types.HijackedResponse) {
	for {
		unhook := context.AfterFunc(ctx, stream.Close)
		_, err := stdcopy.StdCopy(&c.output, &c.output, stream.Reader)
		unhook()
		stream.Close()
		for first := true; first || err != nil; first = false {
			if c.ending() {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-c.gone:
				return
			case <-time.After(reattachPause):
			}
			stream, err = c.openOutput(ctx)
		}
	}
}

// ending says whether the first process has ended, which its watcher may not have noticed yet.
func (c *Container) ending() bool {
	c.mu.Lock()
	p := c.process
	c.mu.Unlock()
	return p == nil || p.ended()
}
