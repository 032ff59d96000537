package oci

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"paddock/pool"
	"paddock/pool/oci/keeper"
)

// startWatch follows the keeper's events, starting a keeper whenever there is none, until Close. It returns when the
// first keeper has told all that it knows.
func (e *Engine) startWatch(ctx context.Context) error {
	if err := e.spawnKeeper(ctx); err != nil {
		return err
	}
	watch, stop := context.WithCancel(context.Background())
	e.stop = stop
	first := make(chan struct{})
	e.watched.Go(func() { e.watch(watch, first) })
	select {
	case <-first:
		return nil
	case <-ctx.Done():
		stop()
		e.watched.Wait()
		return fmt.Errorf("the keeper does not answer: %w", ctx.Err())
	}
}

func (e *Engine) watch(ctx context.Context, first chan struct{}) {
	synced := false
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		told := map[pool.ContainerID]bool{}
		err := e.keeper.Watch(ctx, func(s keeper.Status) {
			told[pool.ContainerID(s.ID)] = true
			e.see(s)
		}, func() {
			wait = 10 * time.Millisecond
			e.loseUntold(told)
			if !synced {
				synced = true
				close(first)
			}
		})
		if ctx.Err() != nil {
			return
		}
		e.log.Warn("the keeper is gone: starting another", "error", err)
		if err := e.spawnKeeper(ctx); err != nil {
			e.log.Error("no keeper", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// see passes what the keeper says on to the container, if it is known.
func (e *Engine) see(s keeper.Status) {
	id := pool.ContainerID(s.ID)
	if !idForm.MatchString(s.ID) {
		return
	}
	e.mu.Lock()
	if e.forgotten.Contains(id) {
		e.mu.Unlock()
		return
	}
	e.statuses[id] = s
	c := e.known[id]
	e.mu.Unlock()
	if c != nil {
		c.see(s)
	}
}

// loseUntold ends, as lost, the started containers that a new keeper knows nothing of.
func (e *Engine) loseUntold(told map[pool.ContainerID]bool) {
	e.mu.Lock()
	var lost []*container
	for id, c := range e.known {
		if !told[id] && c.started() {
			lost = append(lost, c)
			delete(e.statuses, id)
		}
	}
	e.mu.Unlock()
	for _, c := range lost {
		c.lose()
	}
}

// spawnKeeper starts a keeper unless one answers.
func (e *Engine) spawnKeeper(ctx context.Context) error {
	if e.keeper.Alive(ctx) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keeperTimeout)
	defer cancel()
	return keeper.Spawn(ctx, e.Keeper, keeper.Options{
		Dir: filepath.Join(e.StateDir, "k"), LockFile: e.LockFile, CgroupParent: e.parent(), Grace: e.keeperGrace(),
		RunDir: e.RunDir,
	})
}

func (e *Engine) keeperGrace() time.Duration {
	if e.KeeperGrace > 0 {
		return e.KeeperGrace
	}
	return keeper.DefaultGrace
}
