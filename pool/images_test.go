package pool_test

import (
	"testing"
	"testing/synctest"
	"time"

	"paddock/pool"
	"paddock/pool/fake"
	"paddock/runtimes"
)

func image(digest string) runtimes.Image { return runtimes.Image{Runtime: "node", Digest: digest} }

func digests(r *rig) map[string]int {
	all := map[string]int{}
	for _, c := range r.engine.Live() {
		all[c.Facts().ImageDigest]++
	}
	return all
}

// A share of what is made is of the new image; then all of it is, and a tenant moves as it goes idle; back again with drain.
func TestImagesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inMemory)
		defer r.stop()
		r.untilReady(2)
		first := r.must("a", "id").Container
		time.Sleep(time.Second)
		r.SetImages(pool.ImagePlan{Image: image("image-1"), Next: image("image-2"), Percent: 10, Rollout: "r"})
		time.Sleep(2 * time.Second)
		if all := digests(r); all["image-2"] != 1 {
			t.Errorf("canary: %v", all)
		}
		r.SetImages(pool.ImagePlan{Image: image("image-1"), Next: image("image-2"), Percent: 100, Rollout: "r"})
		for range 8 { // busy enough not to be idle
			time.Sleep(5 * time.Second)
			if got := r.must("a", "id").Container; got != first {
				t.Fatalf("moved to %s while it was busy", got)
			}
		}
		time.Sleep(20 * time.Second)
		if all := digests(r); all["image-1"] != 0 {
			t.Errorf("rolled out: %v", all)
		}
		second := r.must("a", "id").Container
		r.SetImages(pool.ImagePlan{Image: image("image-1"), Drain: true, Rollout: "r"})
		for range 40 {
			time.Sleep(time.Second)
			r.must("a", "id")
		}
		if all := digests(r); all["image-2"] != 0 || r.must("a", "id").Container == second {
			t.Errorf("rolled back: %v", all)
		}
	})
}

// On a machine that is full, with fewer warm containers than there should be, those that there are change all the same, one by one.
func TestImagesChangeOnAFullMachine(t *testing.T) {
	for name, edit := range map[string]func(*pool.Config){
		"containers": func(c *pool.Config) { c.MinReady, c.MaxReady, c.MaxContainers = 3, 3, 3 },
		"memory": func(c *pool.Config) {
			c.MinReady, c.MaxReady, c.MemoryBytes, c.MemoryBudgetBytes = 3, 3, 128<<20, 3*128<<20
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(o *fake.Options, c *pool.Config) { inMemory(o, c); edit(c) })
				defer r.stop()
				r.untilReady(3)
				var s served
				busy := r.req("a", "gate g")
				busy.Deadline = time.Now().Add(time.Hour)
				s.run(r, busy)
				r.SetImages(pool.ImagePlan{Image: image("image-2"), Rollout: "r"})
				time.Sleep(time.Minute)
				if all := digests(r); all["image-2"] != 2 || all["image-1"] != 1 {
					t.Errorf("%v, want two warm ones of image-2", all)
				}
				r.engine.Open("g")
				s.wg.Wait()
			})
		})
	}
}
