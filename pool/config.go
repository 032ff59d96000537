package pool

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"paddock/internal/tenant"
	"paddock/pool/egress"
	"paddock/runtimes"
)

// Defaults of a Config.
const (
	DefaultMinReady       = 4
	DefaultReadyFactor    = 4    // MaxReady = MinReady × this
	DefaultMaxContainers  = 4096 // frozen containers cost little; the memory budget is the real bound
	DefaultCreateParallel = 2    // more only makes each one slower: a start is mostly CPU
	DefaultUIDBase        = 2_000_000_000
	DefaultUIDCount       = 65536
	DefaultTmpBytes       = 16 << 20
	DefaultMaxAge         = 24 * time.Hour
	DefaultSweepEvery     = 30 * time.Second
	DefaultCreateTimeout  = 60 * time.Second
	DefaultHelloTimeout   = 20 * time.Second
	DefaultAdoptTimeout   = 5 * time.Second
	DefaultEngineTimeout  = 10 * time.Second
	DefaultMaxWaiting     = 1000 // calls of one tenant in the queue
)

// Config is what a Pool is made of. Zero values mean the defaults above unless a field says otherwise.
type Config struct {
	Engine Engine
	Image  runtimes.Image
	RunDir string // on a tmpfs; the pool makes and removes RunDir/c/<id> and RunDir/s/pool/<id>

	UIDBase  uint32 // even
	UIDCount uint32 // host uids from UIDBase on; two per live container

	MinReady       int // warm containers kept whatever the demand; -1 = none
	MaxReady       int // at most so many by demand
	MaxContainers  int // in any state
	CreateParallel int

	MemoryBudgetBytes int64 // 0 = not limited
	ReserveBytes      int64 // of the budget, never given to containers

	MemoryBytes int64 // of a usual container: what the code may use of a tenant whose policy says nothing else
	CPUMillis   int64 // of a warm container; binding gives it its tenant's
	CPUs        int   // that tenants share; 0 = all that this process may use
	TmpBytes    int64
	Pids        int64 // 0 = the engine's default

	MaxAge        time.Duration // of a warm container
	NapAfter      time.Duration // of a warm container under gVisor that nobody claims; -1 = it never naps
	SweepEvery    time.Duration
	CreateTimeout time.Duration // of Engine.Create
	HelloTimeout  time.Duration // from Create's return to HELLO
	AdoptTimeout  time.Duration // from Start to HELLO of a container that was found
	EngineTimeout time.Duration // of every other engine call
	MaxWaiting    int

	// Listen opens a container's link; nil is package link's unix sockets.
	Listen func(dir string, uid, gid uint32) (Listener, error)
	// Egress lets containers out by their tenants' rules; nil = nobody gets out. The pool does not close it.
	Egress *egress.Proxy
	// OpenDoor opens a container's way out; nil is Egress's.
	OpenDoor func(dir string, uid, gid uint32, id ContainerID) (Door, error)

	Observer Observer     // nil = nobody
	Logger   *slog.Logger // nil = discard
}

func (c Config) withDefaults() (Config, error) {
	if c.Engine == nil {
		return c, errors.New("pool: no engine")
	}
	if c.RunDir == "" {
		return c, errors.New("pool: no run directory")
	}
	def(&c.UIDBase, DefaultUIDBase)
	def(&c.UIDCount, DefaultUIDCount)
	if c.UIDBase%2 != 0 || uint64(c.UIDBase)+uint64(c.UIDCount) > 1<<32-1 || c.UIDCount < 2 {
		return c, fmt.Errorf("pool: uids %d+%d: the base must be even and the range must fit into 32 bits", c.UIDBase, c.UIDCount)
	}
	def(&c.MinReady, DefaultMinReady)
	c.MinReady = max(c.MinReady, 0)
	def(&c.MaxReady, c.MinReady*DefaultReadyFactor)
	def(&c.MaxContainers, DefaultMaxContainers)
	c.MaxContainers = min(c.MaxContainers, int(c.UIDCount/2))
	if c.MinReady > c.MaxReady || c.MaxReady > c.MaxContainers {
		c.MaxReady = min(max(c.MinReady, c.MaxReady), c.MaxContainers)
		c.MinReady = min(c.MinReady, c.MaxReady)
	}
	def(&c.CreateParallel, DefaultCreateParallel)
	def(&c.MemoryBytes, tenant.DefaultMemoryBytes)
	def(&c.CPUMillis, tenant.DefaultCPUMillis)
	def(&c.CPUs, runtime.GOMAXPROCS(0))
	def(&c.TmpBytes, DefaultTmpBytes)
	def(&c.MaxAge, DefaultMaxAge)
	def(&c.NapAfter, DefaultNapAfter)
	def(&c.SweepEvery, DefaultSweepEvery)
	def(&c.CreateTimeout, DefaultCreateTimeout)
	def(&c.HelloTimeout, DefaultHelloTimeout)
	def(&c.AdoptTimeout, DefaultAdoptTimeout)
	def(&c.EngineTimeout, DefaultEngineTimeout)
	def(&c.MaxWaiting, DefaultMaxWaiting)
	if one := c.MemoryBytes + c.Engine.Overhead(); c.MemoryBudgetBytes > 0 && one > c.MemoryBudgetBytes-c.ReserveBytes {
		return c, fmt.Errorf("the memory budget of %d MiB, %d MiB of it in reserve, does not hold one sandbox of %d MiB: raise it",
			c.MemoryBudgetBytes>>20, c.ReserveBytes>>20, one>>20)
	}
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OpenDoor == nil && c.Egress != nil {
		c.OpenDoor = openDoors(c.Egress)
	}
	if c.Listen == nil {
		c.Listen = listenLinks(c.Logger)
	}
	return c, nil
}

func (c *Config) linkDir(id ContainerID) string { return filepath.Join(c.RunDir, "c", string(id)) }
func (c *Config) secretDir(id ContainerID) string {
	return filepath.Join(c.RunDir, "s", "pool", string(id))
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
