package pool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// lastLimit is how long Shutdown, when its ctx has ended, still waits for what it has killed to be gone.
const lastLimit = 20 * time.Second

// closeLocked moves to the last phase and says whether it was this call that did. Every waiter is answered.
func (p *Pool) closeLocked(to phase) bool {
	if p.phase == phaseClosing || p.phase == phaseReleased {
		return false
	}
	p.phase = to
	if to == phaseReleased {
		close(p.released)
	}
	p.cancel()
	e := p.noCapacityLocked("this controller is going away")
	e.RetryAfter = time.Second
	for _, t := range p.tenants {
		p.refuseLocked(t, e)
		p.stopTimerLocked(&t.timer)
	}
	p.stopTimerLocked(&p.refilling)
	p.stopTimerLocked(&p.sweeping)
	return true
}

// Shutdown ends the pool and everything in it. New and waiting calls are refused as not started, calls in flight may
// finish until ctx ends and are killed then; every container is destroyed, and what the pool has made in its directory is
// removed. An error names what could not be destroyed. A second call waits for the first.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	first, idle := p.closeLocked(phaseClosing), p.phase == phaseClosing
	if first {
		now := time.Now()
		for _, c := range p.containers {
			p.drainLocked(c, CauseShutdown, now)
		}
		if len(p.containers) == 0 {
			close(p.empty)
		}
	}
	p.unlock()
	if !first {
		if idle {
			<-p.stopped
		}
		return nil
	}
	select {
	case <-p.empty:
	case <-ctx.Done():
		p.killAll()
		wait(p.empty, lastLimit)
	}
	err := p.leftovers()
	p.stop()
	if err == nil {
		os.Remove(filepath.Join(p.cfg.RunDir, "c"))
		os.Remove(filepath.Join(p.cfg.RunDir, "s", "pool"))
	}
	return err
}

func (p *Pool) killAll() {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	for _, c := range p.containers {
		if c.state == Draining {
			p.loseLocked(c, loss{lossKilled, CauseShutdown}, now)
		}
	}
}

func (p *Pool) leftovers() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.containers) == 0 {
		return nil
	}
	for id := range p.containers {
		return fmt.Errorf("pool: shutdown: %d containers could not be destroyed, %s among them", len(p.containers), id)
	}
	return nil
}

// stop ends the pool's goroutines and waits for them.
func (p *Pool) stop() {
	p.mu.Lock()
	p.halted = true
	p.mu.Unlock()
	close(p.stopped)
	p.tasks.Wait()
	p.loops.Wait()
}

// Release ends the pool and leaves its containers to the next process, which adopts them. New and waiting calls are refused
// as not started; calls in flight may finish until ctx ends and then fail as lost. A container that was still being made
// is undone.
func (p *Pool) Release(ctx context.Context) error {
	p.mu.Lock()
	if !p.closeLocked(phaseReleased) {
		p.mu.Unlock()
		<-p.stopped
		return nil
	}
	if p.inflight == 0 {
		p.stillLocked()
	}
	p.unlock()
	select {
	case <-p.still:
	case <-ctx.Done():
	}
	p.letGo()
	p.stop()
	return nil
}

func (p *Pool) stillLocked() {
	select {
	case <-p.still:
	default:
		close(p.still)
	}
}

// letGo closes what this process holds of the containers that live on.
func (p *Pool) letGo() {
	p.mu.Lock()
	var all []*container
	for _, c := range p.containers {
		if c.state != Creating && !c.tearing {
			all = append(all, c)
		}
	}
	p.mu.Unlock()
	for _, c := range all {
		c.conn.Close()
		c.listener.Close()
		c.door.Close()
	}
}
