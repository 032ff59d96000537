package router

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// admission holds each tenant's token bucket and calls in flight, and bounds the calls of the whole router. State of a
// tenant exists while it has calls in flight or its bucket is not full again. Safe for concurrent use.
type admission struct {
	max int // calls in flight in all

	mu      sync.Mutex
	tenants map[tenant.ID]*admitted
	running int
	sweepAt int // size of tenants at which idle ones are dropped
}

// admitted is one tenant's state, guarded by admission.mu.
type admitted struct {
	policy  *tenant.Policy // that bucket was made for
	bucket  *rate.Limiter
	running int
	streams int // of calls, open
	// strangers are those of running whose callers have no key.
	strangers int
	// retries are what is left of its budget; see spendRetry.
	retries float64
	taken   [2]int // calls admitted in second, and in the one before
	second  int64
}

// count counts a call that is admitted.
func (s *admitted) count(now time.Time) {
	s.turn(now)
	s.taken[0]++
}

// turn makes the current second that of now.
func (s *admitted) turn(now time.Time) {
	switch at := now.Unix(); at - s.second {
	case 0:
	case 1:
		s.taken, s.second = [2]int{0, s.taken[0]}, at
	default:
		s.taken, s.second = [2]int{}, at
	}
}

// The retry budget of a tenant: a lost call is repeated by itself only as long as that makes few calls more, lest a fleet in trouble gets
// more work for it. A refusal that sends a call to the next controller costs nothing: no work was done, and there are three at most.
//
// Source: Google SRE book, "Handling Overload": 10 % per client, three tries.
const (
	retryShare = 0.1 // of the calls
	retryBurst = 10  // repeats at once
)

// spendRetry says whether one more call of a tenant may be repeated.
func (a *admission) spendRetry(s *admitted) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.retries < 1 {
		return false
	}
	s.retries--
	return true
}

// leastSweep keeps small maps from being swept at every turn.
const leastSweep = 1024

func newAdmission(maxRunning int) *admission {
	return &admission{max: maxRunning, tenants: map[tenant.ID]*admitted{}, sweepAt: leastSweep}
}

// strangersShare is the part of a tenant's calls at once that callers without a key may have: its public functions leave room for
// the others.
const strangersShare = 2

// take admits one call of t or says why not, at once. What it took is given back by release. stranger says that the caller has no
// key.
func (a *admission) take(t tenant.ID, p *tenant.Policy, stranger bool, now time.Time) (*admitted, *errs.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running >= a.max {
		e := errs.New(errs.NoCapacity, "the router has %d calls in flight, as many as it takes: try again", a.running)
		e.Cause, e.RetryAfter = "overload", time.Second
		return nil, e
	}
	s := a.stateLocked(t, p, now)
	if s.running >= p.Concurrency {
		e := errs.New(errs.Limited, "tenant %s has %d calls in flight, its limit is %d: try again when one has ended", t,
			s.running, p.Concurrency)
		e.Cause, e.RetryAfter = "concurrency", time.Second
		return nil, e
	}
	if most := max(1, p.Concurrency/strangersShare); stranger && s.strangers >= most {
		e := errs.New(errs.Limited, "tenant %s has %d calls without a key in flight, its limit is %d", t, s.strangers, most)
		e.Cause, e.RetryAfter = "concurrency", time.Second
		return nil, e
	}
	if !s.bucket.AllowN(now, 1) {
		e := errs.New(errs.Limited, "tenant %s may start %g calls a second: wait for as long as Retry-After says", t, p.RatePerSecond)
		e.Cause, e.RetryAfter = "rate", untilToken(s.bucket, now)
		return nil, e
	}
	s.count(now)
	s.running++
	a.running++
	s.retries = min(retryBurst, s.retries+retryShare)
	if stranger {
		s.strangers++
	}
	return s, nil
}

// openStream admits a stream of calls: as many as the tenant may have calls at once, since each can hold a message that is
// still coming. closed gives it back, exactly once.
func (a *admission) openStream(t tenant.ID, p *tenant.Policy, now time.Time) (closed func(), _ *errs.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stateLocked(t, p, now)
	if s.streams >= p.Concurrency {
		e := errs.New(errs.Limited, "tenant %s has %d streams open, its limit is %d: one stream carries many calls", t, s.streams,
			p.Concurrency)
		e.Cause, e.RetryAfter = "concurrency", time.Second
		return nil, e
	}
	s.streams++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		s.streams--
	}, nil
}

// release gives back what take took. Exactly once per take.
func (a *admission) release(s *admitted, stranger bool) {
	a.mu.Lock()
	if stranger {
		s.strangers--
	}
	s.running--
	a.running--
	a.mu.Unlock()
}

// usage returns t's calls in flight, and those that were admitted within the last second that is over.
func (a *admission) usage(t tenant.ID, now time.Time) (running, perSecond int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.tenants[t]
	if s == nil {
		return 0, 0
	}
	s.turn(now)
	return s.running, s.taken[1]
}

func (a *admission) stateLocked(t tenant.ID, p *tenant.Policy, now time.Time) *admitted {
	s := a.tenants[t]
	if s == nil {
		if len(a.tenants) >= a.sweepAt {
			a.sweepLocked(now)
		}
		s = &admitted{policy: p, retries: retryBurst, bucket: rate.NewLimiter(rate.Limit(p.RatePerSecond), p.RateBurst)}
		a.tenants[t] = s
		return s
	}
	if s.policy != p {
		s.policy = p
		if limit := rate.Limit(p.RatePerSecond); limit != s.bucket.Limit() || p.RateBurst != s.bucket.Burst() {
			s.bucket = rate.NewLimiter(limit, p.RateBurst) // full: who is given more is not held to what was left of less
		}
	}
	return s
}

// sweepLocked drops tenants whose state says no more than a new one would.
func (a *admission) sweepLocked(now time.Time) {
	for t, s := range a.tenants {
		if s.running+s.streams == 0 && s.bucket.TokensAt(now) >= float64(s.bucket.Burst()) {
			delete(a.tenants, t)
		}
	}
	a.sweepAt = max(leastSweep, 2*len(a.tenants))
}

// inFlight returns the calls admitted and not released.
func (a *admission) inFlight() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running
}

// untilToken returns when the bucket has its next token, at most a minute and at least a millisecond.
func untilToken(l *rate.Limiter, now time.Time) time.Duration {
	r := l.ReserveN(now, 1)
	defer r.CancelAt(now)
	if !r.OK() {
		return time.Minute
	}
	return min(max(r.DelayFrom(now), time.Millisecond), time.Minute)
}
