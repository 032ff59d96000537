package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sys/unix"

	"paddock/pool/cgroup"
)

// Status is what the keeper knows of a container's first process (gVisor: the sandbox process).
type Status struct {
	ID        string
	PID       int    // as this host sees it; 0 = the runtime never said
	StartTime uint64 // of PID, in clock ticks since boot: with it a reused pid is told from ours
	Exited    bool
	Known     bool // Code and Signal are from wait(2); false: lost with a former keeper
	Code      int  // exit code, -1 if a signal ended it
	Signal    int
	Tail      []byte // after Exited: the last output, at most 4 KiB
}

// tailBytes is how much of the last output goes with the status.
const tailBytes = 4 << 10

// keeper is the state of the process. Maps under mu; no I/O under it.
type keeper struct {
	Options
	groups *cgroup.FS
	log    *slog.Logger
	reaper *reaper
	leave  chan struct{} // capacity 1: look whether there is a reason to end

	abandoned bool // everything was killed, since no controller came; guard's, then Main's

	mu       sync.Mutex
	known    map[string]*container
	watchers map[chan Status]struct{}
	engines  int
	left     bool // an engine said that it leaves for good
	// forgotten are the last ids that were dropped. Ids are never used again: a start that arrives after the order to forget
	// it (they come by different connections) must make nothing.
	forgotten *lru.Cache[string, struct{}]
}

const rememberForgotten = 4096

type container struct {
	status Status // under keeper.mu
	out    *output
	exited chan struct{}
	abort  context.CancelFunc // ends a start that is under way; nil for inherited ones
	made   chan struct{}      // closed when no start is under way
}

func newKeeper(o Options, groups *cgroup.FS, log *slog.Logger) (*keeper, error) {
	k := &keeper{
		Options: o, groups: groups, log: log, reaper: newReaper(), leave: make(chan struct{}, 1),
		known: map[string]*container{}, watchers: map[chan Status]struct{}{},
	}
	var err error
	if k.forgotten, err = lru.New[string, struct{}](rememberForgotten); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	if err := k.inherit(); err != nil {
		return nil, fmt.Errorf("keeper: read records: %w", err)
	}
	return k, nil
}

func (k *keeper) recordPath(id string) string { return filepath.Join(k.Dir, id+".json") }
func (k *keeper) fifoPath(id string) string   { return filepath.Join(k.Dir, id+".out") }

// inherit takes over from a keeper that died: its containers are not our children, so that only their end is seen, not
// how they ended.
func (k *keeper) inherit() error {
	paths, err := filepath.Glob(filepath.Join(k.Dir, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var s Status
		if err := json.Unmarshal(text, &s); err != nil || k.recordPath(s.ID) != path {
			k.log.Warn("drop a record that cannot be read", "path", path, "error", err)
			_ = os.Remove(path)
			continue
		}
		out, err := openOutput(k.fifoPath(s.ID))
		if err != nil {
			return err
		}
		c := &container{status: s, out: out, exited: make(chan struct{}), made: make(chan struct{})}
		close(c.made)
		k.known[s.ID] = c
		if s.Exited {
			close(c.exited)
			continue
		}
		go func() {
			awaitStranger(s.PID, s.StartTime)
			k.ended(c, nil)
		}()
	}
	return nil
}

// awaitStranger returns when the process, which is not our child, is gone.
func awaitStranger(pid int, start uint64) {
	if pid <= 0 {
		return
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if now, err := StartTime(pid); err != nil || now != start {
		return
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(fds, 0)
		return n > 0
	})
}

// StartTime reads when a process started, in clock ticks since boot. Zombies count as gone.
func StartTime(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// "pid (comm) S ppid …": comm may contain anything, the last ')' ends it; field 22 of all is the start
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// started enters the pid of a container that the runtime has started and waits for its end in the background.
func (k *keeper) started(c *container, pid int) error {
	exit := k.reaper.claim(pid)
	start, err := StartTime(pid)
	if err != nil {
		start = 0 // ended already: its status is on the way
	}
	k.mu.Lock()
	c.status.PID, c.status.StartTime = pid, start
	s := c.status
	k.mu.Unlock()
	err = k.save(s)
	k.tell(s)
	go func() { // after the beginning is told: the end comes last
		if status, ok := <-exit; ok {
			k.ended(c, &status)
		} else {
			k.ended(c, nil)
		}
	}()
	return err
}

// ended records a container's end, status nil if nobody can know it.
func (k *keeper) ended(c *container, status *syscall.WaitStatus) {
	c.out.drain()
	tail := c.out.bytes()
	tail = tail[max(0, len(tail)-tailBytes):]
	k.mu.Lock()
	if c.status.Exited {
		k.mu.Unlock()
		return
	}
	c.status.Exited, c.status.Tail, c.status.Code = true, tail, -1
	if status != nil {
		c.status.Known = true
		if status.Signaled() {
			c.status.Signal = int(status.Signal())
		} else {
			c.status.Code = status.ExitStatus()
		}
	}
	s := c.status
	_, current := k.known[s.ID]
	k.mu.Unlock()
	if current {
		if err := k.save(s); err != nil {
			k.log.Error("record an exit", "container", s.ID, "error", err)
		}
	}
	k.tell(s)
	close(c.exited)
}

// save writes the record through a temporary name: a reader never sees half of it.
func (k *keeper) save(s Status) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := k.recordPath(s.ID)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// tell sends a change to every connected engine. One that does not read loses its stream and starts over.
func (k *keeper) tell(s Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for w := range k.watchers {
		select {
		case w <- s:
		default:
			delete(k.watchers, w)
			close(w)
		}
	}
}

// forget drops what is known of a container, after ending a start that is under way. One that was never known is no error.
func (k *keeper) forget(ctx context.Context, id string) error {
	k.mu.Lock()
	k.forgotten.Add(id, struct{}{})
	c := k.known[id]
	k.mu.Unlock()
	if c != nil {
		if c.abort != nil {
			c.abort()
		}
		select {
		case <-c.made:
		case <-ctx.Done():
			return fmt.Errorf("container %s is being started: %w", id, ctx.Err())
		}
		k.mu.Lock()
		mine := k.known[id] == c
		if mine {
			delete(k.known, id)
		}
		k.mu.Unlock()
		if mine {
			c.out.close()
		}
	}
	var err error
	for _, path := range []string{k.recordPath(id), k.recordPath(id) + ".new", k.fifoPath(id)} {
		if e := os.Remove(path); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// idle says that no container is alive, as far as the keeper knows.
func (k *keeper) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.known {
		if !c.status.Exited {
			return false
		}
	}
	return true
}
