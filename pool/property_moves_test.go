package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"paddock/internal/call"
	"paddock/pool"
)

// TestAnyMoves runs random operations against a pool that is one of several: tenants come from other controllers and are given up to
// them, the whole of it is drained and taken back, images are rolled out and back, sandboxes are renewed. On top of what always holds: in the
// end all that lives is of the image that should be, and whoever comes is served.
func TestAnyMoves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // rapid speaks by panics, which must not leave the bubble by themselves
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			w := newWorld(t, rt)
			defer w.over()
			all := w.actions()
			all["spill"] = w.spilled
			all["handover"] = w.handover
			all["warm"] = w.warmUp
			all["retire"] = func(rt *rapid.T) { w.Retire(rapid.Bool().Draw(rt, "on")) }
			all["images"] = w.images
			all["renew"] = w.renew
			rt.Repeat(all)
			w.settle()
			w.end()
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// spilled makes a call that other controllers could take.
func (w *world) spilled(rt *rapid.T) {
	w.make(rt, func(req *call.Request) {
		req.Spill, req.Extra = true, rapid.Bool().Draw(rt, "extra")
		req.AtMost = rapid.IntRange(0, 2).Draw(rt, "at most")
	})
}

func (w *world) handover(rt *rapid.T) {
	given := w.Handover(rapid.SampledFrom(someTenants).Draw(rt, "tenant"), rapid.IntRange(0, 2).Draw(rt, "keep"), pool.CauseSurplus)
	w.heard.mu.Lock()
	defer w.heard.mu.Unlock()
	for _, a := range given {
		if w.heard.assigned[a.Container] != a.Tenant && w.owners[a.Container] != a.Tenant {
			w.rt.Errorf("gave up %s of %s, which nobody had heard of", a.Container, a.Tenant)
		}
	}
}

// beside runs what takes its time.
func (w *world) beside(f func(ctx context.Context, p *pool.Pool)) {
	p := w.Pool
	w.calls.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		f(ctx, p)
	})
}

func (w *world) warmUp(rt *rapid.T) {
	req := w.req(rapid.SampledFrom(someTenants).Draw(rt, "tenant"), "")
	req.Spill, req.Code = true, call.Code{}
	w.beside(func(ctx context.Context, p *pool.Pool) { _ = p.Warm(ctx, req) })
}

func (w *world) images(rt *rapid.T) {
	draw := func(what string) string {
		return rapid.SampledFrom([]string{"image-1", "image-2", "image-3"}).Draw(rt, what)
	}
	w.SetImages(pool.ImagePlan{
		Image: image(draw("image")), Next: image(draw("next")), Percent: rapid.SampledFrom([]int{0, 30, 100}).Draw(rt, "percent"),
		Drain: rapid.Bool().Draw(rt, "drain"), Rollout: draw("rollout"),
	})
}

func (w *world) renew(rt *rapid.T) {
	which := pool.Renewal{Tenant: rapid.SampledFrom(append(someTenants, "")).Draw(rt, "tenant")}
	w.beside(func(ctx context.Context, p *pool.Pool) {
		_ = p.Renew(ctx, which, func(pool.RenewStep) error { return nil })
	})
}

// settle lets everything come to rest, and looks whether it has become what it should.
func (w *world) settle() {
	w.flaky.set(0)
	w.engine.Open("g")
	w.Retire(false)
	w.SetImages(pool.ImagePlan{Image: image("image-4"), Rollout: "last"})
	time.Sleep(3 * time.Minute) // calls take a minute at most, backoffs as well
	synctest.Wait()
	for _, c := range w.engine.Live() {
		if d := c.Facts().ImageDigest; d != "image-4" {
			w.rt.Errorf("%s is of %s when all has been of image-4 for three minutes", c.ID(), d)
		}
	}
	if _, err := w.Do(context.Background(), w.req("newcomer", "value 1"), nil); err != nil {
		w.rt.Errorf("a newcomer, when all is well: %v; of others there are %+v", err, w.Containers(""))
	}
}
