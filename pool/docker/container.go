package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"paddock/internal/call"
	"paddock/pool"
	"paddock/pool/cgroup"
)

// Container implements pool.Container. The daemon owns its life; this process holds a handle on its first process, a
// connection that reads its output, and the path of its control group. Made by Engine.Create or by adoption in
// Engine.List; the engine forgets it when Destroy has succeeded.
type Container struct {
	engine *Engine
	id     call.ContainerID
	facts  pool.Facts
	output ring
	// gone is closed when its first process has ended; exit is valid from then on.
	gone chan struct{}
	exit pool.Exit

	mu       sync.Mutex
	docker   string           // the daemon's id, or our name for it until that is known
	group    *cgroup.Group    // nil before the start and for one that was found dead
	process  *process         // nil likewise
	oom      *cgroup.OOMWatch // nil likewise, and where the kernel does not offer it
	reader   <-chan struct{}
	usage    pool.Usage // as it was read last
	finished bool
}

var _ pool.Container = (*Container)(nil)

func newContainer(e *Engine, id call.ContainerID, f pool.Facts) *Container {
	return &Container{engine: e, id: id, facts: f, gone: make(chan struct{})}
}

// ID implements pool.Container.
func (c *Container) ID() call.ContainerID { return c.id }

// Facts implements pool.Container.
func (c *Container) Facts() pool.Facts { return c.facts }

// Exited implements pool.Container.
func (c *Container) Exited() <-chan struct{} { return c.gone }

// Exit implements pool.Container.
func (c *Container) Exit() pool.Exit {
	select {
	case <-c.gone:
		return c.exit
	default:
		return pool.Exit{}
	}
}

// Output implements pool.Container.
func (c *Container) Output() []byte { return c.output.newest(ringBytes) }

func (c *Container) setDockerID(id string) {
	if id == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.docker = id
}

func (c *Container) dockerID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.docker
}

func (c *Container) cgroup() (cgroup.Group, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.group == nil {
		return cgroup.Group{}, false
	}
	return *c.group, true
}

func (c *Container) alive() bool {
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

// errNotRunning answers what only a running container can do.
var errNotRunning = errors.New("the container is not running")

// Freeze implements pool.Container: by the control group's freezer, which confirms that everything has stopped. gVisor's
// sandboxes do not survive that; there the sentry alone is stopped.
func (c *Container) Freeze(ctx context.Context) error {
	return c.steer(ctx, "freeze", cgroup.Group.Freeze, unix.SIGSTOP)
}

// Thaw implements pool.Container.
func (c *Container) Thaw(ctx context.Context) error {
	return c.steer(ctx, "thaw", cgroup.Group.Thaw, unix.SIGCONT)
}

func (c *Container) steer(ctx context.Context, what string,
	freezer func(cgroup.Group, context.Context) error, sig unix.Signal,
) error {
	c.mu.Lock()
	group, process := c.group, c.process
	c.mu.Unlock()
	if group == nil || process == nil || !c.alive() {
		return fmt.Errorf("%s container %s: %w", what, c.id, errNotRunning)
	}
	var err error
	if c.engine.settings.gvisor {
		if err = process.signal(sig); err == nil && sig == unix.SIGSTOP {
			err = group.AwaitIdle(ctx)
		}
	} else {
		err = freezer(*group, ctx)
	}
	if err != nil {
		return fmt.Errorf("%s container %s: %w", what, c.id, err)
	}
	return nil
}

// SetCPU implements pool.Container: by the control group, which takes no time and nobody else writes to; but where systemd keeps
// the groups it would put back what it knows, so there the daemon has it told.
func (c *Container) SetCPU(ctx context.Context, millis int64) error {
	group, ok := c.cgroup()
	if !ok || !c.alive() {
		return fmt.Errorf("limit CPU of container %s: %w", c.id, errNotRunning)
	}
	if c.engine.settings.cgroupParent == "" {
		quota, period := cgroup.CPUQuota(millis)
		err := c.engine.api.do(ctx, "update", quickTimeout, func(ctx context.Context) error {
			_, err := c.engine.api.client.ContainerUpdate(ctx, c.dockerID(), container.UpdateConfig{
				Resources: container.Resources{CPUPeriod: int64(period), CPUQuota: quota},
			})
			return err
		})
		if err != nil {
			return fmt.Errorf("limit CPU of container %s: %w", c.id, err)
		}
	}
	return group.SetCPU(millis)
}

// CPU implements pool.Container.
func (c *Container) CPU(ctx context.Context) (time.Duration, error) {
	group, ok := c.cgroup()
	if !ok || !c.alive() {
		return 0, fmt.Errorf("CPU of container %s: %w", c.id, errNotRunning)
	}
	return group.CPU()
}

// Yield implements pool.Container: by the control group, which nobody else writes to; where systemd keeps the groups it may put
// back what it knows, and the container runs like the others for a while.
func (c *Container) Yield(_ context.Context, yield bool) error {
	group, ok := c.cgroup()
	if !ok || !c.alive() {
		return fmt.Errorf("priority of container %s: %w", c.id, errNotRunning)
	}
	return group.SetIdle(yield)
}

// Usage implements pool.Container. Of one that has ended it is what the counters said last.
func (c *Container) Usage(context.Context) (pool.Usage, error) {
	if !c.alive() {
		return c.lastUsage(), nil
	}
	group, ok := c.cgroup()
	if !ok {
		return pool.Usage{}, fmt.Errorf("usage of container %s: %w", c.id, errNotRunning)
	}
	u, err := group.Usage()
	if errors.Is(err, fs.ErrNotExist) { // it has ended, and the daemon has yet to say how
		return c.lastUsage(), nil
	}
	if err != nil {
		return pool.Usage{}, fmt.Errorf("usage of container %s: %w", c.id, err)
	}
	return c.remember(u), nil
}

// remember keeps what was read: the counters go with the control group, which the daemon may remove before the watcher has
// looked once more.
func (c *Container) remember(u cgroup.Usage) pool.Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usage = pool.Usage(u)
	return c.usage
}

func (c *Container) lastUsage() pool.Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usage
}

// Kill implements pool.Container. It goes past the daemon, which may hang.
func (c *Container) Kill() error {
	group, ok := c.cgroup()
	if !ok {
		return nil // it has not run yet, or no more
	}
	if err := group.Kill(); err != nil {
		return fmt.Errorf("kill container %s: %w", c.id, err)
	}
	return nil
}

// Destroy implements pool.Container.
func (c *Container) Destroy(ctx context.Context) error {
	if err := c.destroy(ctx); err != nil {
		return fmt.Errorf("destroy container %s: %w", c.id, err)
	}
	c.engine.forget(c)
	return nil
}

func (c *Container) destroy(ctx context.Context) error {
	if len(c.dockerID()) != dockerIDLength { // a create whose answer was lost: only the name is known
		_, _ = c.inspect(ctx) // sets the id; without it, the name must do
	}
	killErr := c.Kill()
	if _, ok := c.cgroup(); ok {
		select { // how it ended is known to the daemon only until it is removed
		case <-c.gone:
		case <-time.After(statusTimeout):
		case <-ctx.Done():
		}
	}
	if err := c.remove(ctx); err != nil {
		return errors.Join(err, killErr)
	}
	for _, group := range c.groups() {
		if err := group.Remove(ctx); err != nil {
			return err
		}
	}
	c.finish(pool.Exit{Code: -1})
	return nil
}

// dockerIDLength tells the daemon's ids from names.
const dockerIDLength = 64

// groups lists where its processes may be: where they were found, and where the daemon puts them, which is all that is known
// of a container whose start was cut short.
func (c *Container) groups() []cgroup.Group {
	var all []cgroup.Group
	if group, ok := c.cgroup(); ok {
		all = append(all, group)
	}
	id, parent := c.dockerID(), c.engine.settings.cgroupParent
	if len(id) == dockerIDLength && parent != "" {
		all = append(all, c.engine.groups.At(parent+"/"+id))
	}
	return all
}

// statusTimeout is how long a destruction waits for the watcher to learn how the container ended.
const statusTimeout = 500 * time.Millisecond

// removePoll is how often a removal that the daemon is busy with is asked about again.
const removePoll = 20 * time.Millisecond

// remove takes it out of the daemon, which kills it first if need be, and returns when it is not there any more.
func (c *Container) remove(ctx context.Context) error {
	id := c.dockerID()
	for {
		err := c.engine.api.do(ctx, "remove", removeTimeout, func(ctx context.Context) error {
			return c.engine.api.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		})
		switch {
		case err == nil, errdefs.IsNotFound(err):
			return nil
		case !errdefs.IsConflict(err): // conflict: another removal is under way
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(removePoll):
		}
	}
}

// inspect asks the daemon for the container's state.
func (c *Container) inspect(ctx context.Context) (container.State, error) {
	var state container.State
	err := c.engine.api.do(ctx, "inspect", quickTimeout, func(ctx context.Context) error {
		r, err := c.engine.api.client.ContainerInspect(ctx, c.dockerID())
		if err == nil && (r.ContainerJSONBase == nil || r.State == nil) {
			return errors.New("the answer has no state")
		}
		if err == nil {
			state = *r.State
			c.setDockerID(r.ID)
		}
		return err
	})
	return state, err
}

// locate finds the process and the control group of a running container, by its pid. ok is false if it has ended meanwhile.
func (c *Container) locate(pid int) (ok bool, err error) {
	var path string
	p, err := openProcess(pid, func() error {
		if path, err = cgroupOf(pid); err != nil {
			return err
		}
		if !strings.Contains(path, c.dockerID()) {
			return fmt.Errorf("process %d is in control group %s, which is not this container's: %w", pid, path, unix.ESRCH)
		}
		return nil
	})
	if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	group := c.engine.groups.At(path)
	oom, err := group.WatchOOM()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.engine.logger.Warn("a container's end for want of memory may be told as a crash", "container", string(c.id), "err", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.group, c.oom = p, &group, oom
	return true, nil
}
