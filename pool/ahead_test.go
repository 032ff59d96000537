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

// Warm containers are made behind all that runs, until somebody waits for one, and not for long; who uses more than its share does
// not hurry them.
func TestWhatIsMadeAheadGivesWay(t *testing.T) {
	for _, c := range []struct {
		name   string
		waits  tenant.ID     // asks for one more container
		begins time.Duration // before it is looked at
		want   bool          // what is being made yields then
	}{
		{"nobody waits", "", time.Second, true},
		{"somebody waits", "modest", time.Second, false},
		{"who yields itself waits", "greedy", time.Second, true},
		{"it takes long", "", 2 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var silent bool
			var last pool.ContainerID
			bubble(t, func(o *fake.Options, cfg *pool.Config) {
				cfg.MinReady, cfg.MaxReady, cfg.CPUs = 2, 2, 1
				o.Silent = func(s pool.Spec) bool {
					mu.Lock()
					defer mu.Unlock()
					last = s.ID
					return silent
				}
			}, func(r *rig) {
				r.untilReady(2)
				mu.Lock()
				silent = true
				mu.Unlock()
				var calls sync.WaitGroup
				calls.Go(func() { r.must("greedy", "burn; sleep 1500ms; value 1") })
				calls.Go(func() { r.must("modest", "sleep 1500ms; value 1") })
				time.Sleep(c.begins + 100*time.Millisecond)
				mu.Lock()
				made := r.engine.Container(last)
				silent = false
				mu.Unlock()
				if c.waits != "" {
					req := r.req(c.waits, "value 1")
					req.Fresh = true
					calls.Go(func() { _, _ = r.run(req) })
				}
				synctest.Wait()
				if made.Yields() != c.want {
					t.Errorf("what is being made yields: %v", made.Yields())
				}
				calls.Wait()
			})
		})
	}
}

// What has said HELLO runs like all others.
func TestWhatIsReadyDoesNotYield(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		for _, c := range r.engine.Live() {
			if c.Yields() {
				t.Errorf("%s yields", c.ID())
			}
		}
	})
}
