package pool

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// sweep compares what the engine has with what the pool wants: strangers are destroyed and counted, and what the pool
// believes in and the engine does not know is failed.
func (p *Pool) sweep() {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.EngineTimeout)
	defer cancel()
	before := p.standing()
	found, err := p.cfg.Engine.List(ctx)

	p.mu.Lock()
	defer p.unlock()
	destroyed := p.destroyed
	p.destroyed = nil
	if err != nil {
		if p.phase == phaseOpen {
			p.cfg.Logger.Error("the engine's containers could not be listed", "err", err)
		}
		return
	}
	p.counts.sweeps++
	now := time.Now()
	has := make(map[ContainerID]bool, len(found))
	for _, e := range found {
		has[e.ID()] = true
		_, gone := destroyed[e.ID()]
		if _, wanted := p.containers[e.ID()]; !wanted && !gone {
			p.counts.orphans++
			p.cfg.Logger.Warn("an orphan is destroyed", "container", e.ID())
			p.laterLocked(func() { p.destroyOrphan(e) })
		}
	}
	for _, c := range before {
		if !has[c.id] && (c.state == Ready || c.state == Assigned || c.state == Draining) {
			p.counts.vanished++
			p.loseLocked(c, loss{lossCrashed, CauseVanished}, now)
		}
	}
	p.dispatchLocked(now)
}

// standing returns the containers that the engine must know.
func (p *Pool) standing() []*container {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*container
	for _, c := range p.containers {
		if c.state != Creating && !c.tearing {
			all = append(all, c)
		}
	}
	return all
}

// destroyOrphan ends a container that nobody wants; the next sweep sees whether it worked. Its uids are kept from others
// meanwhile.
func (p *Pool) destroyOrphan(e Container) {
	uid := e.Facts().UID
	p.mu.Lock()
	mine := p.uids.reserve(uid, e.ID()) == nil
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
	defer cancel()
	if err := e.Destroy(ctx); err != nil {
		p.cfg.Logger.Error("an orphan could not be destroyed", "container", e.ID(), "err", err)
		return // its uids stay reserved until a sweep succeeds
	}
	os.RemoveAll(p.cfg.linkDir(e.ID()))
	os.RemoveAll(p.cfg.secretDir(e.ID()))
	if mine {
		p.mu.Lock()
		p.uids.release(uid, e.ID())
		p.mu.Unlock()
	}
}

// sweepDirs removes directories of containers that exist no more. Only at Start: later, teardown removes its own.
func (p *Pool) sweepDirs() {
	for _, parent := range []string{"c", "s/pool"} {
		dirs, err := os.ReadDir(filepath.Join(p.cfg.RunDir, parent))
		if err != nil {
			continue
		}
		for _, d := range dirs {
			p.mu.Lock()
			_, known := p.containers[ContainerID(d.Name())]
			p.mu.Unlock()
			if !known {
				os.RemoveAll(filepath.Join(p.cfg.RunDir, parent, d.Name()))
			}
		}
	}
}
