// Package janitor has one of several processes clean up what nobody else does: what broken-off deletions, expired keys and former
// code left, and the assignment records of controllers that do not come back. Who does it is elected through the store. It ends no
// containers: those are their controller's, and a record that is missing harms no call.
package janitor

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"paddock/controller/catalog"
	"paddock/controller/store"
)

// Pacing.
const (
	role       = "janitor"
	leaseTTL   = 15 * time.Second
	tryEvery   = 5 * time.Second // half as much more or less by chance
	sweepEvery = time.Hour       // of the catalogue
	lookEvery  = time.Minute     // for dead controllers
	// deadAfter is how long a controller's assignment records outlive its registration: until then it may come back, and they count again.
	deadAfter = 10 * time.Minute
	batch     = store.MaxTxnOps/2 - 1
)

// Options are what a janitor needs. Sweep cleans the catalogue.
type Options struct {
	ID    string // of this process, for people
	Store store.Store
	Fleet func() *catalog.Fleet
	Sweep func(context.Context) error
	// Lead, if set, runs while this process is elected; guard holds for as long.
	Lead   func(ctx context.Context, guard store.Guard)
	Logger *slog.Logger
}

// Run stands for election, and cleans while it is elected, until ctx ends.
func Run(ctx context.Context, o Options) {
	for {
		lease, guard, err := stand(ctx, o)
		if err == nil {
			o.Logger.Info("this process is the janitor")
			serve(ctx, o, lease, guard)
			release(ctx, lease)
			o.Logger.Info("this process is not the janitor any more")
		} else if !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			o.Logger.Debug("standing for janitor", "err", err)
		}
		if !sleep(ctx, tryEvery/2+rand.N(tryEvery)) {
			return
		}
	}
}

// stand tries to be elected. The guard holds as long as the election does: removals of records carry it, so that one who has lost the
// role without knowing removes none. What Sweep writes is guarded by what it was decided on. ErrConflict: somebody else has the role.
func stand(ctx context.Context, o Options) (store.Lease, store.Guard, error) {
	key := store.Election(role)
	switch _, err := o.Store.Get(ctx, key); {
	case err == nil:
		return nil, store.Guard{}, store.ErrConflict
	case !errors.Is(err, store.ErrNotFound):
		return nil, store.Guard{}, err
	}
	lease, err := o.Store.Grant(ctx, leaseTTL)
	if err != nil {
		return nil, store.Guard{}, err
	}
	rev, err := o.Store.Commit(ctx, store.Txn{
		Guards: []store.Guard{{Key: key}}, Puts: []store.Put{{Key: key, Value: []byte(o.ID), Lease: lease.ID()}},
	})
	if err != nil {
		release(ctx, lease)
		return nil, store.Guard{}, err
	}
	return lease, store.Guard{Key: key, ModRevision: rev}, nil
}

func release(ctx context.Context, lease store.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = lease.Release(ctx) // it ends by itself otherwise
}

// serve cleans until the role or ctx is lost.
func serve(ctx context.Context, o Options, lease store.Lease, guard store.Guard) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-lease.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if o.Lead != nil {
		over := make(chan struct{})
		go func() { defer close(over); o.Lead(ctx, guard) }()
		defer func() { cancel(); <-over }()
	}
	d := dead{o: o, guard: guard, gone: map[string]time.Time{}}
	var swept time.Time
	for {
		if swept.IsZero() || time.Since(swept) >= sweepEvery {
			swept = time.Now()
			if err := o.Sweep(ctx); err != nil && ctx.Err() == nil {
				o.Logger.Warn("sweep of the catalogue", "err", err)
			}
		}
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			o.Logger.Warn("sweep of dead controllers' records", "err", err)
		}
		if !sleep(ctx, lookEvery) {
			return
		}
	}
}

// dead removes what controllers left that were not registered for deadAfter, as seen from here.
type dead struct {
	o     Options
	guard store.Guard
	gone  map[string]time.Time // since when a controller that has records is not registered
}

func (d *dead) look(ctx context.Context) error {
	kvs, _, err := d.o.Store.List(ctx, store.AssignmentsPrefix)
	if err != nil {
		return err
	}
	records := map[string][]store.KV{}
	for _, kv := range kvs {
		if kind, parts := store.SplitKey(kv.Key); kind == store.KindAssignment {
			records[parts[0]] = append(records[parts[0]], kv)
		}
	}
	for id := range d.gone {
		if _, registered := d.o.Fleet().Controller(id); registered || records[id] == nil {
			delete(d.gone, id)
		}
	}
	var failed []error
	for id, all := range records {
		if _, registered := d.o.Fleet().Controller(id); registered {
			continue
		}
		if since, ok := d.gone[id]; !ok {
			d.gone[id] = time.Now()
		} else if time.Since(since) >= deadAfter {
			failed = append(failed, d.remove(ctx, id, all))
		}
	}
	return errors.Join(failed...)
}

// remove deletes a dead controller's records, unless it registers meanwhile, or another process has become the janitor.
func (d *dead) remove(ctx context.Context, id string, all []store.KV) error {
	n := len(all)
	for len(all) > 0 {
		part := all[:min(len(all), batch)]
		all = all[len(part):]
		txn := store.Txn{Guards: []store.Guard{d.guard, {Key: store.Controller(id)}}}
		for _, kv := range part {
			txn.Guards = append(txn.Guards, store.Guard{Key: kv.Key, ModRevision: kv.ModRevision})
			txn.Deletes = append(txn.Deletes, kv.Key)
		}
		if _, err := d.o.Store.Commit(ctx, txn); err != nil {
			return err
		}
	}
	d.o.Logger.Info("records of a controller that is gone are removed", "controller", id, "records", n)
	return nil
}

// sleep waits for d, or less if ctx ends, and says which.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
