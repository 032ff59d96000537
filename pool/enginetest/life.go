package enginetest

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"paddock/internal/testenv"
	"paddock/pool"
)

func testCreateConnectDestroy(t *testing.T, s *suite) {
	before := time.Now()
	c, p, spec := s.create(t)
	if c.ID() != spec.ID {
		t.Errorf("id %s, want %s", c.ID(), spec.ID)
	}
	f := c.Facts()
	if f.UID != spec.UID || f.MemoryBytes != spec.MemoryBytes || f.ImageDigest != spec.Image.Digest {
		t.Errorf("facts %+v do not fit %+v", f, spec)
	}
	if f.LimitBytes != spec.MemoryBytes+s.engine.Overhead() {
		t.Errorf("limit %d, want memory %d and overhead %d", f.LimitBytes, spec.MemoryBytes, s.engine.Overhead())
	}
	if f.Created.Before(before.Add(-time.Second)) || f.Created.After(time.Now()) {
		t.Errorf("created %v, not now", f.Created)
	}
	if p != nil {
		p.ask(t, order{Op: "ping"})
	}
	select {
	case <-c.Exited():
		t.Fatalf("it ended by itself: %+v", c.Exit())
	default:
	}
	s.destroy(t, c)
	waitExit(t, c)
}

func testDestroyIsIdempotent(t *testing.T, s *suite) {
	c, _, _ := s.create(t)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	waitExit(t, c)
	if err := c.Kill(); err != nil {
		t.Errorf("killing a dead container: %v", err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := c.Destroy(patience(t)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.destroy(t, c)
	if err := c.Kill(); err != nil {
		t.Errorf("killing a destroyed container: %v", err)
	}
}

func testCreateTwiceFails(t *testing.T, s *suite) {
	c, p, spec := s.create(t)
	if _, err := s.engine.Create(patience(t), spec); err == nil {
		t.Fatal("a second container of the same id was made")
	}
	if p != nil {
		p.ask(t, order{Op: "ping"}) // the first one must not suffer
	}
	s.destroy(t, c)
}

func testCreateRefusesNonsense(t *testing.T, s *suite) {
	for name, change := range map[string]func(*pool.Spec){
		"id":       func(p *pool.Spec) { p.ID = "../../etc/x" },
		"uid":      func(p *pool.Spec) { p.UID = 0 },
		"link dir": func(p *pool.Spec) { p.LinkDir = "relative" },
		"memory":   func(p *pool.Spec) { p.MemoryBytes = 0 },
		"command":  func(p *pool.Spec) { p.Image.Argv = nil },
	} {
		spec := s.spec(t)
		change(&spec)
		if _, err := s.engine.Create(patience(t), spec); err == nil {
			t.Errorf("a container with a bad %s was made", name)
		}
	}
}

func testCreateHonoursDeadline(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec := s.spec(t)
	start := time.Now()
	if _, err := s.engine.Create(ctx, spec); err == nil {
		t.Fatal("a container was made for a caller that is gone")
	}
	if took := time.Since(start); took > testenv.Patience(10*time.Second) {
		t.Errorf("it took %v to notice", took)
	}
	s.sweep(t)
	s.checkNothingLeft(t, spec.ID)
	if s.NoProcesses {
		return
	}
	// in the middle of a start
	for _, after := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		spec := s.spec(t)
		c, err := s.engine.Create(ctx, spec)
		cancel()
		if err == nil {
			s.destroy(t, c)
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Logf("after %v: %v", after, err)
		}
		s.sweep(t)
		s.checkNothingLeft(t, spec.ID)
	}
}

func testCreateFailureLeavesNothing(t *testing.T, s *suite) {
	spec := s.spec(t)
	spec.Image.Argv = []string{"/no/such/program"}
	c, err := s.engine.Create(patience(t), spec)
	if err == nil {
		// gVisor may tell only afterwards
		waitExit(t, c)
		if err := c.Destroy(patience(t)); err != nil {
			t.Fatal(err)
		}
	}
	s.checkNothingLeft(t, spec.ID)
	spec = s.spec(t)
	spec.LinkDir = filepath.Join(s.run, "missing")
	if c, err := s.engine.Create(patience(t), spec); err == nil {
		t.Error("a container without its link directory was made")
		s.destroy(t, c)
	}
	s.checkNothingLeft(t, spec.ID)
}

func testConcurrentLife(t *testing.T, s *suite) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			spec := s.spec(t)
			var d *door
			if !s.NoProcesses {
				d = listen(t, spec)
			}
			c, err := s.engine.Create(patience(t), spec)
			if err != nil {
				t.Error(err)
				return
			}
			if d != nil {
				if err := d.listener.SetDeadline(time.Now().Add(testenv.Patience(20 * time.Second))); err != nil {
					t.Error(err)
				}
				if conn, err := d.listener.Accept(); err != nil {
					t.Errorf("%s does not connect: %v", spec.ID, err)
				} else {
					conn.Close()
				}
			}
			if err := c.Destroy(patience(t)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	left, err := s.engine.List(patience(t))
	if err != nil || len(left) != 0 {
		t.Errorf("%d containers are left, %v", len(left), err)
	}
}

// a controller that starts again finds its containers, controls them and learns how they end
func testAdoption(t *testing.T, s *suite) {
	_, p1, spec1 := s.create(t)
	_, p2, spec2 := s.create(t)
	old, _, spec3 := s.create(t)
	if err := old.Freeze(patience(t)); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	p1.ask(t, order{Op: "ping"}) // it noticed nothing
	found := map[pool.ContainerID]pool.Container{}
	all, err := s.engine.List(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		found[c.ID()] = c
	}
	if len(found) != 3 || found[spec1.ID] == nil || found[spec2.ID] == nil || found[spec3.ID] == nil {
		t.Fatalf("found %v", found)
	}
	for _, spec := range []pool.Spec{spec1, spec2, spec3} {
		if f := found[spec.ID].Facts(); f.UID != spec.UID || f.MemoryBytes != spec.MemoryBytes || f.Created.IsZero() {
			t.Errorf("facts %+v do not fit %+v", f, spec)
		}
	}
	if _, err := s.engine.Create(patience(t), spec1); err == nil {
		t.Error("the id of an adopted container was given again")
	}
	if err := found[spec1.ID].Freeze(patience(t)); err != nil {
		t.Error(err)
	}
	if err := found[spec1.ID].Thaw(patience(t)); err != nil {
		t.Error(err)
	}
	if err := found[spec3.ID].Thaw(patience(t)); err != nil {
		t.Error(err)
	}
	p1.send(t, order{Op: "print", Path: "last words\n", N: 11})
	p1.send(t, order{Op: "exit", N: 5})
	if e := waitExit(t, found[spec1.ID]); !e.Known || e.Code != 5 {
		t.Errorf("exit %+v, want code 5", e)
	} else if string(e.Tail) != "last words\n" {
		t.Errorf("tail %q", e.Tail)
	}
	p2.ask(t, order{Op: "ping"})
	if err := found[spec2.ID].Kill(); err != nil {
		t.Error(err)
	}
	waitExit(t, found[spec2.ID])
	for _, c := range found {
		s.destroy(t, c)
	}
}

// what died while no controller ran is found dead, with its status
func testAdoptionOfTheDead(t *testing.T, s *suite) {
	_, p, spec := s.create(t)
	if err := s.engine.Close(); err != nil {
		t.Fatal(err)
	}
	p.send(t, order{Op: "exit", N: 9})
	if _, err := p.answer(testenv.Patience(10 * time.Second)); err == nil {
		t.Fatal("it answered instead of ending")
	}
	s.engine = s.New(t, s.state)
	all, err := s.engine.List(patience(t))
	if err != nil || len(all) != 1 || all[0].ID() != spec.ID {
		t.Fatalf("found %v, %v", all, err)
	}
	if e := waitExit(t, all[0]); !e.Known || e.Code != 9 {
		t.Errorf("exit %+v, want code 9", e)
	}
	s.destroy(t, all[0])
}

func testExitCodes(t *testing.T, s *suite) {
	for _, code := range []int64{0, 3} {
		c, p, _ := s.create(t)
		p.send(t, order{Op: "exit", N: code})
		if e := waitExit(t, c); !e.Known || e.Code != int(code) || e.Signal != 0 || e.OOMKilled || e.PidsHit || e.HeapAbort {
			t.Errorf("exit %+v, want code %d", e, code)
		}
		s.destroy(t, c)
		if e := c.Exit(); e.Code != int(code) {
			t.Errorf("exit %+v after destruction, want code %d", e, code)
		}
	}
	c, _, _ := s.create(t)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := waitExit(t, c); !e.Known || e.Signal != 9 || e.Code != -1 || e.OOMKilled {
		t.Errorf("exit %+v, want signal 9", e)
	}
	s.destroy(t, c)
}

func testDaemonsDieToo(t *testing.T, s *suite) {
	c, p, _ := s.create(t)
	if a := p.ask(t, order{Op: "daemon"}); a.Error != "" {
		t.Fatal(a.Error)
	}
	p.send(t, order{Op: "exit", N: 0})
	waitExit(t, c)
	s.destroy(t, c) // looks for processes
}
