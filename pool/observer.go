package pool

import (
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// Assignment says that a container is a tenant's.
type Assignment struct {
	Container ContainerID
	Tenant    tenant.ID
	Runtime   string
	Isolation tenant.Isolation
	Since     time.Time
	Extra     bool // bound because the tenant's containers on other machines were full: no surplus beside them
}

// Recycled says that a container is gone.
type Recycled struct {
	Container ContainerID
	Tenant    tenant.ID // "" if it was nobody's
	Cause     Cause
	Age       time.Duration
	Calls     int64
}

// Observer is told what happens to containers. All but LogLine are called by one goroutine, in the order of the events, not
// under a lock; LogLine by many. None may block.
type Observer interface {
	Assigned(Assignment)
	// Released follows Assigned when the container takes no more calls, for whatever cause.
	Released(Assignment, Cause)
	// Recycled is called for every container that was Ready once, when nothing of it is left.
	Recycled(Recycled)
	// Quarantined is called when a tenant's code, by its hash, has ended so many containers that it may not run until then.
	Quarantined(t tenant.ID, hash string, until time.Time)
	LogLine(call.LogLine)
}

type nobody struct{}

func (nobody) Assigned(Assignment)                      {}
func (nobody) Released(Assignment, Cause)               {}
func (nobody) Recycled(Recycled)                        {}
func (nobody) Quarantined(tenant.ID, string, time.Time) {}
func (nobody) LogLine(call.LogLine)                     {}

// noteLocked queues one call of the observer.
func (p *Pool) noteLocked(f func(Observer)) { p.notes = append(p.notes, f) }

// runNotes tells the observer, until the pool has stopped and everything is told.
func (p *Pool) runNotes() {
	for {
		select {
		case <-p.noted:
			p.tell()
		case <-p.stopped:
			p.tell()
			return
		}
	}
}

func (p *Pool) tell() {
	p.mu.Lock()
	notes := p.notes
	p.notes = nil
	p.mu.Unlock()
	for _, f := range notes {
		f(p.cfg.Observer)
	}
}

func (p *Pool) assignmentLocked(c *container) Assignment {
	return Assignment{
		Container: c.id, Tenant: c.latch, Runtime: p.cfg.Image.Runtime,
		Isolation: p.cfg.Engine.Isolation(), Since: c.assigned, Extra: c.extra,
	}
}
