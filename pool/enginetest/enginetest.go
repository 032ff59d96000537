// Package enginetest is the contract of pool.Engine as a test suite: each engine's own tests run it over the real thing.
// It sees a container from the host (processes, control groups, mounts) and from inside, through a small probe that is the
// image's only file. It tests no agent, no pool and no tenant.
package enginetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/runtimes"
)

// State is what an engine of one controller keeps between restarts. All of it belongs to one test.
type State struct {
	Dir               string // root-only, on a tmpfs
	ControllerID      string
	LockFile          string // held by the test, as the controller holds it
	MemoryBudgetBytes int64
}

// Options say how to make the engine, and what it cannot do by design.
type Options struct {
	// New makes an engine. The suite closes it. A second call with the same State is a controller's restart.
	New func(t *testing.T, s State) pool.Engine
	// Image is what containers run; nil: the probe.
	Image func(t *testing.T) runtimes.Image
	// Group is where the engine puts a container; nil: paddock/<controller id>/<container id>.
	Group func(t *testing.T, s State, id pool.ContainerID) cgroup.Group
	// NoProcesses: nothing really runs (a fake). Only what concerns the life of a container is tested.
	NoProcesses bool
	// NoUserNamespace: the container's users are the host's (Docker).
	NoUserNamespace bool
}

// Run runs the whole suite as subtests.
func Run(t *testing.T, o Options) {
	if o.Image == nil {
		o.Image = ProbeImage
	}
	if o.Group == nil {
		o.Group = func(t *testing.T, s State, id pool.ContainerID) cgroup.Group {
			groups, err := cgroup.Detect()
			if err != nil {
				t.Fatal(err)
			}
			return groups.At("paddock/" + s.ControllerID + "/" + string(id))
		}
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *suite)
		real bool // needs processes
	}{
		{"CreateConnectDestroy", testCreateConnectDestroy, false},
		{"DestroyIsIdempotent", testDestroyIsIdempotent, false},
		{"CreateTwiceFails", testCreateTwiceFails, false},
		{"CreateRefusesNonsense", testCreateRefusesNonsense, true},
		{"CreateHonoursDeadline", testCreateHonoursDeadline, false},
		{"CreateFailureLeavesNothing", testCreateFailureLeavesNothing, true},
		{"ConcurrentLife", testConcurrentLife, false},
		{"Adoption", testAdoption, true},
		{"AdoptionOfTheDead", testAdoptionOfTheDead, true},
		{"ExitCodes", testExitCodes, true},
		{"KillWorksFrozen", testKillWorksFrozen, true},
		{"FreezeStopsEverything", testFreezeStopsEverything, true},
		{"LimitsAreReal", testLimitsAreReal, true},
		{"CPUChanges", testCPUChanges, true},
		{"OutOfMemory", testOutOfMemory, true},
		{"PidsLimit", testPidsLimit, true},
		{"OutputIsBounded", testOutputIsBounded, true},
		{"DaemonsDieToo", testDaemonsDieToo, true},
		{"PostureFromHost", testPostureFromHost, true},
		{"PostureFromInside", testPostureFromInside, true},
		{"SystemCalls", testSystemCalls, true},
		{"Node", testNode, true},
	} {
		if o.NoProcesses && c.real {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.test(t, newSuite(t, o)) })
	}
}

// suite is one test's engine and surroundings.
type suite struct {
	Options
	state  State
	run    string // tmpfs
	image  runtimes.Image
	uid    uint32
	engine pool.Engine

	mu sync.Mutex
}

func newSuite(t *testing.T, o Options) *suite {
	t.Helper()
	s := &suite{Options: o, run: testenv.RunDir(t), uid: testenv.UID(t), image: o.Image(t)}
	s.state = State{
		Dir: filepath.Join(s.run, "s"), ControllerID: testenv.ControllerID(t), LockFile: filepath.Join(s.run, "lock"),
		MemoryBudgetBytes: 4 << 30,
	}
	if err := os.Mkdir(s.state.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(s.state.LockFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	s.engine = o.New(t, s.state)
	t.Cleanup(func() {
		s.sweep(t)
		if err := s.engine.Close(); err != nil {
			t.Error(err)
		}
		lock.Close()
	})
	return s
}

// restart replaces the engine, as a controller that starts again does.
func (s *suite) restart(t *testing.T) {
	t.Helper()
	if err := s.engine.Close(); err != nil {
		t.Fatal(err)
	}
	s.engine = s.New(t, s.state)
}

// sweep destroys what a test left, and fails it if that cannot be done.
func (s *suite) sweep(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience(30*time.Second))
	defer cancel()
	left, err := s.engine.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, c := range left {
		if err := c.Destroy(ctx); err != nil {
			t.Error(err)
		}
	}
}

// patience is a context for what must work soon.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience(30*time.Second))
	t.Cleanup(cancel)
	return ctx
}

// spec is a container of ordinary size with a link directory of its own.
func (s *suite) spec(t *testing.T) pool.Spec {
	t.Helper()
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	uid := s.uid
	s.uid += 2
	s.mu.Unlock()
	id := pool.ContainerID(hex.EncodeToString(b[:]))
	dir := filepath.Join(s.run, "c", string(id))
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o711); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	return pool.Spec{
		ID: id, Image: s.image, UID: uid, LinkDir: dir,
		MemoryBytes: 128 << 20, CPUMillis: 1000, TmpBytes: 16 << 20,
	}
}

// create makes a container whose probe answers.
func (s *suite) create(t *testing.T, change ...func(*pool.Spec)) (pool.Container, *probe, pool.Spec) {
	t.Helper()
	spec := s.spec(t)
	for _, f := range change {
		f(&spec)
	}
	var door *door
	if !s.NoProcesses {
		door = listen(t, spec)
	}
	c, err := s.engine.Create(patience(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	if s.NoProcesses {
		return c, nil, spec
	}
	return c, door.accept(t, c), spec
}

// destroy destroys and checks that nothing is left.
func (s *suite) destroy(t *testing.T, c pool.Container) {
	t.Helper()
	if err := c.Destroy(patience(t)); err != nil {
		t.Fatal(err)
	}
	s.checkNothingLeft(t, c.ID())
}

func (s *suite) checkNothingLeft(t *testing.T, id pool.ContainerID) {
	t.Helper()
	all, err := s.engine.List(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.ID() == id {
			t.Errorf("container %s is still listed", id)
		}
	}
	if s.NoProcesses {
		return
	}
	if g := s.Group(t, s.state, id); g.Exists() {
		t.Errorf("its control group %s is still there", g.Path())
	}
	for _, trace := range tracesOf(t, string(id)) {
		t.Errorf("left behind: %s", trace)
	}
	if left := find(t, s.state.Dir, string(id)); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// waitExit waits for the end of the first process.
func waitExit(t *testing.T, c pool.Container) pool.Exit {
	t.Helper()
	select {
	case <-c.Exited():
		return c.Exit()
	case <-time.After(testenv.Patience(20 * time.Second)):
		t.Fatalf("container %s does not end; its output: %q", c.ID(), c.Output())
		panic("not reached")
	}
}

func short(b []byte) string {
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return fmt.Sprintf("%q", b)
}
