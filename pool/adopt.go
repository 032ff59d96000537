package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"paddock/internal/tenant"
)

// parallelAdoptions bounds engine calls while a former process's containers are taken over; waiting for HELLO is not
// counted.
const parallelAdoptions = 16

// adopt takes over the containers that a former process has left: no latch = Ready, a latch = Assigned. All are thawed
// first, lest one wait for another; those that do not say HELLO in time are destroyed.
func (p *Pool) adopt(ctx context.Context) error {
	list, cancel := context.WithTimeout(ctx, p.cfg.EngineTimeout)
	defer cancel()
	found, err := p.cfg.Engine.List(list)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	all := p.enterAll(found)
	p.sweepDirs()
	thawed := make([]error, len(all))
	each(all, parallelAdoptions, func(i int, c *container) { thawed[i] = p.thawFound(ctx, c) })
	each(all, len(all), func(i int, c *container) {
		err := thawed[i]
		var whose tenant.ID
		var since time.Time
		if err == nil {
			whose, since, err = p.takeOver(c)
		}
		p.adopted(c, whose, since, err)
	})
	return ctx.Err()
}

// each runs f for all containers, so many at a time, and returns when all are done.
func each(all []*container, parallel int, f func(int, *container)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(parallel, 1))
	for i, c := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i, c)
		})
	}
	wg.Wait()
}

// enterAll makes the found containers the pool's, with their uids and charges. One that claims another's uids is failed
// like any that cannot be adopted.
func (p *Pool) enterAll(found []Container) []*container {
	p.mu.Lock()
	defer p.unlock()
	all := make([]*container, 0, len(found))
	for _, e := range found {
		f := e.Facts()
		size, limit := f.MemoryBytes, f.LimitBytes
		if size <= 0 || limit <= 0 { // of one half made
			size, limit = p.cfg.MemoryBytes, p.limitOf(p.cfg.MemoryBytes)
		}
		c := p.newContainerLocked(e.ID(), f.UID, size, limit, f.ImageDigest, f.Created)
		c.engine = e
		if err := p.uids.reserve(f.UID, c.id); err != nil {
			p.cfg.Logger.Error("a found container is destroyed", "container", c.id, "err", err)
			p.failLocked(c, CauseAdopt, time.Now())
			continue
		}
		all = append(all, c)
	}
	return all
}

var errDead = errors.New("it had ended")

func (p *Pool) thawFound(ctx context.Context, c *container) error {
	select {
	case <-c.engine.Exited():
		return errDead
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.EngineTimeout)
	defer cancel()
	if err := c.engine.Thaw(ctx); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	return nil
}

// takeOver reads whose c is and waits for its agent at the old place.
func (p *Pool) takeOver(c *container) (tenant.ID, time.Time, error) {
	dir := p.cfg.secretDir(c.id)
	whose, since, err := readLatch(dir, c.id)
	if err != nil {
		return "", since, err
	}
	os.Remove(filepath.Join(dir, ".tenant")) // of a bind that never was
	os.Remove(filepath.Join(p.cfg.linkDir(c.id), "link"))
	os.Remove(filepath.Join(p.cfg.linkDir(c.id), "egress"))
	if err := p.open(c); err != nil {
		return whose, since, err
	}
	return whose, since, p.hello(c, p.cfg.AdoptTimeout, whose != "")
}

// adopted ends c's adoption, one way or the other.
func (p *Pool) adopted(c *container, whose tenant.ID, since time.Time, err error) {
	if err == nil && whose != "" {
		d := tenant.DefaultPolicy()
		c.conn.Bind(whose, &d)
	}
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if err != nil {
		p.cfg.Logger.Warn("a container could not be adopted and is destroyed", "container", c.id, "tenant", whose, "err", err)
		p.failLocked(c, CauseAdopt, now)
		return
	}
	p.counts.adopted++
	p.becomeReadyLocked(c, now)
	if c.state != Ready {
		return
	}
	if whose == "" {
		p.stockLocked(c.size).ready.pushBack(&c.readyNode)
	} else {
		d := tenant.DefaultPolicy() // until the tenant's own is heard
		d.MemoryBytes = c.size
		t := p.tenantLocked(whose, &d, now)
		t.granting++
		p.assignToLocked(c, t, false, now)
		c.assigned, c.latch, c.told = since, whose, true
		c.yielding = true // or not: the next look makes sure
		c.setPowerLocked(powerOn)
		p.laterLocked(func() { p.setRules(c, whose) })
		a := p.assignmentLocked(c)
		p.noteLocked(func(o Observer) { o.Assigned(a) })
		p.idleLocked(c, now)
		p.lookLocked(c, now)
	}
	p.visitLocked(c, now) // another image: rollout
	p.dispatchLocked(now)
}
