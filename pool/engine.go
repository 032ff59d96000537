package pool

import (
	"bytes"
	"context"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/runtimes"
)

// ContainerID names one container: 128 random bits as 32 hex digits, never reused.
type ContainerID = call.ContainerID

// Spec is what an engine needs to make one container. Nothing in it is a tenant's.
type Spec struct {
	ID    ContainerID
	Image runtimes.Image
	// UID is the host's user id that the container's processes run as, gid alike; UID+1 is reserved with it (an engine with
	// user namespaces maps the container's root there). Never shared by two live containers.
	UID uint32
	// LinkDir is a host directory (0711, root) that the container sees read-only at runtimes.MountPoint. The pool makes it
	// and the sockets in it before Create and removes it after Destroy.
	LinkDir     string
	MemoryBytes int64 // what the tenant's code may use, tmpfs included; the engine adds its isolation's overhead on top
	CPUMillis   int64 // 1000 = one CPU; SetCPU changes it
	Pids        int64 // 0 = the engine's default for its isolation
	TmpBytes    int64 // size of /tmp
}

// Facts are what an engine knows of a container, also of one that it found and did not make.
type Facts struct {
	UID         uint32
	ImageDigest string
	MemoryBytes int64 // Spec.MemoryBytes
	LimitBytes  int64 // the cgroup's limit: MemoryBytes and overhead
	Created     time.Time
}

// Usage is read from the cgroup's counters.
type Usage struct {
	MemoryBytes int64
	CPU         time.Duration // since the start
	Pids        int64
	OOMKills    int64
	PidsRefused int64 // forks refused at the limit
}

// Exit is how a container ended, from wait status and cgroup counters, never from an exit code alone.
type Exit struct {
	Code      int    // exit code of the first process, -1 if it died of Signal
	Signal    int    // 0 = none
	OOMKilled bool   // the cgroup's counter says so
	HeapAbort bool   // the language runtime aborted for want of heap (wait status of an abort and its own last words)
	PidsHit   bool   // the cgroup's pids counter says so and the container ended of it
	Known     bool   // false: the status was lost (found dead after a restart, say)
	Tail      []byte // last raw output, at most 4 KiB, hostile
}

// SaysHeapIsFull says whether output, hostile, has what V8 prints before it aborts for want of heap. Alone it proves nothing: code
// can print it as well.
func SaysHeapIsFull(output []byte) bool {
	return bytes.Contains(output, []byte("JavaScript heap out of memory"))
}

// Container is one container of an Engine, alive or not. Safe for concurrent use. Every method that takes a context
// honours its deadline even when the runtime below hangs.
type Container interface {
	ID() ContainerID
	Facts() Facts
	// Freeze stops everything in it from running; Thaw undoes it. Both are idempotent. Freeze returns an error when
	// something inside still burns CPU afterwards: the caller destroys it then.
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Usage(ctx context.Context) (Usage, error)
	// SetCPU changes how much CPU all of it together may use, in thousandths of a CPU, frozen or not. It returns nil once the
	// kernel says that it enforces that; after an error either may be in force.
	SetCPU(ctx context.Context, millis int64) error
	// CPU is Usage's CPU alone, for who looks often.
	CPU(ctx context.Context) (time.Duration, error)
	// Yield has all of it run only while nothing else in the other containers wants to, or like the others again.
	Yield(ctx context.Context, yield bool) error
	// Kill sends SIGKILL to all of it, frozen or not, and does not wait. Idempotent.
	Kill() error
	// Exited is closed when the first process is gone; Exit is valid from then on.
	Exited() <-chan struct{}
	Exit() Exit
	// Output returns the newest raw stdio, at most 64 KiB, hostile.
	Output() []byte
	// Destroy kills it and removes all that it was: processes, cgroup, mounts, bundle. It returns nil only when nothing
	// remains, is idempotent, and may be called again after an error. It does not touch Spec.LinkDir.
	Destroy(ctx context.Context) error
}

// Engine makes containers on this machine for one controller and never sees anybody else's. Safe for concurrent use. One
// contract suite, pool/enginetest, runs over every implementation.
type Engine interface {
	// Name is engine and isolation: "oci/gvisor", "oci/runc", "docker/runc".
	Name() string
	Isolation() tenant.Isolation
	// Overhead is the memory per container that the isolation needs on top of Spec.MemoryBytes.
	Overhead() int64
	// Create makes and starts a container and returns when its first process runs. On error nothing of it remains, or
	// List shows what does. A second Create of the same ID fails.
	Create(ctx context.Context, spec Spec) (Container, error)
	// List is the truth: every container of this controller that exists in any form, also dead or half-made ones, also
	// those of a former process.
	List(ctx context.Context) ([]Container, error)
	// Close gives up what the engine holds (connections, watchers) and leaves the containers alone.
	Close() error
}
