package enginetest

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/cgroup"
)

// cpuOver measures what a container burns in d.
func cpuOver(t *testing.T, c pool.Container, d time.Duration) time.Duration {
	t.Helper()
	before, err := c.Usage(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	time.Sleep(d) // the measured interval itself
	after, err := c.Usage(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(float64(after.CPU-before.CPU) * float64(d) / float64(time.Since(began))) // a loaded machine sleeps longer
}

func testFreezeStopsEverything(t *testing.T, s *suite) {
	c, p, _ := s.create(t)
	for range 3 {
		for range 2 { // idempotent
			if err := c.Freeze(patience(t)); err != nil {
				t.Fatal(err)
			}
		}
		if burned := cpuOver(t, c, 100*time.Millisecond); burned > time.Millisecond {
			t.Errorf("frozen, it burned %v of 100ms", burned)
		}
		if _, err := p.try(order{Op: "ping"}, 50*time.Millisecond); err == nil {
			t.Fatal("a frozen container answers")
		}
		for range 2 {
			if err := c.Thaw(patience(t)); err != nil {
				t.Fatal(err)
			}
		}
		// the answer to the ping that it slept through
		if _, err := p.answer(testenv.Patience(10 * time.Second)); err != nil {
			t.Fatalf("thawed, it does not answer: %v", err)
		}
		p.ask(t, order{Op: "ping"})
	}
	// what cannot be stopped must be told
	p.ask(t, order{Op: "spin", N: 1})
	// on a busy machine it gets its turn late
	for end := time.Now().Add(testenv.Patience(10 * time.Second)); cpuOver(t, c, 200*time.Millisecond) < 20*time.Millisecond; {
		if time.Now().After(end) {
			t.Fatal("the spinning container burns nothing: the test shows nothing")
		}
	}
	if err := c.Freeze(patience(t)); err != nil {
		if s.engine.Isolation() != tenant.IsolationGVisor {
			t.Fatal(err)
		}
		t.Logf("gVisor: %v", err)
	} else if burned := cpuOver(t, c, 100*time.Millisecond); burned > time.Millisecond {
		t.Errorf("Freeze returned nil, yet it burned %v of 100ms", burned)
	}
	s.destroy(t, c) // frozen and spinning
}

func testKillWorksFrozen(t *testing.T, s *suite) {
	for _, destroyOnly := range []bool{false, true} {
		c, _, _ := s.create(t)
		if err := c.Freeze(patience(t)); err != nil {
			t.Fatal(err)
		}
		if !destroyOnly {
			if err := c.Kill(); err != nil {
				t.Fatal(err)
			}
			if e := waitExit(t, c); !e.Known || e.Signal != 9 {
				t.Errorf("exit %+v, want signal 9", e)
			}
		}
		s.destroy(t, c)
	}
}

func testLimitsAreReal(t *testing.T, s *suite) {
	c, p, spec := s.create(t, func(p *pool.Spec) { p.CPUMillis = 250 })
	groups, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	g := s.Group(t, s.state, spec.ID)
	l, err := g.Limits()
	if err != nil {
		t.Fatal(err)
	}
	if l.MemoryBytes != spec.MemoryBytes+s.engine.Overhead() || l.CPUMillis != 250 || l.Pids <= 0 || l.SwapBytes > 0 {
		t.Errorf("limits %+v do not fit %+v", l, spec)
	}
	parent, err := groups.At("paddock/" + s.state.ControllerID).Limits()
	if err != nil {
		t.Fatal(err)
	}
	if parent.MemoryBytes != s.state.MemoryBudgetBytes {
		t.Errorf("all containers together may use %d bytes, want %d", parent.MemoryBytes, s.state.MemoryBudgetBytes)
	}
	p.ask(t, order{Op: "spin", N: 2})
	if burned := cpuOver(t, c, time.Second); burned > 400*time.Millisecond {
		t.Errorf("a quarter of a CPU burned %v in 1s", burned)
	}
	u, err := c.Usage(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	if u.MemoryBytes <= 0 || u.Pids <= 0 || u.OOMKills != 0 || u.PidsRefused != 0 {
		t.Errorf("usage %+v", u)
	}
	// /tmp is as large as was said, in bytes and (where the kernel is the host's) in files, and charged to the container
	a := p.ask(t, order{Op: "write", Path: "/tmp/big", N: spec.TmpBytes})
	if a.N < spec.TmpBytes-(1<<20) {
		t.Errorf("/tmp took only %d bytes: %s", a.N, a.Error)
	}
	if a = p.ask(t, order{Op: "write", Path: "/tmp/more", N: 2 << 20}); a.Errno != unix.ENOSPC {
		t.Errorf("/tmp took %d bytes more: %s", a.N, a.Error)
	}
	p.ask(t, order{Op: "remove", Path: "/tmp/big"})
	p.ask(t, order{Op: "remove", Path: "/tmp/more"})
	if a = p.ask(t, order{Op: "write", Path: "/tmp/big", N: spec.TmpBytes + 1}); a.Error == "" {
		t.Error("a file larger than RLIMIT_FSIZE was written")
	}
	p.ask(t, order{Op: "remove", Path: "/tmp/big"})
	if s.engine.Isolation() == tenant.IsolationRunc {
		if a = p.ask(t, order{Op: "mkfiles", Path: "/tmp", N: 5000}); a.Errno != unix.ENOSPC {
			t.Errorf("%d files in /tmp: %s", a.N, a.Error)
		}
	}
	s.destroy(t, c)
}

// testCPUChanges changes the limit while code runs, while all is frozen, and of a container that was found.
func testCPUChanges(t *testing.T, s *suite) {
	c, p, spec := s.create(t)
	group := s.Group(t, s.state, spec.ID)
	enforced := func(want int64) {
		t.Helper()
		if l, err := group.Limits(); err != nil || l.CPUMillis != want || l.MemoryBytes != spec.MemoryBytes+s.engine.Overhead() {
			t.Errorf("%v; limits %+v, want %d thousandths and the memory as it was", err, l, want)
		}
	}
	set := func(want int64) {
		t.Helper()
		if err := c.SetCPU(patience(t), want); err != nil {
			t.Fatal(err)
		}
		enforced(want)
	}
	p.ask(t, order{Op: "spin", N: 2})
	set(250)
	if burned := cpuOver(t, c, time.Second); burned > 400*time.Millisecond {
		t.Errorf("a quarter of a CPU burned %v in 1s", burned)
	}
	set(2000)
	if s.engine.Isolation() == tenant.IsolationRunc { // what spins cannot be frozen under gVisor
		if err := c.Freeze(patience(t)); err != nil {
			t.Fatal(err)
		}
		set(500)
		if err := c.Thaw(patience(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, yield := range []bool{true, true, false} {
		if err := c.Yield(patience(t), yield); err != nil {
			t.Fatal(err)
		}
		if is, err := group.Idle(); !errors.Is(err, fs.ErrNotExist) && (err != nil || is != yield) {
			t.Errorf("told to yield %v, the group does %v, %v", yield, is, err)
		}
	}
	if u, err := c.CPU(patience(t)); err != nil || u <= 0 {
		t.Errorf("CPU is %v, %v", u, err)
	}
	if err := c.SetCPU(patience(t), 0); err == nil {
		t.Error("no CPU at all was taken for a limit")
	}
	set(300)
	s.restart(t)
	all, err := s.engine.List(patience(t))
	if err != nil || len(all) != 1 {
		t.Fatalf("%d containers, %v", len(all), err)
	}
	c = all[0]
	enforced(300)
	set(100)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	waitExit(t, c)
	s.destroy(t, c)
	if err := c.SetCPU(patience(t), 100); err == nil {
		t.Error("a container that is gone took a limit")
	}
	if err := c.Yield(patience(t), true); err == nil {
		t.Error("a container that is gone yields")
	}
}

func testOutOfMemory(t *testing.T, s *suite) {
	c, p, spec := s.create(t)
	other, q, _ := s.create(t)
	p.send(t, order{Op: "alloc", N: (spec.MemoryBytes + s.engine.Overhead()) >> 20 * 2})
	e := waitExit(t, c)
	if !e.OOMKilled || !e.Known {
		t.Errorf("exit %+v, want an OOM kill", e)
	}
	if u, err := c.Usage(patience(t)); err != nil || u.OOMKills == 0 {
		t.Errorf("usage %+v, %v; want the OOM kill counted", u, err)
	}
	q.ask(t, order{Op: "ping"}) // the neighbour notices nothing
	s.destroy(t, c)
	if !c.Exit().OOMKilled {
		t.Error("destruction lost why it ended")
	}
	s.destroy(t, other)
}

func testPidsLimit(t *testing.T, s *suite) {
	c, p, _ := s.create(t, func(spec *pool.Spec) {
		spec.MemoryBytes = 512 << 20
		if s.engine.Isolation() == tenant.IsolationGVisor {
			spec.Pids = 96 // the sentry's own tasks included
		}
	})
	a, err := p.try(order{Op: "spawn", N: 200}, testenv.Patience(20*time.Second))
	if err != nil { // the sentry panics at its limit
		e := waitExit(t, c)
		if !e.PidsHit {
			t.Errorf("exit %+v, want it charged to the pids limit; output %s", e, short(c.Output()))
		}
		s.destroy(t, c)
		return
	}
	if a.Error == "" {
		t.Fatalf("%d processes were started", a.N)
	}
	if u, err := c.Usage(patience(t)); err != nil || u.PidsRefused == 0 {
		t.Errorf("usage %+v, %v; want refused forks", u, err)
	}
	p.ask(t, order{Op: "ping"})
	p.send(t, order{Op: "exit", N: 1})
	if e := waitExit(t, c); !e.PidsHit || e.OOMKilled {
		t.Errorf("exit %+v, want the pids limit", e)
	}
	s.destroy(t, c)
}

func testOutputIsBounded(t *testing.T, s *suite) {
	c, p, _ := s.create(t)
	if a := p.ask(t, order{Op: "print", Path: "small\n", N: 6}); a.Error != "" {
		t.Fatal(a.Error)
	}
	p.send(t, order{Op: "print", Path: "flood ", N: 1 << 40})
	deadline := time.Now().Add(testenv.Patience(20 * time.Second))
	for len(c.Output()) < 60<<10 {
		if time.Now().After(deadline) {
			t.Fatalf("output is %d bytes", len(c.Output()))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := len(c.Output()); n > 64<<10 {
		t.Errorf("output is %d bytes", n)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	e := waitExit(t, c)
	if len(e.Tail) != 4<<10 || !bytes.Contains(e.Tail, []byte("flood flood")) {
		t.Errorf("tail of %d bytes: %s", len(e.Tail), short(e.Tail))
	}
	s.destroy(t, c)
}
