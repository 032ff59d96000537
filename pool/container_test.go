package pool

import "testing"

// The table as the design draws it; written out again so that an edge cannot slip in.
func TestStateTable(t *testing.T) {
	want := map[[2]State]bool{
		{Creating, Ready}: true, {Ready, Assigned}: true, {Ready, Draining}: true, {Assigned, Draining}: true,
		{Draining, Destroyed}: true, {Failed, Destroyed}: true,
		{Creating, Failed}: true, {Ready, Failed}: true, {Assigned, Failed}: true, {Draining, Failed}: true,
	}
	for from := range numStates {
		for to := range numStates {
			if got := mayBecome(from, to); got != want[[2]State{from, to}] {
				t.Errorf("%s → %s: %v", from, to, got)
			}
		}
	}
}

func TestNoWayBackToReady(t *testing.T) {
	var reach func(from State, seen map[State]bool)
	reach = func(from State, seen map[State]bool) {
		for _, to := range edges[from] {
			if !seen[to] {
				seen[to] = true
				reach(to, seen)
			}
		}
	}
	for _, from := range []State{Ready, Assigned, Draining, Failed, Destroyed} {
		seen := map[State]bool{}
		reach(from, seen)
		if seen[Ready] {
			t.Errorf("%s leads back to ready", from)
		}
	}
}

func TestIllegalEdgePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an assigned container became ready")
		}
	}()
	p := &Pool{}
	p.setStateLocked(&container{state: Assigned}, Ready)
}
