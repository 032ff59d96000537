package pool

import (
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// The claim budget: every container out of the pool costs its tenant a token, so that nobody drains the pool by dying.
// Code that loses containers again and again is quarantined.

// claimWait is how long a call waits for a token. Longer than this, an answer now is worth more than one later.
const claimWait = 2 * time.Second

// bucket is a token bucket; what it holds and how fast it fills is the policy's. Guarded by Pool.mu.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) fill(p *tenant.Policy, now time.Time) {
	if b.at.IsZero() {
		b.tokens = float64(p.ClaimBurst)
	} else {
		b.tokens = min(float64(p.ClaimBurst), b.tokens+now.Sub(b.at).Seconds()*p.ClaimsPerSecond)
	}
	b.at = now
}

func (b *bucket) take(p *tenant.Policy, now time.Time) bool {
	b.fill(p, now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// refund gives back tokens for containers that were not needed after all.
func (b *bucket) refund(p *tenant.Policy, n int) {
	b.tokens = min(float64(p.ClaimBurst), b.tokens+float64(n))
}

// until returns how long it is until n tokens are there.
func (b *bucket) until(p *tenant.Policy, n int, now time.Time) time.Duration {
	b.fill(p, now)
	missing := float64(n) - b.tokens
	if missing <= 0 {
		return 0
	}
	if p.ClaimsPerSecond <= 0 {
		return time.Hour
	}
	return time.Duration(missing / p.ClaimsPerSecond * float64(time.Second))
}

func (b *bucket) full(p *tenant.Policy, now time.Time) bool {
	b.fill(p, now)
	return b.tokens >= float64(p.ClaimBurst)
}

// Quarantine of code.
const (
	strikes       = 3 // losses within strikeWindow
	strikeWindow  = time.Minute
	quarantineMin = 5 * time.Second
	quarantineMax = 5 * time.Minute
	recordLife    = 10 * time.Minute // without a loss, then all is forgiven
	maxRecords    = 256              // per tenant
)

// record is what is held against one code of one tenant.
type record struct {
	losses []time.Time // within strikeWindow
	last   time.Time
	times  int // quarantined so often
	until  time.Time
	// refused says that it has denied access before it ended a container: while it rests nothing may go on without it.
	refused bool
}

// strikeLocked charges the loss of c to the code that ran in it, or to the last that did.
func (p *Pool) strikeLocked(c *container, now time.Time) {
	hashes := map[string]bool{}
	for _, f := range c.calls {
		f.blame(hashes)
	}
	if len(c.calls) == 0 {
		hashes[c.lastHash] = false
	}
	p.strikeHashesLocked(c.tenant, hashes, now)
}

// strikeLingeringLocked charges the end of c to the code that goes on in it although its calls were answered or given up: to make one
// container after the other for it would cost everybody, and it nothing.
func (p *Pool) strikeLingeringLocked(c *container, now time.Time) {
	hashes := map[string]bool{}
	for _, f := range c.calls {
		if f.marks.Load()&flightReturned != 0 {
			f.blame(hashes)
		}
	}
	c.charged = len(hashes) > 0
	p.strikeHashesLocked(c.tenant, hashes, now)
}

// blame adds f's code to what is struck; the value says whether it has denied access before.
func (f *flight) blame(hashes map[string]bool) {
	hash := f.culprit()
	hashes[hash] = hashes[hash] || f.refused
}

// refuseLocked notes that f has denied access: maybe after its container has ended, and its code was struck.
func (f *flight) refuseLocked() {
	f.refused = true
	if r := f.c.tenant.marks[f.culprit()]; r != nil {
		r.refused = true
	}
}

func (p *Pool) strikeHashesLocked(t *tenantState, hashes map[string]bool, now time.Time) {
	for hash, refused := range hashes {
		until := t.strikeHash(hash, now)
		t.marks[hash].refused = t.marks[hash].refused || refused
		if !until.IsZero() {
			id := t.id
			p.noteLocked(func(o Observer) { o.Quarantined(id, hash, until) })
		}
	}
}

// strikeHash charges a loss to code and returns until when that quarantines it, zero if it does not.
func (t *tenantState) strikeHash(hash string, now time.Time) (until time.Time) {
	r := t.marks[hash]
	if r == nil {
		if len(t.marks) >= maxRecords {
			t.forgetOldest()
		}
		if t.marks == nil {
			t.marks = map[string]*record{}
		}
		r = &record{}
		t.marks[hash] = r
	}
	r.last = now
	kept := r.losses[:0]
	for _, at := range r.losses {
		if now.Sub(at) < strikeWindow {
			kept = append(kept, at)
		}
	}
	r.losses = append(kept, now)
	if len(r.losses) < strikes {
		return time.Time{}
	}
	r.losses = r.losses[1:] // one more within the window, and it is back
	r.until = now.Add(backoff(r.times, quarantineMin, quarantineMax))
	r.times++
	return r.until
}

func (t *tenantState) forgetOldest() {
	var oldest string
	for hash, r := range t.marks {
		if oldest == "" || r.last.Before(t.marks[oldest].last) {
			oldest = hash
		}
	}
	delete(t.marks, oldest)
}

// forgive drops what is too long ago.
func (t *tenantState) forgive(now time.Time) {
	for hash, r := range t.marks {
		if now.Sub(r.last) > recordLife && now.After(r.until) {
			delete(t.marks, hash)
		}
	}
}

// quarantined returns the refusal of code that has killed too many containers.
func (t *tenantState) quarantined(hash string, now time.Time) *errs.Error {
	r := t.marks[hash]
	if r == nil || !now.Before(r.until) {
		return nil
	}
	e := errs.New(errs.Limited, "this code has ended its sandbox %d times within %s and rests for %s; mend it, or deploy another version",
		strikes, strikeWindow, r.until.Sub(now).Round(time.Second))
	e.Cause, e.Fault, e.RetryAfter = "quarantine", errs.FaultTenant, r.until.Sub(now)
	return e
}

// wantLocked pays for as many containers as the tenant's waiting calls can use and it may have, and puts it in the ring
// of those who wait. What cannot be paid yet is looked at again when the next token is there.
func (p *Pool) wantLocked(t *tenantState, now time.Time) {
	if p.phase != phaseOpen {
		return
	}
	p.trimLocked(t)
	short := false
	for !t.suspects() && t.slots.len() > (t.claims+t.granting)*t.policy.CallsPerContainer && t.mayHold() {
		if short = !t.bucket.take(t.policy, now); short {
			break
		}
		t.claims++
		t.stock.demand++
		p.demand++
	}
	for t.freshes.len() > t.paid && t.mayHold() {
		if short = !t.bucket.take(t.policy, now); short {
			break
		}
		t.paid++
		t.stock.demand++
		p.demand++
	}
	if t.claims+t.paid > 0 {
		t.stock.ring.pushBack(&t.ringNode)
		if t.stock.demand > t.stock.ready.len() {
			p.hurryLocked(t)
		}
	}
	if short {
		p.soonerLocked(&t.timer, now.Add(t.bucket.until(t.policy, 1, now)+time.Millisecond))
	}
}

// trimLocked gives back what was paid for calls that wait no more.
func (p *Pool) trimLocked(t *tenantState) {
	n := 0
	for t.claims > 0 && t.slots.len() <= (t.claims-1)*t.policy.CallsPerContainer {
		t.claims--
		n++
	}
	if over := t.paid - t.freshes.len(); over > 0 {
		t.paid -= over
		n += over
	}
	t.stock.demand -= n
	p.demand -= n
	t.bucket.refund(t.policy, n)
	if t.claims+t.paid == 0 {
		t.stock.ring.remove(&t.ringNode)
	}
}

// budgetLocked returns the refusal of a call that would wait too long for a token and has nothing else to wait for.
func (t *tenantState) budgetLocked(fresh bool, deadline, now time.Time) *errs.Error {
	ahead := t.freshes.len() - t.paid // that wait for a token
	if !fresh {
		if len(t.live)+t.granting+t.claims > 0 || t.slots.len() > 0 {
			return nil
		}
	}
	d := t.bucket.until(t.policy, ahead+1, now)
	if d == 0 || d <= claimWait && now.Add(d).Before(deadline) {
		return nil
	}
	e := errs.New(errs.Limited, "too many new sandboxes: this tenant may take %d at once and %g a second; retry in %s",
		t.policy.ClaimBurst, t.policy.ClaimsPerSecond, d.Round(time.Millisecond))
	e.Cause, e.RetryAfter = "claims", d
	return e
}
