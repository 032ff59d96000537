package controller

import (
	"context"
	"slices"
	"sync"
	"time"

	"paddock/pool"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes"
)

// Which image the pool makes its containers of follows from the runtime's record and from what is on this machine; nobody tells a
// controller. One that lacks an image of the record goes on with what it has, and says so in its status.

// imagesEvery is how often images that were brought to this machine meanwhile are looked for, while one is missing.
const imagesEvery = time.Second

// imagesInUse is what was put into force last.
type imagesInUse struct {
	mu   sync.Mutex
	plan pool.ImagePlan
}

// followImages keeps the pool's plan in step with the record until ctx ends.
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
		case <-changes.C():
			changes.Take()
		}
		c.useImages()
	}
}

// useImages puts into force what the record says.
func (c *Controller) useImages() {
	own := c.cfg.Pool.Image
	rec := &pb.RuntimeRecord{}
	if v, ok := c.cfg.Catalogue.Runtime(own.Runtime); ok {
		rec = v.Record
	}
	have := []runtimes.Image{own}
	if c.cfg.Images != nil && rec.GetName() != "" {
		have = append(have, slices.DeleteFunc(c.cfg.Images(), func(im runtimes.Image) bool {
			return im.Digest == own.Digest || im.Runtime != own.Runtime
		})...)
	}
	plan := planOf(rec, c.cfg.ID, have)
	c.images.mu.Lock()
	defer c.images.mu.Unlock()
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

// planOf is what a record means for one controller, by the images that it has, its own first.
func planOf(rec *pb.RuntimeRecord, id string, have []runtimes.Image) pool.ImagePlan {
	find := func(digest string) (runtimes.Image, bool) {
		if digest == "" {
			return have[0], true
		}
		i := slices.IndexFunc(have, func(im runtimes.Image) bool { return im.Digest == digest })
		if i < 0 {
			return runtimes.Image{}, false
		}
		return have[i], true
	}
	plan := pool.ImagePlan{Drain: rec.GetDrain(), Rollout: rec.GetRollout().GetId()}
	var ok bool
	if plan.Image, ok = find(rec.GetImage()); !ok {
		if plan.Image, ok = find(rec.GetFormer()); !ok {
			plan.Image = have[0]
		}
	}
	r := rec.GetRollout()
	if state := r.GetState(); state != "canary" && state != "rolling" {
		return plan
	}
	next, ok := find(r.GetImage())
	switch {
	case !ok || next.Digest == plan.Image.Digest:
	case slices.Contains(r.GetMoved(), id):
		plan.Next, plan.Percent, plan.Drain = next, 100, r.GetDrain()
	case r.GetNode() == id && r.GetState() == "canary":
		plan.Next, plan.Percent = next, int(r.GetCanaryPercent())
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
	rollout = c.images.plan.Rollout
	c.images.mu.Unlock()
	have := []runtimes.Image{c.cfg.Pool.Image}
	if c.cfg.Images != nil {
		have = append(have, c.cfg.Images()...)
	}
	for n, im := range have {
		if slices.ContainsFunc(all, func(s *pb.ImageStatus) bool { return s.GetDigest() == im.Digest }) {
			continue
		}
		all = append(all, &pb.ImageStatus{Digest: im.Digest, Runtime: im.Runtime, Version: im.Version, Present: true, Own: n == 0})
	}
	for _, n := range st.Images {
		i := slices.IndexFunc(all, func(s *pb.ImageStatus) bool { return s.GetDigest() == n.Digest })
		if i < 0 {
			i = len(all)
			all = append(all, &pb.ImageStatus{Digest: n.Digest, Runtime: c.cfg.Pool.Image.Runtime})
		}
		s := all[i]
		s.Percent, s.Ready, s.Assigned = int32(n.Percent), int32(n.Ready), int32(n.Assigned)
		s.Made, s.StartFailures, s.Calls, s.Failed, s.Errors = n.Made, n.StartFailures, n.Calls, n.Failed, n.Errors
	}
	return all, rollout
}
