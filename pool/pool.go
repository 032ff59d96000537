package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"paddock/internal/tenant"
)

type phase uint8

const (
	phaseNew phase = iota
	phaseOpen
	phaseClosing  // Shutdown: nothing new, everything is on its way out
	phaseReleased // Release: nothing new, the containers stay
)

// Pool is the containers of one controller. Make one with New, then Start; end it with Shutdown or Release. Safe for
// concurrent use.
//
// One mutex guards all of its state. Names that end in Locked are called with it held. Nothing slow happens under it: what
// was decided there is put on todo and started by unlock, what observers must hear on notes. The path of a warm call takes
// it twice, briefly.
type Pool struct {
	cfg      Config
	noPolicy tenant.Policy // of containers that are nobody's

	ctx      context.Context // of everything that a Shutdown or Release must interrupt: creates, adoption, sweeps
	cancel   context.CancelFunc
	wake     chan struct{} // the timers' goroutine
	noted    chan struct{} // the observer's goroutine
	released chan struct{} // closed when Release begins
	stopped  chan struct{} // closed at the end of Shutdown or Release
	warm     chan struct{} // closed when the first container is Ready or adopted
	empty    chan struct{} // closed when the pool closes and no container is left
	still    chan struct{} // closed when the pool is released and no call is in flight
	tearing  chan struct{} // semaphore of teardowns
	tasks    sync.WaitGroup
	loops    sync.WaitGroup

	mu         sync.Mutex
	phase      phase
	retired    bool // no new tenants where others can be asked, and no warm containers; see Retire
	halted     bool // the last goroutines are being waited for
	todo       []func()
	notes      []func(Observer)
	timers     timerHeap
	containers map[ContainerID]*container
	states     [numStates]int
	stocks     map[int64]*stock // warm containers by size
	usual      *stock           // of the size that tenants have of whom nothing else was said
	idle       list[*container] // assigned, nothing running; least recently used first
	awake      list[*container] // those of idle that are not frozen
	thaws      list[*container] // frozen, wanted, waiting for memory
	tenants    map[tenant.ID]*tenantState
	uids       *uids

	min, max, maxContainers int

	hurry        chan struct{} // closed when somebody begins to wait for a container; nil while nothing is made ahead
	demand       int           // containers of any size that tenants have paid for and not got
	turn         float64
	committed    int64 // bytes charged
	going        int   // containers in teardown
	goingSize    int64 // their charges
	inflight     int
	waiting      int
	idleSize     int64 // charges of idle
	freezingSize int64 // limits of those that are being frozen

	images    images
	refill    refill
	refilling timer
	sweeping  timer
	sharer    timer                    // looks at who uses the CPUs
	looking   bool                     // one is under way
	destroyed map[ContainerID]struct{} // since the sweep under way began; nil if none is
	counts    counters
}

// parallelTeardowns bounds engine calls of mass drains.
const parallelTeardowns = 8

// New checks c and returns a pool that does nothing yet.
func New(c Config) (*Pool, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Pool{
		cfg:        c,
		wake:       make(chan struct{}, 1),
		noted:      make(chan struct{}, 1),
		released:   make(chan struct{}),
		stopped:    make(chan struct{}),
		warm:       make(chan struct{}),
		empty:      make(chan struct{}),
		still:      make(chan struct{}),
		tearing:    make(chan struct{}, parallelTeardowns),
		containers: map[ContainerID]*container{},
		tenants:    map[tenant.ID]*tenantState{},
		stocks:     map[int64]*stock{},
		images:     newImages(c.Image),
		uids:       newUIDs(c.UIDBase, c.UIDCount),
		min:        c.MinReady, max: c.MaxReady, maxContainers: c.MaxContainers,
		counts: newCounters(),
	}
	p.usual = p.stockLocked(c.MemoryBytes)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.refilling.fire = func(now time.Time) { p.dispatchLocked(now) }
	p.sharer.fire = func(now time.Time) { p.shareLocked(now) }
	p.sweeping.fire = func(now time.Time) { p.tickLocked(now) }
	return p, nil
}

// Start adopts what a former process left, destroys what cannot be adopted and begins to fill the pool. It returns when
// adoption is over; ctx bounds it. Once.
func (p *Pool) Start(ctx context.Context) error {
	for _, dir := range []struct {
		name string
		mode os.FileMode
	}{{"c", 0o711}, {"s", 0o700}, {"s/pool", 0o700}} {
		path := filepath.Join(p.cfg.RunDir, dir.name)
		if err := os.MkdirAll(path, dir.mode); err != nil {
			return fmt.Errorf("pool: start: %w", err)
		}
		if err := os.Chmod(path, dir.mode); err != nil { // MkdirAll is under the umask
			return fmt.Errorf("pool: start: %w", err)
		}
	}
	p.mu.Lock()
	if p.phase != phaseNew {
		p.mu.Unlock()
		return errors.New("pool: already started")
	}
	p.phase = phaseOpen
	p.loops.Add(2)
	p.mu.Unlock()
	go func() { defer p.loops.Done(); p.runTimers() }()
	go func() { defer p.loops.Done(); p.runNotes() }()

	if err := p.adopt(ctx); err != nil {
		return fmt.Errorf("pool: start: %w", err)
	}
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	p.refill.open = true
	p.dispatchLocked(now)
	p.setTimerLocked(&p.sweeping, now.Add(p.cfg.SweepEvery))
	return nil
}

// Ready is closed when the first container is warm.
func (p *Pool) Ready() <-chan struct{} { return p.warm }

// unlock ends a critical section and starts the slow work that was decided in it.
func (p *Pool) unlock() {
	work := p.todo
	if len(work) > 0 {
		p.todo = nil
		p.tasks.Add(len(work)) // under the lock, so that Shutdown cannot wait in between
	}
	tell := len(p.notes) > 0
	p.mu.Unlock()
	if tell {
		kick(p.noted)
	}
	for _, f := range work {
		go func() {
			defer p.tasks.Done()
			f()
		}()
	}
}

// laterLocked starts f in a goroutine of its own once the lock is free. After the end of Shutdown or Release nothing starts
// any more: what late calls of a released pool would have done is the next process's.
func (p *Pool) laterLocked(f func()) {
	if !p.halted {
		p.todo = append(p.todo, f)
	}
}

// dispatchLocked gives what is free to who waits for it, then makes room and makes more. It is called after every event
// that may have freed something: a container Ready or Destroyed, memory given back, a claim paid.
func (p *Pool) dispatchLocked(now time.Time) {
	if p.phase != phaseOpen {
		return
	}
	p.grantLocked(now)
	p.admitThawsLocked()
	if p.demand > 0 || p.thaws.len() > 0 {
		p.makeRoomLocked(now)
	}
	p.refillLocked(now)
	p.replaceWarmLocked(now)
}

// tickLocked is the slow housekeeping of the whole pool.
func (p *Pool) tickLocked(now time.Time) {
	if p.phase != phaseOpen {
		return
	}
	p.forgetTenantsLocked(now)
	p.shedSurplusLocked(now)
	p.forgetStocksLocked(now)
	p.replaceWarmLocked(now)
	if p.destroyed == nil {
		p.destroyed = map[ContainerID]struct{}{}
		p.laterLocked(p.sweep)
	}
	p.setTimerLocked(&p.sweeping, now.Add(p.cfg.SweepEvery))
}
