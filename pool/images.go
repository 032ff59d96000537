package pool

import (
	"cmp"
	"slices"
	"time"

	"paddock/internal/errs"
	"paddock/runtimes"
)

// ImagePlan says of which images containers are made. Containers of other ones are replaced (CauseRollout): warm ones one after the
// other, each once the one before has its replacement; assigned ones once nothing has run in them for rolloutIdle, or, with Drain, as
// soon as their successors are bound and have their code. A container that lives is never changed.
type ImagePlan struct {
	Image runtimes.Image
	// Next gets Percent of what is made; 100: Image is only made where Next cannot be.
	Next    runtimes.Image
	Percent int
	Drain   bool
	// Rollout names what the counts of ImageStats are for: they begin anew when it changes.
	Rollout string
}

// ImageStats counts of one image what has been since the newest change of ImagePlan.Rollout.
type ImageStats struct {
	Digest          string
	Percent         int // of what is made
	Ready, Assigned int // containers
	Made            int64
	StartFailures   int64 // containers that did not become Ready
	Calls           int64 // that have ended
	Failed          int64 // of them, by the sandbox or the platform
	Errors          int64 // of them, by their code
}

// Reasons of the pace at which images change.
const (
	rolloutIdle     = 10 * time.Second
	imageBackoffMin = time.Second
	imageBackoffMax = 30 * time.Second
)

// images is what is made of what. Guarded by Pool.mu.
type images struct {
	plan      ImagePlan
	share     int // hundredths of a container of Next that are owed
	failures  int // of Next, in a row
	notBefore time.Time
	counts    map[string]*ImageStats
}

func newImages(image runtimes.Image) images {
	return images{plan: ImagePlan{Image: image}, counts: map[string]*ImageStats{}}
}

// SetImages puts a plan into force: the next container that is made is as it says.
func (p *Pool) SetImages(plan ImagePlan) {
	p.mu.Lock()
	defer p.unlock()
	m, was := &p.images, p.images.plan
	m.plan = plan
	if plan.Rollout != was.Rollout {
		for digest, n := range m.counts {
			*n = ImageStats{Digest: digest} // containers hold on to them
		}
	}
	if plan.Next.Digest != was.Next.Digest {
		m.share, m.failures, m.notBefore = 100, 0, time.Time{} // the first one that is made is of it
	}
	now := time.Now()
	for _, c := range p.containers {
		if c.state == Assigned {
			p.soonerLocked(&c.timer, now)
		}
	}
	p.dispatchLocked(now)
}

// choose returns of which image the next container is made. An image that fails makes way for the other one.
func (m *images) choose(now time.Time) runtimes.Image {
	plan := &m.plan
	if plan.Percent <= 0 || now.Before(m.notBefore) {
		return plan.Image
	}
	if plan.Percent >= 100 {
		return plan.Next
	}
	if m.share >= 100 {
		m.share -= 100
		return plan.Next
	}
	m.share += plan.Percent
	return plan.Image
}

// old says whether containers of an image are to be replaced.
func (m *images) old(digest string) bool {
	if digest == m.plan.Next.Digest && m.plan.Percent > 0 {
		return false
	}
	return digest != m.plan.Image.Digest || m.plan.Percent >= 100
}

func (m *images) drains() bool { return m.plan.Drain }

func (m *images) count(digest string) *ImageStats {
	n := m.counts[digest]
	if n == nil {
		n = &ImageStats{Digest: digest}
		m.counts[digest] = n
	}
	return n
}

// failed notes a container that was not made, and says whether it was one of the new image: then the other one is still made at once.
func (m *images) failed(digest string, now time.Time) bool {
	m.count(digest).StartFailures++
	if m.plan.Percent <= 0 || digest != m.plan.Next.Digest || digest == m.plan.Image.Digest {
		return false
	}
	m.notBefore = now.Add(backoff(m.failures, imageBackoffMin, imageBackoffMax))
	m.failures++
	m.share = 100
	return true
}

func (m *images) succeeded(digest string) {
	m.count(digest).Made++
	if digest == m.plan.Next.Digest {
		m.failures = 0
	}
}

// ended notes the end of a call. Failures that say nothing of the image are not counted as such.
func (n *ImageStats) ended(e *errs.Error) {
	n.Calls++
	if e == nil {
		return
	}
	switch e.Kind {
	case errs.SandboxLost, errs.Internal:
		n.Failed++
	case errs.UserError, errs.LoadError, errs.Timeout, errs.OutOfMemory:
		n.Errors++
	}
}

func (m *images) stats() []ImageStats {
	m.count(m.plan.Image.Digest)
	if m.plan.Percent > 0 {
		m.count(m.plan.Next.Digest)
	}
	all := make([]ImageStats, 0, len(m.counts))
	for digest, n := range m.counts {
		one := *n
		switch digest {
		case m.plan.Next.Digest:
			one.Percent = m.plan.Percent
		case m.plan.Image.Digest:
			one.Percent = 100 - m.plan.Percent
		default:
			if one == (ImageStats{Digest: digest}) { // of a former rollout
				continue
			}
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b ImageStats) int { return cmp.Compare(a.Digest, b.Digest) })
	return all
}

// countImage adds a container to its image's figures.
func (s *Stats) countImage(c *container) {
	if c.state != Ready && c.state != Assigned {
		return
	}
	i := slices.IndexFunc(s.Images, func(n ImageStats) bool { return n.Digest == c.digest })
	if i < 0 {
		i = len(s.Images)
		s.Images = append(s.Images, ImageStats{Digest: c.digest})
	}
	if c.state == Ready {
		s.Images[i].Ready++
	} else {
		s.Images[i].Assigned++
	}
}

// replaceWarmLocked drains one warm container of a former image, if the one before has its replacement: there are as many as there
// should be, or as there is room for. For a share, one makes way for the first of the new image.
func (p *Pool) replaceWarmLocked(now time.Time) {
	if p.phase != phaseOpen || !p.refill.open || p.demand > 0 {
		return
	}
	if now.Before(p.images.notBefore) {
		p.soonerLocked(&p.refilling, p.images.notBefore)
		return
	}
	for _, s := range p.stocks {
		if s.creating > 0 || s.ready.len() == 0 || s.ready.len() < p.targetLocked(s, now) && p.fitsLocked(s) {
			continue
		}
		for _, c := range p.containers {
			// One that is in no list was granted to a call.
			if c.state == Ready && c.size == s.size && p.makesWay(c) && s.ready.remove(&c.readyNode) {
				p.drainLocked(c, CauseRollout, now)
				p.refillLocked(now)
				return
			}
		}
	}
}

// makesWay says whether a warm container is to go for one of another image.
func (p *Pool) makesWay(c *container) bool {
	m := &p.images
	if m.old(c.digest) {
		return true
	}
	return m.plan.Percent > 0 && m.plan.Percent < 100 && c.digest == m.plan.Image.Digest && m.count(m.plan.Next.Digest).Made == 0
}

// rolloutDue is when a container of a former image goes: a warm one when its turn comes, an assigned one when it is idle.
func rolloutDue(v *view) time.Time {
	switch {
	case !v.old:
		return time.Time{}
	case v.state == Ready:
		return v.created
	case v.drains:
		return v.assigned
	case v.quiet:
		return v.idleSince.Add(rolloutIdle)
	}
	return time.Time{}
}

// quietFor says whether nothing has run in the container for so long.
func (v *view) quietFor(now time.Time, d time.Duration) bool {
	return v.quiet && now.Sub(v.idleSince) >= d
}

// oldFirstLocked says that who takes a warm container now gets one of a former image.
func (p *Pool) oldFirstLocked(s *stock) bool {
	c, ok := s.ready.front()
	return ok && p.images.old(c.digest)
}
