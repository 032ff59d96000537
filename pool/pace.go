package pool

import (
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// pace measures, while calls of a tenant wait for a slot, how fast slots come free and how long a call holds one. A call that
// could not end before its deadline is refused at once: in a queue, first in and first out, each call would begin just
// before its deadline and be thrown away half done, and the tenant's sandboxes would work for nobody.
type pace struct {
	since time.Time     // when calls began to wait; zero: none does
	until time.Time     // when they last ceased to
	busy  time.Duration // how long calls have waited before since
	freed float64       // slots that came free while calls waited
	// held is how long calls of a code hold a slot, an average, by the code's hash: a tenant's codes differ.
	held map[string]time.Duration
}

const (
	paceLeast  = 250 * time.Millisecond // of waiting, before the measure counts
	paceFreed  = 8                      // slots, likewise
	paceMemory = 4 * time.Second        // of waiting; what is older counts half
	paceStale  = 10 * time.Second       // without waiting, and the measure says nothing any more
	heldWeight = 0.1                    // of the newest call
	heldCodes  = 64                     // known at a time
)

// wait begins a time of waiting, if it has not begun.
func (p *pace) wait(now time.Time) {
	if !p.since.IsZero() {
		return
	}
	if now.Sub(p.until) > paceStale {
		p.busy, p.freed, p.held = 0, 0, nil
	}
	p.since = now
}

// over ends it.
func (p *pace) over(now time.Time) {
	if p.since.IsZero() {
		return
	}
	p.busy += now.Sub(p.since)
	p.since, p.until = time.Time{}, now
}

// free takes in that a slot came free that a call of this code has held, one that ended or one that was given up: of that
// only what it needed at least is known. While nobody waits nothing is measured.
func (p *pace) free(code string, held time.Duration, ended bool, now time.Time) {
	if p.since.IsZero() {
		return
	}
	if p.held == nil || len(p.held) >= heldCodes {
		p.held = map[string]time.Duration{}
	}
	switch known, ok := p.held[code]; {
	case !ok:
		p.held[code] = held
	case ended || held > known:
		p.held[code] = known + time.Duration(heldWeight*float64(held-known))
	}
	if !ended {
		return
	}
	p.freed++
	if p.busy += now.Sub(p.since); p.busy > paceMemory {
		p.busy, p.freed = p.busy/2, p.freed/2
	}
	p.since = now
}

// needs is how long a slot is held by a call of this code that is slower than most; 0 = nobody knows.
func (p *pace) needs(code string) time.Duration {
	held := p.held[code]
	return held + held/4
}

// slot returns how long a call behind n others waits for its slot; ok is false while nobody knows.
func (p *pace) slot(n int, now time.Time) (wait time.Duration, ok bool) {
	busy := p.busy
	if !p.since.IsZero() {
		busy += now.Sub(p.since)
	}
	if p.freed < paceFreed || busy < paceLeast || now.Sub(p.until) > paceStale && p.since.IsZero() {
		return 0, false
	}
	return time.Duration(float64(n+1) * float64(busy) / p.freed), true
}

// hopelessLocked is the refusal of a call that would wait for a slot of its tenant's own containers until it is too late.
func (t *tenantState) hopelessLocked(req *call.Request, now time.Time) *errs.Error {
	if req.Deadline.IsZero() || len(t.live) == 0 || len(t.live) < t.most() || t.claims+t.granting > 0 {
		return nil
	}
	wait, ok := t.pace.slot(t.slots.len(), now)
	if !ok || !now.Add(wait+t.pace.needs(req.Code.Hash)).After(req.Deadline) {
		return nil
	}
	return t.tooBusy(max(wait, time.Second))
}

func (t *tenantState) tooBusy(retry time.Duration) *errs.Error {
	e := errs.New(errs.Limited, "tenant %s is busy: its containers, %d of at most %d, have %d calls each, and the call would "+
		"not end before its deadline; retry later", t.id, len(t.live), t.policy.MaxContainers, t.policy.CallsPerContainer)
	e.Cause, e.RetryAfter = "concurrency", retry
	return e
}

// tooLate says whether a call that has waited for a slot could not end before its deadline if it began now.
func (t *tenantState) tooLate(req *call.Request, now time.Time) bool {
	return !req.Deadline.IsZero() && now.Add(t.pace.needs(req.Code.Hash)).After(req.Deadline)
}
