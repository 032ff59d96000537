package cgroup

import (
	"strings"
	"testing"
)

// What spins is not idle because its quota is used up most of the time: looks of 20 ms between its turns see no CPU spent.
func TestRealThrottledSpinnerIsNotIdle(t *testing.T) {
	for name, g := range real(t) {
		if !g.hasQuota() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			narrow(t, g, Limits{CPUMillis: 20}) // 2 ms of each 100
			spin(t, g)
			for range 5 {
				if err := g.AwaitIdle(deadline(t)); err == nil || !strings.Contains(err.Error(), "threads run") {
					t.Errorf("a spinning group is idle: %v", err)
				}
			}
			if err := g.Freeze(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if err := g.Remove(deadline(t)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestRealSleepersAreIdle(t *testing.T) {
	for name, g := range real(t) {
		t.Run(name, func(t *testing.T) {
			startIn(t, g, `sleep 100 & echo up; wait`)
			if err := g.AwaitIdle(deadline(t)); err != nil {
				t.Error(err)
			}
			if err := g.Remove(deadline(t)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// hasQuota says whether the hierarchy has the cpu controller: a v2 mount beside v1 has not.
func (g Group) hasQuota() bool { return !g.fs.v2 || !strings.HasSuffix(g.path, "-h") }

func TestStateOf(t *testing.T) {
	for text, want := range map[string]byte{"1 (a) b) R 1 2": 'R', "1 (R) S 1": 'S', "": 0, "1 (x)": 0} {
		if got := stateOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
