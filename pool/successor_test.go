package pool_test

import (
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool"
)

// Over the real link the first call in a successor finds its code there.
func TestSuccessorHasTheCode(t *testing.T) {
	r := newRig(t, nil)
	defer r.stop()
	r.untilReady(2)
	one := policy(func(p *tenant.Policy) { p.MaxLife = 300 * time.Millisecond })
	first := pool.ContainerID("")
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		req := r.req("a", "value 1")
		req.Policy = one
		res, err := r.run(req)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = res.Container
			if res.Stages.Load == 0 {
				t.Fatal("the very first call found its code loaded: this test proves nothing")
			}
		}
		if res.Container != first {
			if res.Start != call.StartWarm || res.Stages.Load != 0 {
				t.Errorf("the first call in the successor: %+v", res)
			}
			return
		}
	}
	t.Error("its container was never replaced")
}
