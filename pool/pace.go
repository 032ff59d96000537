package pool

import (
	"time"

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
	held  time.Duration // an average
}

const (
	paceLeast  = 250 * time.Millisecond // of waiting, before the measure counts
	paceFreed  = 8                      // slots, likewise
	paceMemory = 4 * time.Second        // of waiting; what is older counts half
	paceStale  = 10 * time.Second       // without waiting, and the measure says nothing any more
	heldWeight = 0.1                    // of the newest call
)

// wait begins a time of waiting, if it has not begun.
func (p *pace) wait(now time.Time) {
	if !p.since.IsZero() {
		return
	}
	if now.Sub(p.until) > paceStale {
		p.busy, p.freed = 0, 0
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

// free takes in that a slot came free which was held for so long, by a call that ended or by one that was given up: of that
// only what it needed at least is known.
func (p *pace) free(held time.Duration, ended bool, now time.Time) {
	if p.held == 0 {
		p.held = held
	} else if ended || held > p.held {
		p.held += time.Duration(heldWeight * float64(held-p.held))
	}
	if p.since.IsZero() || !ended {
		return
	}
	p.freed++
	if p.busy += now.Sub(p.since); p.busy > paceMemory {
		p.busy, p.freed = p.busy/2, p.freed/2
	}
	p.since = now
}

// needs is how long a slot is held by a call that is slower than most.
func (p *pace) needs() time.Duration { return p.held + p.held/4 }

// expect returns how long a call behind n others waits for its slot, and until it ends; ok is false while nobody knows.
func (p *pace) expect(n int, now time.Time) (slot, end time.Duration, ok bool) {
	busy := p.busy
	if !p.since.IsZero() {
		busy += now.Sub(p.since)
	}
	if p.freed < paceFreed || busy < paceLeast || now.Sub(p.until) > paceStale && p.since.IsZero() {
		return 0, 0, false
	}
	slot = time.Duration(float64(n+1) * float64(busy) / p.freed)
	return slot, slot + p.needs(), true
}

// hopelessLocked is the refusal of a call that would wait for a slot of its tenant's own containers until it is too late.
func (t *tenantState) hopelessLocked(deadline, now time.Time) *errs.Error {
	if deadline.IsZero() || len(t.live) == 0 || len(t.live) < t.policy.MaxContainers || t.claims+t.granting > 0 {
		return nil
	}
	slot, end, ok := t.pace.expect(t.slots.len(), now)
	if !ok || !now.Add(end).After(deadline) {
		return nil
	}
	return t.tooBusy(max(slot, time.Second))
}

func (t *tenantState) tooBusy(retry time.Duration) *errs.Error {
	e := errs.New(errs.Limited, "tenant %s is busy: the call would not end before its deadline; retry later", t.id)
	e.Cause, e.RetryAfter = "concurrency", retry
	return e
}

// tooLate says whether a call that has waited for a slot could not end before its deadline if it began now.
func (t *tenantState) tooLate(deadline, now time.Time) bool {
	return !deadline.IsZero() && now.Add(t.pace.needs()).After(deadline)
}
