package fake

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/link/linktest"
)

// Container is a pool.Container that is no more than an agent in this process. Safe for concurrent use.
type Container struct {
	e      *Engine
	spec   pool.Spec
	facts  pool.Facts
	ctx    context.Context // of everything that runs in it
	cancel context.CancelFunc
	exited chan struct{}
	served sync.WaitGroup

	tenant    tenant.ID // who has run in it; guarded by Engine.mu
	destroyed bool      // likewise

	mu       sync.Mutex
	exit     pool.Exit
	dead     bool
	agent    *linktest.Agent // the connected one
	unstick  func()
	thawed   chan struct{} // closed unless frozen
	frozen   bool
	burning  time.Time // since when it burns CPU
	cpu      time.Duration
	oomKills int64
	refused  int64 // forks
	looks    int   // calls of Usage
	yields   bool
	removed  bool
	inner    *conn // in memory
}

var errDestroyed = errors.New("fake: the container is destroyed")

func newContainer(e *Engine, spec pool.Spec) *Container {
	c := &Container{e: e, spec: spec, exited: make(chan struct{}), thawed: make(chan struct{})}
	close(c.thawed)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.facts = pool.Facts{
		UID: spec.UID, ImageDigest: spec.Image.Digest, MemoryBytes: spec.MemoryBytes,
		LimitBytes: spec.MemoryBytes + e.o.OverheadBytes, Created: time.Now(),
	}
	return c
}

// ID implements pool.Container.
func (c *Container) ID() pool.ContainerID { return c.spec.ID }

// Facts implements pool.Container.
func (c *Container) Facts() pool.Facts { return c.facts }

// Exited implements pool.Container.
func (c *Container) Exited() <-chan struct{} { return c.exited }

// Output implements pool.Container.
func (c *Container) Output() []byte { return []byte("fake output\n") }

// Exit implements pool.Container.
func (c *Container) Exit() pool.Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit
}

// Freeze implements pool.Container.
func (c *Container) Freeze(ctx context.Context) error {
	if c.e.o.Freeze != nil {
		if err := c.e.o.Freeze(ctx, c.spec.ID); err != nil {
			return err
		}
	}
	c.checkQuiet()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errDestroyed
	}
	if c.frozen {
		return nil
	}
	c.frozen = true
	c.thawed = make(chan struct{})
	c.spendLocked()
	c.burning = time.Time{}
	if c.agent != nil {
		c.unstick = c.agent.Stick()
	}
	return nil
}

// checkQuiet records a freeze in the middle of a call. In memory only.
func (c *Container) checkQuiet() {
	c.mu.Lock()
	n := c.inner
	c.mu.Unlock()
	if n != nil && n.busy() {
		c.e.mu.Lock()
		defer c.e.mu.Unlock()
		c.e.violateLocked("container %s is frozen while a call runs", c.spec.ID)
	}
}

// Thaw implements pool.Container.
func (c *Container) Thaw(ctx context.Context) error {
	if c.e.o.Thaw != nil {
		if err := c.e.o.Thaw(ctx, c.spec.ID); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errDestroyed
	}
	c.thawLocked()
	return nil
}

func (c *Container) thawLocked() {
	if !c.frozen {
		return
	}
	c.frozen = false
	close(c.thawed)
	if c.unstick != nil {
		c.unstick()
		c.unstick = nil
	}
}

// Frozen says whether it is frozen.
func (c *Container) Frozen() bool { return c.isFrozen() }

func (c *Container) isFrozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frozen
}

// Usage implements pool.Container.
func (c *Container) Usage(context.Context) (pool.Usage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed {
		return pool.Usage{}, errDestroyed
	}
	c.looks++
	c.spendLocked()
	return pool.Usage{MemoryBytes: c.e.o.UsageBytes, CPU: c.cpu, Pids: 1, OOMKills: c.oomKills, PidsRefused: c.refused}, nil
}

// CPU implements pool.Container.
func (c *Container) CPU(context.Context) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed {
		return 0, errDestroyed
	}
	c.spendLocked()
	return c.cpu, nil
}

// Yield implements pool.Container.
func (c *Container) Yield(_ context.Context, yield bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errDestroyed
	}
	c.yields = yield
	return nil
}

// Yields says what Yield was told last.
func (c *Container) Yields() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.yields
}

// SetCPU implements pool.Container.
func (c *Container) SetCPU(ctx context.Context, millis int64) error {
	if c.e.o.SetCPU != nil {
		if err := c.e.o.SetCPU(ctx, c.spec.ID, millis); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errDestroyed
	}
	c.spec.CPUMillis = millis
	return nil
}

// Spec is what it was made of, its CPU as it is now.
func (c *Container) Spec() pool.Spec {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spec
}

// Looks is how often Usage was called.
func (c *Container) Looks() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looks
}

// RefuseFork counts a fork refused at the limit; KillChild a process of it, not the first, killed for want of memory.
func (c *Container) RefuseFork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused++
}

// KillChild is told above.
func (c *Container) KillChild() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.oomKills++
}

// Burn makes it burn a whole CPU until it is frozen.
func (c *Container) Burn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.burning.IsZero() {
		c.burning = time.Now()
	}
}

func (c *Container) spendLocked() {
	if !c.burning.IsZero() {
		t := time.Now()
		c.cpu += t.Sub(c.burning)
		c.burning = t
	}
}

// Kill implements pool.Container.
func (c *Container) Kill() error {
	c.end(pool.Exit{Code: -1, Signal: 9, Known: true})
	return nil
}

// End makes the container's first process end as x says.
func (c *Container) End(x pool.Exit) { c.end(x) }

// end is the end of the process, once.
func (c *Container) end(x pool.Exit) {
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return
	}
	c.dead = true
	c.exit = x
	if x.OOMKilled {
		c.oomKills++
	}
	c.thawLocked()
	c.mu.Unlock()
	c.hangUp() // first, or programs would seem to be cancelled by their callers
	c.cancel()
	close(c.exited)
}

// hangUp ends the connection, as the end of the process does some time before it is told.
func (c *Container) hangUp() {
	c.mu.Lock()
	agent, inner := c.agent, c.inner
	c.mu.Unlock()
	if agent != nil {
		go agent.Close() // the program that ends its own container is waited for by Close
	}
	if inner != nil {
		inner.end(errEOF)
	}
}

// Destroy implements pool.Container.
func (c *Container) Destroy(ctx context.Context) error {
	if c.e.o.Destroy != nil {
		if err := c.e.o.Destroy(ctx, c.spec.ID); err != nil {
			return err
		}
	}
	c.Kill()
	c.served.Wait()
	c.mu.Lock()
	c.removed = true
	c.mu.Unlock()
	c.e.mu.Lock()
	c.destroyed = true
	c.e.mu.Unlock()
	c.e.forget(c)
	return nil
}

// serve starts the agent, which connects again and again until the container ends.
func (c *Container) serve() {
	c.served.Add(1)
	go func() {
		defer c.served.Done()
		if c.e.o.InMemory {
			c.serveInMemory()
			return
		}
		c.serveSocket()
	}()
}

func (c *Container) serveSocket() {
	path := filepath.Join(c.spec.LinkDir, "link")
	for c.ctx.Err() == nil {
		a, err := linktest.Dial(c.ctx, path, linktest.Options{Handler: c.handle, Load: c.load})
		if err != nil {
			select {
			case <-c.ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		if c.connected(a) {
			<-a.Done()
		}
		c.served.Go(a.Close) // which waits for programs that hang until the container's end
	}
}

// connected makes a the agent, unless the container has ended meanwhile.
func (c *Container) connected(a *linktest.Agent) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	c.agent = a
	if c.frozen {
		c.unstick = a.Stick()
	}
	return true
}
