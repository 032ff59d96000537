package pool

import (
	"math"
	"time"

	"paddock/internal/tenant"
)

// A container's memory is fixed when it is made: V8 takes its heap limit from a flag at its start and from nothing later. So
// there is a stock of warm containers per size: the usual one, which tenants have of whom nothing else was said, with min_ready
// at the least, and others while tenants of that size come.

// sizeKept is how long one warm container of an unusual size is kept since the last claim of one.
const sizeKept = 10 * time.Minute

// stock is the warm containers of one size and what is wanted of them. Guarded by Pool.mu.
type stock struct {
	size     int64              // Spec.MemoryBytes
	ready    list[*container]   // oldest first
	ring     list[*tenantState] // tenants that have paid for containers of this size and wait for them, in turn
	demand   int                // containers that tenants have paid for and not got
	creating int                // containers
	claims   claimRate
	turn     float64 // when it is this stock's turn to have one made; see launchNextLocked
}

// claimRate is a moving average.
type claimRate struct {
	rate   float64 // claims a second at rateAt
	rateAt time.Time
	at     time.Time // of the newest claim
}

func (r *claimRate) claimed(now time.Time) {
	r.rate = r.now(now) + 1/claimRateMemory.Seconds()
	r.rateAt, r.at = now, now
}

func (r *claimRate) now(now time.Time) float64 {
	if r.rateAt.IsZero() {
		return 0
	}
	return r.rate * math.Exp(-now.Sub(r.rateAt).Seconds()/claimRateMemory.Seconds())
}

// sizeOf is the memory of a tenant's containers.
func (p *Pool) sizeOf(policy *tenant.Policy) int64 {
	if policy.MemoryBytes > 0 {
		return policy.MemoryBytes
	}
	return p.cfg.MemoryBytes
}

// stockLocked returns the stock of a size, made if need be.
func (p *Pool) stockLocked(size int64) *stock {
	s := p.stocks[size]
	if s == nil {
		s = &stock{size: size, turn: p.turn}
		p.stocks[size] = s
	}
	return s
}

// forgetStocksLocked drops those that nobody needs any more.
func (p *Pool) forgetStocksLocked(now time.Time) {
	used := map[*stock]bool{p.usual: true}
	for _, t := range p.tenants {
		used[t.stock] = true
	}
	for size, s := range p.stocks {
		if !used[s] && s.ready.len()+s.creating+s.demand == 0 && p.targetLocked(s, now) == 0 {
			delete(p.stocks, size)
		}
	}
}

// short is how many containers waiting calls have paid for that are not even being made.
func (s *stock) short() int { return max(0, s.demand-s.ready.len()-s.creating) }

// free says that there is a warm container and nobody waits for it.
func (s *stock) free() bool { return s.ready.len() > 0 && s.ring.len() == 0 }

// targetLocked is how many warm containers of a size there should be.
func (p *Pool) targetLocked(s *stock, now time.Time) int {
	if p.retired {
		return 0
	}
	byDemand := int(math.Ceil(s.claims.now(now) * p.refill.createTime.Seconds() * readyHeadroom))
	if s == p.usual {
		return min(max(p.min, byDemand), max(p.min, p.max), p.maxContainers)
	}
	if s.claims.at.IsZero() || now.Sub(s.claims.at) >= sizeKept {
		return 0
	}
	return min(max(1, byDemand), p.max, p.maxContainers)
}

// expectLocked has one container of this size made ahead of a claim that will come.
func (s *stock) expectLocked(now time.Time) { s.claims.at = now }

// limitOf is what the control group of a container of this size may take.
func (p *Pool) limitOf(size int64) int64 { return size + p.cfg.Engine.Overhead() }
