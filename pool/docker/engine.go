// Package docker is a pool.Engine over the Docker Engine API: it imports the runtime's root file system as an image, makes
// hardened containers from it, and freezes, measures and kills them through their control groups, without the daemon's help.
// Docker keeps the containers when the controller dies. It pulls nothing, uses no Docker network, log driver or exec, and
// reaches only containers that carry its controller's label.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"paddock/internal/call"
	"paddock/internal/cleanup"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/runtimes"
)

// Options of New. ControllerID must be set.
type Options struct {
	// Host is the engine's socket, "unix:///var/run/docker.sock" if empty. Engines on other machines are refused: link sockets
	// and control groups are here.
	Host string
	// Runtime is "" or "runc" for runc, "runsc" for gVisor where the engine has it. Docker gives no container a user id of its own for
	// gVisor's kernel (see sharedSentry): package pool/oci isolates it better.
	Runtime      string
	ControllerID string
	// MemoryBudgetBytes caps the control group that all containers of this controller are in; 0 caps nothing. Only with the
	// engine's cgroupfs driver.
	MemoryBudgetBytes int64
	Logger            *slog.Logger // nil discards
}

// How long the engine may take for one call, whatever the caller's context allows.
const (
	quickTimeout  = 10 * time.Second // list, inspect, ping
	createTimeout = 20 * time.Second
	startTimeout  = 30 * time.Second
	removeTimeout = 20 * time.Second
	importTimeout = 2 * time.Minute
	createGrace   = time.Second     // to hear what a create has made whose caller's time is over
	undoTimeout   = 5 * time.Second // taking back a half-made container after the caller has given up
)

// Engine implements pool.Engine.
type Engine struct {
	api       *api
	groups    *cgroup.FS
	logger    *slog.Logger
	settings  settings
	isolation tenant.Isolation
	parent    cgroup.Group // zero under the systemd driver
	images    images

	ctx    context.Context // ends at Close; parent of everything that outlives a call
	cancel context.CancelFunc
	tasks  sync.WaitGroup // readers and watchers of containers

	mu         sync.Mutex
	closed     bool
	containers map[call.ContainerID]*Container // those that this process made or adopted and that are not destroyed
}

var _ pool.Engine = (*Engine)(nil)

// New connects to the engine and checks that it can do what is needed. Close gives it up.
func New(ctx context.Context, o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ControllerID == "" {
		return nil, errors.New("docker engine: Options.ControllerID must be set")
	}
	a, err := dial(o.Host)
	if err != nil {
		return nil, err
	}
	var undo cleanup.Stack
	defer undo.Clean()
	undo.Add(a.close)
	host, err := a.probe(ctx)
	if err != nil {
		return nil, err
	}
	e := &Engine{api: a, logger: o.Logger, containers: map[call.ContainerID]*Container{}}
	if err := e.configure(o, host); err != nil {
		return nil, fmt.Errorf("docker engine at %s: %w", a.host, err)
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	undo.Release()
	return e, nil
}

// configure decides how containers are made on this host.
func (e *Engine) configure(o Options, host HostInfo) error {
	var err error
	if e.groups, err = cgroup.Detect(); err != nil {
		return err
	}
	if e.settings, err = newSettings(o, host); err != nil {
		return err
	}
	e.isolation = tenant.IsolationRunc
	if e.settings.gvisor {
		e.isolation = tenant.IsolationGVisor
		e.logger.Warn(sharedSentry)
		if missing := missingArgs(host.RunscArgs, wantRunsc); len(missing) > 0 {
			e.logger.Warn("Docker starts runsc without some of its protections: add them to its runtimeArgs", "flags", missing)
		}
	}
	if host.CgroupDriver != "cgroupfs" {
		if o.MemoryBudgetBytes > 0 {
			e.logger.Warn("the Docker engine's cgroup driver is not cgroupfs: the memory budget is kept by admission alone",
				"driver", host.CgroupDriver)
		}
		return nil
	}
	e.parent = e.groups.At(filepath.Join("paddock", o.ControllerID))
	e.settings.cgroupParent = e.parent.Path()
	return e.parent.Ensure(cgroup.Limits{MemoryBytes: o.MemoryBudgetBytes})
}

// Name implements pool.Engine.
func (e *Engine) Name() string { return "docker/" + string(e.isolation) }

// Isolation implements pool.Engine.
func (e *Engine) Isolation() tenant.Isolation { return e.isolation }

// Overhead implements pool.Engine.
func (e *Engine) Overhead() int64 { return Overhead(e.isolation) }

// Overhead is the memory that an isolation needs on top of what the code may use.
func Overhead(iso tenant.Isolation) int64 {
	if iso == tenant.IsolationGVisor {
		return gvisorOverhead
	}
	return runcOverhead
}

// Prepare imports the image into the engine unless it is there, which Create would otherwise do for the first container.
func (e *Engine) Prepare(ctx context.Context, image runtimes.Image) error {
	_, err := e.images.id(ctx, e, image)
	return err
}

// Create implements pool.Engine.
func (e *Engine) Create(ctx context.Context, spec pool.Spec) (pool.Container, error) {
	c, err := e.create(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", spec.ID, err)
	}
	return c, nil
}

func (e *Engine) create(ctx context.Context, spec pool.Spec) (*Container, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	imageID, err := e.images.id(ctx, e, spec.Image)
	if err != nil {
		return nil, err
	}
	c := newContainer(e, spec.ID, pool.Facts{
		UID: spec.UID, ImageDigest: spec.Image.Digest, MemoryBytes: spec.MemoryBytes,
		LimitBytes: spec.MemoryBytes + e.Overhead(), Created: time.Now(),
	})
	// Known before it exists: a List meanwhile must not take it for a dead one.
	if err := e.add(c); err != nil {
		return nil, err
	}
	var undo cleanup.Stack
	defer undo.Clean()
	undo.Add(func() { e.forget(c) })
	name := e.settings.name(spec.ID)
	config, hostConfig := e.settings.container(spec, imageID, c.facts)
	making, cancel := outliving(ctx, createGrace)
	defer cancel()
	err = e.api.do(making, "create", createTimeout, func(ctx context.Context) error {
		made, err := e.api.client.ContainerCreate(ctx, config, hostConfig, nil, nil, name)
		c.setDockerID(made.ID)
		return err
	})
	if errdefs.IsConflict(err) {
		return nil, fmt.Errorf("a container of this name exists already: %w", err)
	}
	// Also after an error: a daemon that was too slow for us may have made it.
	undo.Add(func() { e.undoCreate(ctx, c, name) })
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	if err := c.attach(ctx); err != nil {
		return nil, err
	}
	err = e.api.do(ctx, "start", startTimeout, func(ctx context.Context) error {
		return e.api.client.ContainerStart(ctx, c.dockerID(), container.StartOptions{})
	})
	if err != nil {
		return nil, err
	}
	if err := c.watch(ctx); err != nil {
		return nil, err
	}
	if err := e.checkLimits(c, spec); err != nil {
		return nil, err
	}
	undo.Release()
	return c, nil
}

// outliving returns a context that does not end with ctx at once: the daemon goes on with what a caller has given up, and what it
// makes after we have looked for it would stay. After a deadline it lasts so long as grace, since a later sweep finds the rest; a
// caller that cancels is stopping, and nobody sweeps any more: it lasts.
func outliving(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
		}
	})
	return longer, func() { stop(); cancel(nil) }
}

var idForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

func checkSpec(s pool.Spec) error {
	switch {
	case !idForm.MatchString(string(s.ID)):
		return fmt.Errorf("its id %.80q is not 32 hex digits", s.ID)
	case s.UID == 0:
		return errors.New("it would run as root")
	case !filepath.IsAbs(s.LinkDir):
		return fmt.Errorf("its link directory %q is not absolute", s.LinkDir)
	case s.MemoryBytes <= 0 || s.CPUMillis <= 0 || s.TmpBytes <= 0:
		return fmt.Errorf("it has no limits: %d bytes of memory, %d CPU millis, %d bytes of /tmp",
			s.MemoryBytes, s.CPUMillis, s.TmpBytes)
	case len(s.Image.Argv) == 0:
		return errors.New("its image has no command")
	}
	return nil
}

// undoCreate removes what a failed Create has left. What it cannot remove, List shows.
func (e *Engine) undoCreate(ctx context.Context, c *Container, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if c.dockerID() == "" {
		c.setDockerID(name)
	}
	if err := c.Destroy(ctx); err != nil {
		e.logger.Warn("a half-made container is left to the sweep", "container", string(c.id), "err", err)
	}
}

// checkLimits reads back what the kernel enforces: an engine that ignored a limit must not run tenants' code.
func (e *Engine) checkLimits(c *Container, spec pool.Spec) error {
	group, ok := c.cgroup()
	if !ok {
		return nil // it has ended already, which Exited says
	}
	l, err := group.Limits()
	if err != nil {
		select {
		case <-c.gone:
			return nil
		default:
			return err
		}
	}
	if l.MemoryBytes != c.facts.LimitBytes || l.Pids != e.settings.pids(spec) || l.SwapBytes > 0 {
		return fmt.Errorf("the engine did not apply the limits: wanted %d bytes, %d processes; the kernel has %d, %d, swap %d",
			c.facts.LimitBytes, e.settings.pids(spec), l.MemoryBytes, l.Pids, l.SwapBytes)
	}
	return nil
}

// List implements pool.Engine. Containers that this process did not make are adopted: their output is read and their end
// watched from now on.
func (e *Engine) List(ctx context.Context) ([]pool.Container, error) {
	var found []container.Summary
	err := e.api.do(ctx, "list", quickTimeout, func(ctx context.Context) (err error) {
		found, err = e.api.client.ContainerList(ctx, container.ListOptions{
			All:     true,
			Filters: filters.NewArgs(filters.Arg("label", labelController+"="+e.settings.controller)),
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	all := make([]pool.Container, 0, len(found))
	for _, s := range found {
		c, err := e.adopt(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("list containers: %w", err)
		}
		if c != nil {
			all = append(all, c)
		}
	}
	return all, nil
}

// adopt returns the container of a list entry; nil if it vanished meanwhile.
func (e *Engine) adopt(ctx context.Context, s container.Summary) (*Container, error) {
	id := call.ContainerID(s.Labels[labelID])
	e.mu.Lock()
	c := e.containers[id]
	e.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c = newContainer(e, id, factsFromLabels(s.Labels, s.Created))
	c.setDockerID(s.ID)
	if err := e.add(c); err != nil {
		e.mu.Lock()
		other := e.containers[id]
		e.mu.Unlock()
		if other == nil {
			return nil, err
		}
		return other, nil // another List was faster
	}
	err := c.watch(ctx)
	switch {
	case errdefs.IsNotFound(err):
		e.forget(c)
		return nil, nil
	case err != nil:
		e.forget(c)
		return nil, err
	}
	if c.alive() {
		if err := c.attach(ctx); err != nil {
			// Its output is discarded by the daemon then; nothing in it blocks.
			e.logger.Warn("the output of an adopted container is not read", "container", string(id), "err", err)
		}
	}
	return c, nil
}

// add makes c known. It fails if there is one of the same id or the engine is closed.
func (e *Engine) add(c *Container) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	if e.containers[c.id] != nil {
		return errors.New("a container of this id exists already")
	}
	e.containers[c.id] = c
	return nil
}

func (e *Engine) forget(c *Container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.containers[c.id] == c {
		delete(e.containers, c.id)
	}
}

var errClosed = errors.New("the engine is closed")

// spawn runs f until Close ends its context; false after Close.
func (e *Engine) spawn(f func(ctx context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.tasks.Go(func() { f(e.ctx) })
	return true
}

// Close implements pool.Engine. Idempotent. Containers live on; their Exited channels are not closed any more.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.tasks.Wait()
	e.api.close()
	if e.settings.cgroupParent != "" {
		e.parent.RemoveEmpty()
		e.groups.At(strings.SplitN(e.parent.Path(), "/", 3)[1]).RemoveEmpty()
	}
	return nil
}
