package cgroup

import (
	"strings"
	"sync"
	"testing"

	"paddock/internal/testenv"
)

// Whoever comes after the group is gone knows from the watch how it was, and only then.
func TestRealOOMIsHeardThoughTheGroupIsGone(t *testing.T) {
	for name, g := range real(t) {
		if name == "v2 of hybrid" {
			continue
		}
		for script, want := range map[string]int64{"exec tail /dev/zero": 1, "kill -9 $$": 0, "exit 0": 0} {
			for _, listens := range []bool{true, false} {
				if g.fs.v2 && !listens && want > 0 {
					continue // there a ring says only that the counter is to be read
				}
				one := g.fs.At(g.path + "-" + strings.ReplaceAll(t.Name(), "/", "-"))
				narrow(t, one, Limits{MemoryBytes: 32 << 20})
				w, err := one.WatchOOM()
				if err != nil {
					t.Fatal(err)
				}
				var listening sync.WaitGroup
				if listens {
					listening.Go(w.Listen)
				}
				cmd := startIn(t, one, "echo up; "+script)
				_ = cmd.Wait()
				if err := one.Remove(deadline(t)); err != nil {
					t.Fatal(err)
				}
				if got := w.Kills(); got != want {
					t.Errorf("%s, listened %v: %d kills, want %d", script, listens, got, want)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
				listening.Wait()
			}
		}
	}
}

// When all groups together have run out, only the one that was chosen has been killed.
func TestRealOOMOfAnotherIsNotHeard(t *testing.T) {
	for name, g := range real(t) {
		if name == "v2 of hybrid" {
			continue
		}
		if err := g.Ensure(Limits{MemoryBytes: 32 << 20, SwapBytes: 0, Pids: 100}); err != nil {
			t.Fatal(err)
		}
		hog, other := g.fs.At(g.path+"/hog"), g.fs.At(g.path+"/other")
		bystander := startIn(t, other, "echo up; exec sleep 60")
		w, err := other.WatchOOM()
		if err != nil {
			t.Fatal(err)
		}
		var listening sync.WaitGroup
		listening.Go(w.Listen)
		_ = startIn(t, hog, "echo up; exec tail /dev/zero").Wait()
		if u, err := hog.Usage(); err != nil || u.OOMKills != 1 {
			t.Fatalf("the hog: %+v, %v", u, err)
		}
		testenv.Await(t, "the ring of the group above is told from its own", func() bool { return !w.unexplained() })
		_ = bystander.Process.Kill()
		_ = bystander.Wait()
		if err := other.Remove(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if got := w.Kills(); got != 0 {
			t.Errorf("%d kills of a bystander", got)
		}
		_ = w.Close()
		listening.Wait()
	}
}

func (w *OOMWatch) unexplained() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rings > 0
}
