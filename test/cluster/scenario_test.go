package cluster

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/placement"
	"paddock/internal/tenant"
)

// scenario runs f in a world, in virtual time.
func scenario(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		time.Sleep(5 * time.Second) // pools are warm, routers have probed
		f(w)
		w.end()
	})
}

// inOrder returns the machines as a tenant's calls would try them.
func (w *world) inOrder(t tenant.ID) (all []*machine) {
	candidates := make([]placement.Candidate, len(w.machines))
	for i, m := range w.machines {
		candidates[i] = placement.Candidate{ID: m.id, Weight: perMachine}
	}
	for _, at := range placement.Rank(t, candidates) {
		all = append(all, w.machines[at])
	}
	return all
}

// fill makes so many calls of a tenant's that each hold a slot for a while, one after the other.
func (w *world) fill(tenant string, n int) {
	for range n {
		w.begin(w.fronts[0], tenant, "sleep 2s", 10*time.Second)
		synctest.Wait()
	}
}

// must makes a call through each router, which must not fail, beside everything else.
func (w *world) must(tenant string) {
	for i, f := range w.fronts {
		w.calls.Go(func() {
			if a := w.ask(f, tenant, "sleep 500ms", 10*time.Second); a.Code != http.StatusOK {
				w.rt.Errorf("a call of %s by router %d: %d %s", tenant, i, a.Code, a.Body)
			}
		})
	}
}

// wants fails unless a tenant has so many containers.
func (w *world) wants(tenant, when string, n int) {
	if where, got := w.holds(tenant); got != n {
		w.rt.Errorf("%s %s has %d containers, want %d:%s\n%s", when, tenant, got, n, where, w.log.String())
	}
}

// While the store is away three machines bind a tenant, none because the others were full: two give it up.
func TestThreeThatBoundTheSameTenant(t *testing.T) {
	scenario(t, func(w *world) {
		order := w.inOrder("cat")
		w.setAway(true) // or the first two would be seen at once
		for _, m := range order {
			for _, o := range order {
				o.setUnheard(o != m)
			}
			time.Sleep(5 * time.Second) // the routers see who answers
			w.fill("cat", 1)
		}
		w.wants("cat", "while each router sees one machine,", 3)
		w.heal()
		time.Sleep(10 * time.Second)
		w.wants("cat", "ten seconds after,", 1)
	})
}

// A tenant has all the containers that it may have, and the machine of one of them is out of the routers' reach: another one takes its
// place. When the machine is back, there is one too many, although each but the first was added because the others were full.
func TestMoreThanTheMaximum(t *testing.T) {
	scenario(t, func(w *world) {
		home := w.inOrder("cat")[0]
		w.fill("cat", 3)
		w.wants("cat", "busy,", 2)
		home.setUnheard(true)
		time.Sleep(5 * time.Second)
		w.fill("cat", 3)
		w.wants("cat", "with its home out of reach,", 3)
		w.heal()
		for range 50 { // the surplus goes meanwhile
			w.must("cat")
			time.Sleep(200 * time.Millisecond)
		}
		w.wants("cat", "ten seconds after,", 2)
	})
}
