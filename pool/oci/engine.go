// Package oci is the engine that drives an OCI runtime binary, runsc (isolation gvisor) or runc, with a runtime-spec
// bundle per container and no daemon. Containers are children of the keeper, a process that outlives the controller. It
// decides how a container is locked in; which container belongs to whom, and when it is made or destroyed, is the pool's.
package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/pool/oci/keeper"
)

// Deadlines of what the engine does by itself. A caller's context may end it earlier.
const (
	createTimeout  = 30 * time.Second
	commandTimeout = 10 * time.Second
	cleanupTimeout = 15 * time.Second
	keeperTimeout  = 10 * time.Second
)

// parentWeight is the CPU weight (v1 shares; a group's default is 1024) of all containers together, so that the
// controller, the router and the rest of the host come first when the CPU is short.
const parentWeight = 512

// Options of an Engine.
type Options struct {
	Runtime      string           // path of runsc or runc
	Isolation    tenant.Isolation // which of the two it is
	StateDir     string           // root-only, on a tmpfs, this engine's own; at most 80 bytes
	ControllerID string           // scopes the control groups: paddock/<controller id>/<container id>
	// MemoryBudgetBytes caps all containers together. 0 = no cap.
	MemoryBudgetBytes int64
	Keeper            []string // command that runs keeper.Main with the flags that are appended
	LockFile          string   // the file that the controller holds with flock(2); see package keeper
	KeeperGrace       time.Duration
	RunDir            string // what the keeper removes with everything else when no controller comes back; "" = nothing
	Logger            *slog.Logger
}

// Engine implements pool.Engine.
type Engine struct {
	Options
	runtime runtimeBinary
	groups  *cgroup.FS
	keeper  *keeper.Client
	log     *slog.Logger

	stop    context.CancelFunc // ends the watch
	watched sync.WaitGroup
	close   sync.Once

	mu       sync.Mutex
	known    map[pool.ContainerID]*container
	statuses map[pool.ContainerID]keeper.Status // as the keeper told them
	// forgotten are the last ids of which nothing is left: what the keeper said of them before it forgot them may still be
	// on its way, and would make them listed for ever.
	forgotten *lru.Cache[pool.ContainerID, struct{}]
}

// rememberForgotten is far more than the keeper's events can lag behind.
const rememberForgotten = 4096

var _ pool.Engine = (*Engine)(nil)

// New checks that this machine can run the runtime, starts the keeper unless one serves StateDir already, and waits until
// it has said what it knows.
func New(ctx context.Context, o Options) (*Engine, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("oci engine: %w", err)
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, fmt.Errorf("oci engine: %w", err)
	}
	e := &Engine{
		Options: o, groups: groups, log: o.Logger.With("engine", "oci/"+string(o.Isolation)),
		runtime: runtimeBinary{path: o.Runtime, isolation: o.Isolation, root: filepath.Join(o.StateDir, "r")},
		keeper:  keeper.NewClient(filepath.Join(o.StateDir, "k")),
		known:   map[pool.ContainerID]*container{}, statuses: map[pool.ContainerID]keeper.Status{},
	}
	if e.forgotten, err = lru.New[pool.ContainerID, struct{}](rememberForgotten); err != nil {
		return nil, fmt.Errorf("oci engine: %w", err)
	}
	for _, dir := range []string{o.StateDir, e.bundles(), e.runtime.root} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("oci engine: %w", err)
		}
	}
	if err := os.Chmod(o.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("oci engine: %w", err)
	}
	limits := cgroup.Limits{MemoryBytes: o.MemoryBudgetBytes, CPUWeight: parentWeight}
	if err := groups.At(e.parent()).Ensure(limits); err != nil {
		return nil, fmt.Errorf("oci engine: %w", err)
	}
	if err := e.startWatch(ctx); err != nil {
		return nil, fmt.Errorf("oci engine: %w", err)
	}
	return e, nil
}

func (o *Options) check() error {
	if o.Isolation != tenant.IsolationGVisor && o.Isolation != tenant.IsolationRunc {
		return fmt.Errorf("isolation %q: gvisor or runc", o.Isolation)
	}
	if info, err := os.Stat(o.Runtime); err != nil {
		return fmt.Errorf("runtime: %w: build it, or name another one", err)
	} else if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("runtime %s is not a program (%v): name another one", o.Runtime, info.Mode())
	}
	if os.Geteuid() != 0 {
		return errors.New("it makes namespaces, control groups and ids for its containers, for which it must run as root")
	}
	if !cleanAbs(o.StateDir) || len(o.StateDir) > 80 {
		return fmt.Errorf("state directory %q: a clean absolute path of at most 80 bytes is needed", o.StateDir)
	}
	if o.ControllerID == "" || o.LockFile == "" || len(o.Keeper) == 0 {
		return errors.New("controller id, lock file and keeper command are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Name is "oci/gvisor" or "oci/runc".
func (e *Engine) Name() string { return "oci/" + string(e.Options.Isolation) }

// Isolation is what stands between the code and the host's kernel.
func (e *Engine) Isolation() tenant.Isolation { return e.Options.Isolation }

// Overhead is added to Spec.MemoryBytes.
func (e *Engine) Overhead() int64 { return Overhead(e.Options.Isolation) }

func (e *Engine) parent() string  { return "paddock/" + e.ControllerID }
func (e *Engine) bundles() string { return filepath.Join(e.StateDir, "b") }

func (e *Engine) bundle(id pool.ContainerID) bundle {
	return bundle{id: id, dir: filepath.Join(e.bundles(), string(id))}
}

func (e *Engine) group(id pool.ContainerID) cgroup.Group {
	return e.groups.At(e.parent() + "/" + string(id))
}

// Create implements pool.Engine. What fails is undone at once, on a context of its own.
func (e *Engine) Create(ctx context.Context, s pool.Spec) (pool.Container, error) {
	spec, err := bundleSpec(s, e.Options.Isolation, e.group(s.ID).Path(), e.groups.Version() == 2)
	if err != nil {
		return nil, err
	}
	facts := pool.Facts{
		UID: s.UID, ImageDigest: s.Image.Digest, MemoryBytes: s.MemoryBytes,
		LimitBytes: limitsOf(s, e.Options.Isolation).MemoryBytes, Created: time.Now(),
	}
	b := e.bundle(s.ID)
	if err := b.make(spec, facts); err != nil {
		return nil, fmt.Errorf("create container %s: %w", s.ID, err)
	}
	c := e.enter(newContainer(e, s.ID, facts))
	if err := e.start(ctx, c, s); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("create container %s: %w", s.ID, err), c.Destroy(undo))
	}
	return c, nil
}

// start has the keeper run the runtime and checks that the kernel enforces what was asked for: a runtime that found a
// control group which it did not make itself would have set no limits at all.
func (e *Engine) start(ctx context.Context, c *container, s pool.Spec) error {
	if c.group.Exists() {
		return fmt.Errorf("its control group %s exists already", c.group.Path())
	}
	timeout := createTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Millisecond, min(timeout, time.Until(deadline)))
	}
	reply, err := e.keeperRun(ctx, keeper.RunRequest{
		ID: string(s.ID), Argv: e.runtime.run(c.bundle), PidFile: c.bundle.pidFile(), Timeout: timeout,
		OOMScoreAdj: oomScoreAdj, // gVisor gives it to the sentry only; its stubs have what they inherit
	})
	switch {
	case err != nil:
		return err
	case reply.TimedOut:
		return fmt.Errorf("%s run: %w", e.Runtime, context.DeadlineExceeded)
	case reply.Code != 0 || reply.Signal != 0:
		said := lastError(c.bundle.logFile())
		return fmt.Errorf("%s run ended with %d (signal %d): %s", e.Runtime, reply.Code, reply.Signal, said)
	}
	c.see(reply.Status)
	return e.checkLimits(c, limitsOf(s, e.Options.Isolation))
}

// keeperRun asks again if there was no keeper to ask: then nothing has begun.
func (e *Engine) keeperRun(ctx context.Context, q keeper.RunRequest) (keeper.RunReply, error) {
	reply, err := e.keeper.Run(ctx, q)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		if err := e.spawnKeeper(ctx); err != nil {
			return reply, err
		}
		return e.keeper.Run(ctx, q)
	}
	return reply, err
}

func (e *Engine) checkLimits(c *container, want cgroup.Limits) error {
	got, err := c.group.Limits()
	if err != nil {
		return err
	}
	got.CPUWeight = 0
	page := int64(os.Getpagesize())
	want.MemoryBytes -= want.MemoryBytes % page // the kernel counts pages
	if got.SwapBytes == cgroup.Unlimited && !swapCounted(e.groups, e.parent()) {
		got.SwapBytes = 0 // the kernel has no limit to give; a host without swap needs none
	}
	if got != want {
		return fmt.Errorf("the kernel enforces %+v where %+v was asked for: refusing the container", got, want)
	}
	return nil
}

// swapCounted says whether this kernel can limit swap: the capped parent shows it.
func swapCounted(groups *cgroup.FS, parent string) bool {
	l, err := groups.At(parent).Limits()
	return err == nil && l.SwapBytes != cgroup.Unlimited
}

// enter registers a container, or returns the one that is registered under its id.
func (e *Engine) enter(c *container) *container {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.known[c.id]; old != nil {
		return old
	}
	e.known[c.id] = c
	return c
}

// forget drops a container of which nothing is left.
func (e *Engine) forget(id pool.ContainerID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.known, id)
	delete(e.statuses, id)
	e.forgotten.Add(id, struct{}{})
}

// List implements pool.Engine: whatever a container can leave behind, a bundle, the runtime's state, a control group, a
// record of the keeper, makes it listed.
func (e *Engine) List(ctx context.Context) ([]pool.Container, error) {
	ids, err := e.groups.Children(e.parent())
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	bundles, err := os.ReadDir(e.bundles())
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, b := range bundles {
		ids = append(ids, b.Name())
	}
	states, err := e.runtime.list()
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	ids = append(ids, states...)
	e.mu.Lock()
	for id := range e.statuses {
		ids = append(ids, string(id))
	}
	e.mu.Unlock()
	slices.Sort(ids)
	var all []pool.Container
	for _, id := range slices.Compact(ids) {
		if idForm.MatchString(id) {
			all = append(all, e.adopt(pool.ContainerID(id)))
		}
	}
	return all, ctx.Err()
}

// adopt returns the container of an id that exists in some form, as this engine knows it or as it finds it.
func (e *Engine) adopt(id pool.ContainerID) *container {
	e.mu.Lock()
	c := e.known[id]
	e.mu.Unlock()
	if c != nil {
		return c
	}
	c = e.enter(newContainer(e, id, e.bundle(id).facts()))
	e.mu.Lock()
	status, ok := e.statuses[id]
	e.mu.Unlock()
	if ok {
		c.see(status)
	} else {
		c.lose() // never started, as far as anybody knows, or its status is lost
	}
	return c
}

// Close implements pool.Engine. If no container is left the keeper ends too, and the empty control groups go.
func (e *Engine) Close() error {
	e.close.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		idle, err := e.keeper.Leave(ctx)
		e.stop()
		e.watched.Wait()
		if err == nil && idle {
			if err := e.keeper.AwaitGone(ctx); err != nil {
				e.log.Warn("close", "error", err)
			}
			e.groups.At(e.parent()).RemoveEmpty()
			e.groups.At("paddock").RemoveEmpty()
		}
		e.keeper.Close()
	})
	return nil
}
