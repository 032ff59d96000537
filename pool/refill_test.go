package pool_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// While there are enough warm ones left, the next is made after the first call of the tenant that has just come; with
// fewer than half of them left it is made at once.
func TestRefillLeavesTheFirstCallAlone(t *testing.T) {
	const pause = 50 * time.Millisecond
	var made atomic.Int64
	bubble(t, func(o *fake.Options, c *pool.Config) {
		c.MinReady, c.MaxReady, c.CreateParallel = 4, 4, 4
		o.Create = func(context.Context, pool.Spec) error {
			made.Add(1)
			time.Sleep(time.Second)
			return nil
		}
	}, func(r *rig) {
		time.Sleep(time.Minute)
		expect := func(when string, want int64) {
			t.Helper()
			synctest.Wait()
			if n := made.Load(); n != want {
				t.Errorf("%s: %d creations begun, want %d", when, n, want)
			}
		}
		expect("at first", 4)
		r.must("a", "value 1")
		time.Sleep(pause - time.Millisecond)
		r.must("b", "value 1")
		time.Sleep(pause - time.Millisecond)
		expect("two claimed, the last one just now", 4)
		time.Sleep(2 * time.Millisecond)
		expect("after a pause", 6)
		time.Sleep(time.Minute)
		for _, id := range []tenant.ID{"c", "d"} {
			r.must(id, "value 1")
		}
		expect("half are left", 6)
		r.must("e", "value 1")
		expect("fewer than half are left", 9)
	})
}
