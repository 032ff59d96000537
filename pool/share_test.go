package pool_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// Who uses more than its share of the CPUs yields to the others, until it uses less.
func TestWhoUsesMoreThanItsShareYields(t *testing.T) {
	bubble(t, func(_ *fake.Options, c *pool.Config) { c.CPUs = 1 }, func(r *rig) {
		var calls sync.WaitGroup
		call := func(id tenant.ID, source string) { calls.Go(func() { r.must(id, source) }) }
		call("greedy", "burn; sleep 3s; value 1")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		yields := func(id tenant.ID) bool {
			t.Helper()
			all := r.Containers(id)
			if len(all) != 1 {
				t.Fatalf("%s has %d containers", id, len(all))
			}
			return r.engine.Container(all[0].ID).Yields()
		}
		if yields("greedy") {
			t.Error("it yields, and is alone")
		}
		if used := r.Containers("greedy")[0].CPUUsed; used < 900 || used > 1100 {
			t.Errorf("it burns a CPU, and is shown with %d thousandths", used)
		}
		call("modest", "sleep 1s; value 1")
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if !yields("greedy") || yields("modest") {
			t.Errorf("greedy yields %v, modest %v", yields("greedy"), yields("modest"))
		}
		if n := r.Stats().Yielded; n != 1 {
			t.Errorf("counted %d", n)
		}
		calls.Wait()
		time.Sleep(20 * time.Second) // it is frozen, and burns no more
		call("greedy", "sleep 1s; value 1")
		call("modest", "sleep 1s; value 1")
		calls.Wait()
		if yields("greedy") || yields("modest") {
			t.Error("somebody yields, and nobody uses anything")
		}
	})
}
