package rollout

import (
	"slices"

	pb "paddock/proto/paddock/v1"
)

// Plan is what a record means for one controller: the digests of the images that it makes containers of.
type Plan struct {
	Image string
	// Next gets Percent of what is made; "": nothing is on its way here.
	Next    string
	Percent int
	Drain   bool
}

// PlanOf is what a record means for the controller id, whose program has an image of its own, by which others it has.
func PlanOf(rec *pb.RuntimeRecord, id, own string, has func(digest string) bool) Plan {
	find := func(digest string) (string, bool) {
		if digest == "" {
			return own, true
		}
		return digest, digest == own || has(digest)
	}
	plan := Plan{Drain: rec.GetDrain()}
	var ok bool
	if plan.Image, ok = find(rec.GetImage()); !ok {
		if plan.Image, ok = find(rec.GetFormer()); !ok {
			plan.Image = own
		}
	}
	r := rec.GetRollout()
	next, ok := find(r.GetImage())
	switch {
	case !active(r) || !ok || next == plan.Image:
	case slices.Contains(r.GetMoved(), id):
		plan.Next, plan.Percent, plan.Drain = next, 100, r.GetDrain()
	case r.GetNode() == id && r.GetState() == Canary:
		plan.Next, plan.Percent = next, int(r.GetCanaryPercent())
	}
	return plan
}
