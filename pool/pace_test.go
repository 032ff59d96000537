package pool_test

import (
	"sync"
	"testing"
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool/fake"

	"paddock/pool"
)

// Offered five times what its one container can do, a tenant still gets nearly all of that done: what would end too late is
// refused at once, not when it has waited.
func TestOverloadShedsWhatWouldEndTooLate(t *testing.T) {
	bubble(t, func(*fake.Options, *pool.Config) {}, func(r *rig) {
		r.untilReady(2)
		p := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 4, 1 })
		const (
			capacity = 8 // a second: four at a time, half a second each
			limit    = 2 * time.Second
			length   = 30 * time.Second
		)
		var mu sync.Mutex
		var all sync.WaitGroup
		good, late, refused, waited := 0, 0, 0, 0
		began := time.Now()
		for time.Since(began) < length {
			for range 5 {
				all.Go(func() {
					req := r.req("busy", "sleep 500ms")
					req.Policy, req.Deadline = p, time.Now().Add(limit)
					from := time.Now()
					_, err := r.run(req)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						good++
					case err.Kind == errs.Limited:
						refused++
						if err.RetryAfter < time.Second || err.WhetherStarted() != errs.StartedNo {
							t.Errorf("%+v", err)
						}
						if time.Since(from) > 0 {
							waited++
						}
					default:
						late++
					}
				})
			}
			time.Sleep(time.Second / capacity)
		}
		all.Wait()
		most := int(length.Seconds()) * capacity
		if good < most*9/10 || late > most/20 || refused < 3*most || waited > refused/10 {
			t.Errorf("of %d possible calls %d were done; %d ended too late, %d were refused, %d of them not at once", most, good, late,
				refused, waited)
		}
		if s := r.Stats(); int(s.Shed) != refused {
			t.Errorf("%d shed, %d refused", s.Shed, refused)
		}
		time.Sleep(20 * time.Second) // the measure is stale: a new crowd is not judged by it
		for range 12 {
			all.Go(func() {
				req := r.req("busy", "sleep 500ms")
				req.Policy, req.Deadline = p, time.Now().Add(limit)
				if _, err := r.run(req); err != nil {
					t.Errorf("%v", err)
				}
			})
		}
		all.Wait()
	})
}

// A tenant's codes differ: quick calls with little time are not judged by how long slow ones hold their slots.
func TestSlowCallsDoNotSpeakForQuickOnes(t *testing.T) {
	bubble(t, func(*fake.Options, *pool.Config) {}, func(r *rig) {
		r.untilReady(2)
		p := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 4, 1 })
		var all sync.WaitGroup
		call := func(program string, limit time.Duration) {
			all.Go(func() {
				req := r.req("mixed", program)
				req.Policy, req.Deadline = p, time.Now().Add(limit)
				if _, err := r.run(req); err != nil {
					t.Errorf("%s: %v", program, err)
				}
			})
		}
		for range 12 { // slow ones wait for slow ones: now it is known how long they hold their slots
			call("sleep 5s", 30*time.Second)
		}
		time.Sleep(16 * time.Second)
		for range 20 { // and quick ones wait for quick ones
			for range 6 {
				call("sleep 10ms", time.Second)
			}
			time.Sleep(50 * time.Millisecond)
		}
		all.Wait()
	})
}
