package controller

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"paddock/controller/rollout"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes"
)

// Which image the pool makes its containers of follows from the runtime's record and from what is on this machine; nobody tells a
// controller. One that lacks an image of the record goes on with what it has, and says so in its status.

// imagesEvery is how often images that were brought to this machine meanwhile are looked for.
const imagesEvery = time.Second

// imagesInUse is what was put into force last, and what there is on this machine, as it was seen last.
type imagesInUse struct {
	mu      sync.Mutex
	plan    pool.ImagePlan
	have    []runtimes.Image // the program's own first
	refused map[string]error // by digest
}

// followImages keeps the pool's plan in step with the record and with what is on this machine until ctx ends.
func (c *Controller) followImages(ctx context.Context) {
	changes := c.cfg.Catalogue.Subscribe()
	defer changes.Close()
	tick := time.NewTicker(imagesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.lookForImages(ctx)
		case <-changes.C():
			changes.Take()
		}
		c.useImages()
	}
}

// lookForImages sees what images are on this machine.
func (c *Controller) lookForImages(ctx context.Context) {
	if c.cfg.Images == nil {
		return
	}
	usable, refused, err := c.cfg.Images(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("runtime images on this machine", "err", err)
		}
		return
	}
	own := c.cfg.Pool.Image
	delete(refused, own.Digest) // this program has built it
	have := append([]runtimes.Image{own}, slices.DeleteFunc(usable, func(im runtimes.Image) bool {
		return im.Digest == own.Digest || im.Runtime != own.Runtime
	})...)
	c.images.mu.Lock()
	defer c.images.mu.Unlock()
	for digest, why := range refused {
		if was := c.images.refused[digest]; was == nil || was.Error() != why.Error() {
			c.log.Error("a runtime image is refused: no container is made of it", "image", digest, "err", why)
		}
	}
	c.images.have, c.images.refused = have, refused
}

// useImages puts into force what the record says.
func (c *Controller) useImages() {
	own := c.cfg.Pool.Image
	rec := &pb.RuntimeRecord{}
	if v, ok := c.cfg.Catalogue.Runtime(own.Runtime); ok {
		rec = v.Record
	}
	c.images.mu.Lock()
	defer c.images.mu.Unlock()
	plan := c.images.planOf(rec, c.cfg.ID, own)
	was := c.images.plan
	if samePlan(was, plan) {
		return
	}
	c.images.plan = plan
	c.pool.SetImages(plan)
	c.log.Info("runtime images", "image", plan.Image.Digest, "next", plan.Next.Digest, "percent", plan.Percent, "drain", plan.Drain,
		"rollout", plan.Rollout)
}

func samePlan(a, b pool.ImagePlan) bool {
	return a.Image.Digest == b.Image.Digest && a.Next.Digest == b.Next.Digest && a.Percent == b.Percent && a.Drain == b.Drain && a.Rollout == b.Rollout
}

// planOf is what a record means for one controller, by the images that it has.
func (m *imagesInUse) planOf(rec *pb.RuntimeRecord, id string, own runtimes.Image) pool.ImagePlan {
	find := func(digest string) runtimes.Image {
		if i := slices.IndexFunc(m.have, func(im runtimes.Image) bool { return im.Digest == digest }); i >= 0 {
			return m.have[i]
		}
		return runtimes.Image{}
	}
	p := rollout.PlanOf(rec, id, own.Digest, func(digest string) bool { return find(digest).Digest != "" })
	plan := pool.ImagePlan{Image: own, Next: find(p.Next), Percent: p.Percent, Drain: p.Drain, Rollout: rec.GetRollout().GetId()}
	if p.Image != own.Digest {
		plan.Image = find(p.Image)
	}
	if p.Next == own.Digest {
		plan.Next = own
	}
	return plan
}

// currentImage is what most containers are made of.
func (c *Controller) currentImage() string {
	c.images.mu.Lock()
	defer c.images.mu.Unlock()
	if c.images.plan.Percent >= 100 {
		return c.images.plan.Next.Digest
	}
	return c.images.plan.Image.Digest
}

// imageStatus is what the images of this machine have done since the newest rollout began.
func (c *Controller) imageStatus(st pool.Stats) (all []*pb.ImageStatus, rollout string) {
	c.images.mu.Lock()
	defer c.images.mu.Unlock()
	of := func(digest string) *pb.ImageStatus {
		i := slices.IndexFunc(all, func(s *pb.ImageStatus) bool { return s.GetDigest() == digest })
		if i < 0 {
			i = len(all)
			all = append(all, &pb.ImageStatus{Digest: digest, Runtime: c.cfg.Pool.Image.Runtime})
		}
		return all[i]
	}
	for n, im := range c.images.have {
		s := of(im.Digest)
		s.Version, s.Present, s.Own = im.Version, true, n == 0
	}
	for _, digest := range slices.Sorted(maps.Keys(c.images.refused)) {
		of(digest).Problem = c.images.refused[digest].Error()
	}
	for _, n := range st.Images {
		s := of(n.Digest)
		s.Percent, s.Ready, s.Assigned = int32(n.Percent), int32(n.Ready), int32(n.Assigned)
		s.Made, s.StartFailures, s.Calls, s.Failed, s.Errors = n.Made, n.StartFailures, n.Calls, n.Failed, n.Errors
	}
	return all, c.images.plan.Rollout
}
