package pool

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// counters only grow, save leaking. Guarded by Pool.mu.
type counters struct {
	created, createFailed              uint64
	claims                             map[call.StartKind]uint64
	recycled                           map[Cause]uint64
	lost                               map[Cause]uint64
	evicted, expired, handedBack       uint64
	overBudget, quarantined, shed      uint64
	retries, resumed, overdueCalls     uint64
	yielded                            uint64
	frozen, thawed, burning            uint64
	freezeFailed, thawFailed           uint64
	orphans, vanished, sweeps, adopted uint64
	leaking                            int
}

func newCounters() counters {
	return counters{claims: map[call.StartKind]uint64{}, recycled: map[Cause]uint64{}, lost: map[Cause]uint64{}}
}

// Stats is one consistent snapshot of a pool: gauges as they are, counters since New.
type Stats struct {
	Creating, Ready, Assigned, Frozen, Draining, Failed int // containers
	Limit                                               int // on their sum
	MinReady, MaxReady                                  int // bounds on ReadyTarget, as configured or resized

	InFlight int          // calls that hold a slot
	Waiting  int          // calls in the queue
	Demand   int          // containers that waiting calls have paid for
	Tenants  int          // that the pool knows anything of
	Thaws    int          // frozen containers that wait for memory
	Images   []ImageStats // of which containers are made, or were
	UIDs     int          // in use
	Leaking  int          // containers that could not be destroyed so far

	MemoryBudgetBytes    int64 // 0 = not limited
	MemoryCommittedBytes int64 // of it, the reserve not included

	ReadyTarget int
	ClaimRate   float64       // a second, a moving average
	CreateTime  time.Duration // a moving average

	Created, CreateFailed uint64
	Claims                map[call.StartKind]uint64 // containers assigned
	Recycled              map[Cause]uint64          // containers destroyed
	Lost                  map[Cause]uint64          // containers that ended by themselves, or had to be ended
	Evicted               uint64
	Expired               uint64 // calls whose deadline passed in the queue
	HandedBack            uint64 // containers granted to a call that had gone
	OverBudget            uint64 // calls refused for want of claim tokens
	Quarantined           uint64 // calls refused because their code is
	Shed                  uint64 // calls refused because they would have ended too late
	Retries               uint64 // tries after the first, by the pool itself
	Resumed               uint64 // pipelines that went on in another container
	OverdueCalls          uint64 // calls that outlived the drain_timeout of a draining container and were ended
	Yielded               uint64 // times that a tenant used more than its share of the CPUs and began to yield

	Freezes, Thawed              uint64
	Burning                      uint64 // frozen at once because they burned CPU with no call
	FreezeFailures, ThawFailures uint64

	Sweeps, Orphans, Vanished, Adopted uint64
}

// Stats returns a snapshot.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := &p.counts
	s := Stats{
		Creating: p.states[Creating], Ready: p.states[Ready], Assigned: p.states[Assigned],
		Draining: p.states[Draining], Failed: p.states[Failed], Limit: p.maxContainers,
		MinReady: p.min, MaxReady: p.max,
		InFlight: p.inflight, Waiting: p.waiting, Demand: p.demand, Tenants: len(p.tenants), Thaws: p.thaws.len(),
		UIDs: len(p.uids.used), Leaking: n.leaking,
		MemoryBudgetBytes: p.cfg.MemoryBudgetBytes, MemoryCommittedBytes: p.committed,
		CreateTime: p.refill.createTime,
		Created:    n.created, CreateFailed: n.createFailed,
		Claims: maps.Clone(n.claims), Recycled: maps.Clone(n.recycled), Lost: maps.Clone(n.lost),
		Evicted: n.evicted, Expired: n.expired, HandedBack: n.handedBack, OverBudget: n.overBudget,
		Quarantined: n.quarantined, Shed: n.shed, Retries: n.retries, Resumed: n.resumed, OverdueCalls: n.overdueCalls,
		Yielded: n.yielded,
		Freezes: n.frozen, Thawed: n.thawed, Burning: n.burning,
		FreezeFailures: n.freezeFailed, ThawFailures: n.thawFailed,
		Sweeps: n.sweeps, Orphans: n.orphans, Vanished: n.vanished, Adopted: n.adopted,
	}
	s.Images = p.images.stats()
	now := time.Now()
	for _, k := range p.stocks {
		s.ReadyTarget += p.targetLocked(k, now)
		s.ClaimRate += k.claims.now(now)
	}
	for _, c := range p.containers {
		s.countImage(c)
		if c.state == Assigned && (c.power == powerFrozen || c.power == powerQueued) {
			s.Frozen++
		}
	}
	return s
}

// Info is one container as an operator sees it.
type Info struct {
	ID           ContainerID
	Image        string    // digest
	Tenant       tenant.ID // "" if it is nobody's
	State        State
	Cause        Cause // why it is out of service
	Frozen       bool
	Fresh        bool
	Extra        bool
	InFlight     int // calls that hold a slot
	Running      int // calls whose code has not ended
	Calls        int64
	UID          uint32
	MemoryBytes  int64 // what its code may use
	MemoryCharge int64
	CPUMillis    int64 // 0: not known yet
	CPUUsed      int64 // lately, in thousandths of a CPU
	Created      time.Time
	Assigned     time.Time
	IdleSince    time.Time // zero while something runs in it
}

// Containers lists a tenant's containers, or all for "", oldest first.
func (p *Pool) Containers(id tenant.ID) []Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, now := []Info{}, time.Now()
	for _, c := range p.selectLocked(Selector{Tenant: id, All: true}) {
		i := Info{
			ID: c.id, Image: c.digest, Tenant: c.latch, State: c.state, Cause: c.cause, Fresh: c.fresh, Extra: c.extra,
			Frozen:   c.state == Assigned && (c.power == powerFrozen || c.power == powerQueued),
			InFlight: c.inflight, Running: c.running, Calls: c.served, UID: c.uid, MemoryBytes: c.size, MemoryCharge: c.charge, CPUMillis: c.cpu,
			Created: c.created, Assigned: c.assigned, CPUUsed: int64(1000 * c.sharing.now(now)),
		}
		if c.state == Assigned && c.quiet() {
			i.IdleSince = c.idleSince
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b Info) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return all
}
