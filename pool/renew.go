package pool

import (
	"context"
	"fmt"
	"time"

	"paddock/internal/tenant"
)

// Renewal says which containers Renew replaces: all, or those of one tenant. Warm ones are replaced in either case: what
// comes after an assigned container was warm before.
type Renewal struct {
	Tenant tenant.ID // "": all
}

// RenewStep is how far Renew is.
type RenewStep struct {
	Total, Done int
	Container   ContainerID // that is gone; "" at the beginning
	State       State       // what it was
	Tenant      tenant.ID
	Unprepared  bool // drained without a successor, since none could be made in time
}

const (
	renewLook = 20 * time.Millisecond
	// renewWait is how long a container waits for a warm one to take its place while none is even being made.
	renewWait = 10 * time.Second
)

// Renew replaces containers without failing a call: warm ones one after the other, each once its replacement is warm, then
// assigned ones, each once its successor is bound and has its code. Calls in flight finish on the container they are on,
// within the tenant's drain_timeout. It returns when all that were there at the beginning are gone; when ctx ends, it stops
// with what is under way. step is called from this goroutine.
func (p *Pool) Renew(ctx context.Context, which Renewal, step func(RenewStep) error) error {
	r := p.newRenewal(which, step)
	if err := r.say(RenewStep{}); err != nil {
		return err
	}
	for _, c := range r.targets {
		begun := time.Now()
		for !r.replace(c, begun) {
			if err := r.pause(ctx); err != nil {
				return err
			}
		}
	}
	for r.done < len(r.targets) {
		if err := r.pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// renewal is one Renew. Used by its goroutine.
type renewal struct {
	p          *Pool
	step       func(RenewStep) error
	targets    []*container // warm ones first
	was        map[*container]State
	told       map[*container]bool // gone, and said
	unprepared map[*container]bool
	done       int
}

func (p *Pool) newRenewal(which Renewal, step func(RenewStep) error) *renewal {
	r := &renewal{p: p, step: step, was: map[*container]State{}, told: map[*container]bool{}, unprepared: map[*container]bool{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	var assigned []*container
	for _, c := range p.containers {
		switch {
		case c.state == Creating || c.state == Ready:
			r.targets = append(r.targets, c)
		case c.state == Assigned && (which.Tenant == "" || c.tenant.id == which.Tenant):
			assigned = append(assigned, c)
		default:
			continue
		}
		r.was[c] = c.state
	}
	r.targets = append(r.targets, assigned...)
	return r
}

// pause lets time pass, says what has gone meanwhile and whether to go on.
func (r *renewal) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("%d of %d containers were replaced: %w", r.done, len(r.targets), ctx.Err())
	case <-r.p.stopped:
		return fmt.Errorf("%d of %d containers were replaced: the pool is closed", r.done, len(r.targets))
	case <-time.After(renewLook):
	}
	for _, c := range r.targets {
		if r.told[c] {
			continue
		}
		select {
		case <-c.gone:
		default:
			continue
		}
		r.told[c] = true
		r.done++
		if err := r.say(RenewStep{Container: c.id, State: r.was[c], Tenant: c.latch, Unprepared: r.unprepared[c]}); err != nil {
			return err
		}
	}
	return nil
}

func (r *renewal) say(s RenewStep) error {
	s.Total, s.Done = len(r.targets), r.done
	return r.step(s)
}

// replace takes c out of service as soon as that costs nobody a call, and says whether it is out.
func (r *renewal) replace(c *container, begun time.Time) bool {
	p := r.p
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if p.phase != phaseOpen {
		return true // all of them go
	}
	switch c.state {
	case Creating:
		p.drainLocked(c, CauseAdmin, now) // it goes once it is made
		return true
	case Ready:
		if p.states[Creating] > 0 && now.Sub(begun) < successorWait {
			return false // the one before has no replacement yet
		}
		p.drainLocked(c, CauseAdmin, now)
		p.dispatchLocked(now)
		return true
	case Assigned:
	default:
		return true
	}
	switch {
	case c.successor: // succeed drains it
		return false
	case c.tenant.stock.free():
		p.replaceLocked(c, CauseAdmin, now)
		return false
	case now.Sub(begun) < renewWait, p.states[Creating] > 0 && now.Sub(begun) < successorWait:
		c.tenant.stock.expectLocked(now)
		p.refillLocked(now)
		return false
	}
	r.unprepared[c] = true
	p.drainLocked(c, CauseAdmin, now)
	p.dispatchLocked(now)
	return true
}
