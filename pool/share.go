package pool

import (
	"context"
	"math"
	"time"
)

// Who uses more of the CPUs than its share yields to the others: its containers run when nobody else's want to, which costs it
// nothing while there is room, and takes from it only what is the others'. Limits and weights do not do that: a weight decides who
// gets how much in the end, and not who goes first when a call arrives, which is what its caller waits for. The share is an
// equal one, of all tenants that have called within the last second.

const (
	shareEvery  = 100 * time.Millisecond // between looks, while calls run
	shareMemory = 500 * time.Millisecond // what a tenant uses counts less by 1/e after that
	shareOver   = 1.25                   // times its share, and a tenant yields
	shareRecent = time.Second            // since its last call, and a tenant counts as there
	shareLooks  = 64                     // containers in a look, at most
)

// sharing is what a container uses of the CPUs. Guarded by Pool.mu.
type sharing struct {
	cpus   float64 // used lately, in CPUs, when it was looked at
	looked time.Time
	read   time.Duration // its counter then
}

// now is what it uses if it has used nothing since it was looked at.
func (s *sharing) now(at time.Time) float64 {
	return s.cpus * math.Exp(-float64(at.Sub(s.looked))/float64(shareMemory))
}

// take takes in the counter. The first look says nothing yet.
func (s *sharing) take(cpu time.Duration, at time.Time) {
	if d := at.Sub(s.looked); !s.looked.IsZero() && d > 0 {
		old := math.Exp(-float64(d) / float64(shareMemory))
		s.cpus = old*s.cpus + (1-old)*float64(cpu-s.read)/float64(d)
	}
	s.looked, s.read = at, cpu
}

// cpus is what all of a tenant's containers use.
func (t *tenantState) cpus(now time.Time) (sum float64) {
	for _, c := range t.live {
		sum += c.sharing.now(now)
	}
	return sum
}

// shareLook is a container in a look.
type shareLook struct {
	c     *container
	yield bool // what it is to do
	cpu   time.Duration
	ok    bool
}

// shareLaterLocked has a look taken soon.
func (p *Pool) shareLaterLocked(now time.Time) {
	if p.sharer.pos == 0 && !p.looking {
		p.setTimerLocked(&p.sharer, now.Add(shareEvery))
	}
}

// shareLocked begins a look at the containers in which something runs, and at those that yield.
func (p *Pool) shareLocked(time.Time) {
	var looks []*shareLook
	for _, t := range p.tenants {
		for _, c := range t.live {
			if len(looks) < shareLooks && c.power == powerOn && (!c.quiet() || t.yielding || c.yielding) {
				looks = append(looks, &shareLook{c: c})
			}
		}
	}
	if len(looks) > 0 || p.inflight > 0 {
		p.looking = true
		p.laterLocked(func() { p.share(looks) })
	}
}

// presentLocked counts the tenants among whom the CPUs are shared.
func (p *Pool) presentLocked(now time.Time) (n int) {
	for _, t := range p.tenants {
		for _, c := range t.live {
			if !c.quiet() || now.Sub(c.idleSince) < shareRecent {
				n++
				break
			}
		}
	}
	return n
}

// share reads what containers have used, decides and puts it into force.
func (p *Pool) share(looks []*shareLook) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.EngineTimeout)
	defer cancel()
	for _, l := range looks {
		var err error
		l.cpu, err = l.c.engine.CPU(ctx)
		l.ok = err == nil // of one that has ended nobody wants to know
	}
	for _, l := range p.shared(looks) {
		if err := l.c.engine.Yield(ctx, l.yield); err != nil {
			continue
		}
		p.mu.Lock()
		l.c.yielding = l.yield
		ending := l.c.ending()
		p.mu.Unlock()
		if ending && l.yield { // killed meanwhile: what yields dies only when nobody else wants to run
			_ = l.c.engine.Yield(ctx, false)
		}
	}
	p.mu.Lock()
	defer p.unlock()
	p.looking = false
	p.shareLaterLocked(time.Now())
}

// shared takes in what was read and returns the containers that are to change.
func (p *Pool) shared(looks []*shareLook) (changes []*shareLook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	looked := map[*tenantState]bool{}
	for _, l := range looks {
		if l.ok {
			l.c.sharing.take(l.cpu, now)
			looked[l.c.tenant] = true
		}
	}
	share := float64(p.cfg.CPUs) / float64(max(1, p.presentLocked(now)))
	for t := range looked {
		switch used := t.cpus(now); {
		case used > share*shareOver && !t.yielding:
			t.yielding = true
			p.counts.yielded++
		case used < share:
			t.yielding = false
		}
	}
	for _, l := range looks {
		if l.yield = l.c.tenant.yielding; l.ok && l.yield != l.c.yielding && !l.c.ending() {
			changes = append(changes, l)
		}
	}
	return changes
}
