package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool"
)

// Options of an Engine. The zero value is an engine whose containers start at once and talk over real sockets.
type Options struct {
	Isolation     tenant.Isolation // default runc
	OverheadBytes int64
	UsageBytes    int64 // what every container uses; default 10 MiB
	// InMemory makes agents listen for Engine.Listen instead of a socket.
	InMemory bool
	// Create, if set, is called in the middle of every creation: it may take its time, fail it, or panic. An error after which
	// Half(err) is true leaves a dead container behind that List shows.
	Create func(ctx context.Context, spec pool.Spec) error
	// Silent, if set, says whose agent never connects.
	Silent func(spec pool.Spec) bool
	// Freeze, Thaw, Destroy, List, if set, may fail or delay those calls.
	Freeze, Thaw, Destroy func(ctx context.Context, id pool.ContainerID) error
	List                  func(ctx context.Context) error
	// SetCPU, if set, may fail or delay that call.
	SetCPU func(ctx context.Context, id pool.ContainerID, millis int64) error
}

// Engine is a pool.Engine. Safe for concurrent use.
type Engine struct {
	o     Options
	links links

	mu         sync.Mutex
	containers map[pool.ContainerID]*Container
	everMade   map[pool.ContainerID]bool
	uids       map[uint32]pool.ContainerID
	starts     map[call.ID]int
	stepStarts map[call.ID][]StepStart
	gates      map[string]chan struct{}
	violations []string
	most       int
}

// New returns an engine without containers.
func New(o Options) *Engine {
	if o.Isolation == "" {
		o.Isolation = tenant.IsolationRunc
	}
	if o.UsageBytes == 0 {
		o.UsageBytes = 10 << 20
	}
	return &Engine{
		o: o, links: links{at: map[string]*listener{}},
		containers: map[pool.ContainerID]*Container{}, everMade: map[pool.ContainerID]bool{}, uids: map[uint32]pool.ContainerID{},
		starts: map[call.ID]int{}, stepStarts: map[call.ID][]StepStart{}, gates: map[string]chan struct{}{},
	}
}

// Half marks a failed creation that leaves something behind.
type Half struct{ Err error }

func (h Half) Error() string { return "half made: " + h.Err.Error() }

// Name implements pool.Engine.
func (e *Engine) Name() string { return "fake/" + string(e.o.Isolation) }

// Isolation implements pool.Engine.
func (e *Engine) Isolation() tenant.Isolation { return e.o.Isolation }

// Overhead implements pool.Engine.
func (e *Engine) Overhead() int64 { return e.o.OverheadBytes }

// Close implements pool.Engine.
func (e *Engine) Close() error { return nil }

// Create implements pool.Engine.
func (e *Engine) Create(ctx context.Context, spec pool.Spec) (pool.Container, error) {
	c, err := e.enter(spec)
	if err != nil {
		return nil, err
	}
	if e.o.Create != nil {
		err = e.o.Create(ctx, spec)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.end(pool.Exit{Code: 1, Known: true})
		if _, half := err.(Half); !half {
			e.forget(c)
		}
		return nil, err
	}
	if e.o.Silent == nil || !e.o.Silent(spec) {
		c.serve()
	}
	return c, nil
}

// enter checks that nothing of the spec is in use and enters the container.
func (e *Engine) enter(spec pool.Spec) (*Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.everMade[spec.ID] {
		return nil, fmt.Errorf("fake: container %s exists", spec.ID)
	}
	for _, uid := range []uint32{spec.UID, spec.UID + 1} {
		if other, used := e.uids[uid]; used {
			e.violateLocked("uid %d of %s is still %s's", uid, spec.ID, other)
		}
		e.uids[uid] = spec.ID
	}
	c := newContainer(e, spec)
	e.everMade[spec.ID] = true
	e.containers[spec.ID] = c
	e.most = max(e.most, len(e.containers))
	return c, nil
}

func (e *Engine) forget(c *Container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.containers, c.spec.ID)
	for _, uid := range []uint32{c.spec.UID, c.spec.UID + 1} {
		if e.uids[uid] == c.spec.ID {
			delete(e.uids, uid)
		}
	}
}

// List implements pool.Engine.
func (e *Engine) List(ctx context.Context) ([]pool.Container, error) {
	if e.o.List != nil {
		if err := e.o.List(ctx); err != nil {
			return nil, err
		}
	}
	var all []pool.Container
	for _, c := range e.Live() {
		all = append(all, c)
	}
	return all, nil
}

// Live returns all containers that are not destroyed, by id.
func (e *Engine) Live() []*Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*Container, 0, len(e.containers))
	for _, c := range e.containers {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *Container) int { return compare(a.spec.ID, b.spec.ID) })
	return all
}

// Container returns a live container, or nil.
func (e *Engine) Container(id pool.ContainerID) *Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.containers[id]
}

// Most is how many containers there were at once at most.
func (e *Engine) Most() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most
}

// Starts is how often the code of a call has begun to run.
func (e *Engine) Starts(id call.ID) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.starts[id]
}

// Violations lists what must never happen and did.
func (e *Engine) Violations() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.violations)
}

func (e *Engine) violateLocked(format string, args ...any) {
	e.violations = append(e.violations, fmt.Sprintf(format, args...))
}

// Open lets every program that waits at a gate, or comes to it later, pass.
func (e *Engine) Open(gate string) {
	ch := e.gate(gate)
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-ch:
	default:
		close(ch)
	}
}

func (e *Engine) gate(name string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	ch := e.gates[name]
	if ch == nil {
		ch = make(chan struct{})
		e.gates[name] = ch
	}
	return ch
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// began records that a call's code runs in c.
func (e *Engine) began(c *Container, id call.ID, t tenant.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.starts[id]++
	if c.tenant != "" && c.tenant != t {
		e.violateLocked("container %s of tenant %s runs a call of %s", c.spec.ID, c.tenant, t)
	}
	c.tenant = t
	if c.destroyed {
		e.violateLocked("call %s began in container %s after its end", id, c.spec.ID)
	}
	if c.isFrozen() {
		e.violateLocked("call %s began in frozen container %s", id, c.spec.ID)
	}
}
