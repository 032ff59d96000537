package controller

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/controller/store"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
)

// Pacing of the writer.
const (
	// releaseLinger is how long a record of a released container may stay: releases ride along with the next assignment, or
	// go together after this.
	releaseLinger = 5 * time.Second
	writeBackoff  = 100 * time.Millisecond // after a failure, doubled up to
	writeBackMax  = 5 * time.Second
	writeBatch    = store.MaxTxnOps / 2 // puts, and as many deletes, of one transaction
)

// assignments brings the store's records of this controller's assignments to what is wanted, behind the calls. It is
// level-triggered: what is held is the set that should be there and the set that is believed to be there, both bounded by
// the containers that live or that the store has records of, however long the store is away. An assignment costs one
// put; one that ends before its record was written costs none. A failed guard, or a write whose outcome is not known,
// leads to reading again. Nothing here ever holds up or refuses a call: the latch on the host is what binds.
//
// want and drop are called by the pool's observer; run is the one goroutine that talks to the store.
type assignments struct {
	controller string
	store      store.Store
	log        *slog.Logger
	wake       chan struct{} // buffered(1)

	mu      sync.Mutex
	wanted  map[string]*pb.AssignmentRecord // by store key
	stored  map[string]int64                // believed to be there, with the revision of the write
	puts    map[string]bool                 // wanted and not stored
	deletes map[string]bool                 // stored and not wanted
	read    bool                            // stored has been read and nothing since is in doubt
	writes  int64                           // transactions that were acknowledged
	urgent  bool                            // releases are not to linger
	healthy bool
}

func newAssignments(controller string, s store.Store, log *slog.Logger) *assignments {
	return &assignments{
		controller: controller, store: s, log: log, wake: make(chan struct{}, 1), healthy: true,
		wanted: map[string]*pb.AssignmentRecord{}, stored: map[string]int64{},
		puts: map[string]bool{}, deletes: map[string]bool{},
	}
}

func (a *assignments) key(as pool.Assignment) string {
	return store.Assignment(a.controller, as.Tenant, as.Runtime, string(as.Container))
}

// want asks for a record. It never blocks.
func (a *assignments) want(as pool.Assignment) {
	a.mu.Lock()
	a.wanted[a.key(as)] = &pb.AssignmentRecord{
		Isolation: string(as.Isolation), Since: timestamppb.New(as.Since), Extra: as.Extra,
	}
	a.differLocked(a.key(as))
	a.mu.Unlock()
	a.kick()
}

// drop asks for the record to go, some time soon. It never blocks.
func (a *assignments) drop(as pool.Assignment) {
	a.mu.Lock()
	delete(a.wanted, a.key(as))
	a.differLocked(a.key(as))
	a.mu.Unlock()
	a.kick()
}

// hurry has releases written now: somebody waits to see them.
func (a *assignments) hurry() {
	a.mu.Lock()
	a.urgent = true
	a.mu.Unlock()
	a.kick()
}

func (a *assignments) takeUrgent() (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was, a.urgent = a.urgent, false
	return was
}

// differLocked notes what there is to do for a key: a change costs the same whether there are ten containers or ten thousand.
func (a *assignments) differLocked(key string) {
	_, there := a.stored[key]
	wanted := a.wanted[key] != nil
	delete(a.puts, key)
	delete(a.deletes, key)
	switch {
	case wanted && !there:
		a.puts[key] = true
	case there && !wanted:
		a.deletes[key] = true
	}
}

func (a *assignments) kick() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends.
func (a *assignments) run(ctx context.Context) {
	backoff := writeBackoff
	var linger <-chan time.Time
	for {
		err := a.converge(ctx, a.takeUrgent())
		switch {
		case err == nil:
			backoff = writeBackoff
			if linger == nil && a.releases() > 0 {
				linger = time.After(releaseLinger)
			}
		case ctx.Err() != nil:
			return
		default:
			a.complain(err)
			a.hurry() // once it is back, everything
			if !sleep(ctx, backoff) {
				return
			}
			backoff = min(2*backoff, writeBackMax)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-linger:
			linger = nil
			if err := a.converge(ctx, true); err != nil && ctx.Err() == nil {
				a.complain(err)
				a.kick()
			}
		}
	}
}

// flush writes everything that is due now, releases too. For a stop.
func (a *assignments) flush(ctx context.Context) error { return a.converge(ctx, true) }

// converge writes until nothing is left to put, and with releases nothing left to delete either.
func (a *assignments) converge(ctx context.Context, releases bool) error {
	for {
		if err := a.ensureRead(ctx); err != nil {
			return err
		}
		txn, keys := a.next(releases)
		if len(txn.Puts)+len(txn.Deletes) == 0 {
			a.recovered()
			return nil
		}
		rev, err := a.store.Commit(ctx, txn)
		switch {
		case err == nil:
			a.done(txn, rev)
		case errors.Is(err, store.ErrConflict):
			// Somebody wrote where only we write, most likely we ourselves in an attempt that seemed to fail.
			a.doubt()
			a.log.Info("assignment records differ from what was expected: reading them again", "keys", len(keys))
		default:
			a.doubt()
			return err
		}
	}
}

// ensureRead reads what stands in the store, unless that is known.
func (a *assignments) ensureRead(ctx context.Context) error {
	a.mu.Lock()
	known := a.read
	a.mu.Unlock()
	if known {
		return nil
	}
	kvs, _, err := a.store.List(ctx, store.AssignmentsOf(a.controller))
	if err != nil {
		return err
	}
	stored := make(map[string]int64, len(kvs))
	for _, kv := range kvs {
		stored[kv.Key] = kv.ModRevision
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored, a.read = stored, true
	clear(a.puts)
	clear(a.deletes)
	for key := range a.wanted {
		a.differLocked(key)
	}
	for key := range a.stored {
		a.differLocked(key)
	}
	return nil
}

// next builds the next transaction. Records that nobody wants ride along, but are a reason to write only with releases.
func (a *assignments) next(releases bool) (txn store.Txn, keys []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.puts {
		if len(txn.Puts) == writeBatch {
			break
		}
		value, err := proto.Marshal(a.wanted[key])
		if err != nil {
			a.log.Error("assignment record cannot be written", "key", key, "err", err)
			continue
		}
		txn.Puts = append(txn.Puts, store.Put{Key: key, Value: value})
		txn.Guards = append(txn.Guards, store.Guard{Key: key})
		keys = append(keys, key)
	}
	if len(txn.Puts) == 0 && !releases {
		return store.Txn{}, nil
	}
	for key := range a.deletes {
		if len(txn.Deletes) == writeBatch {
			break
		}
		txn.Deletes = append(txn.Deletes, key)
		txn.Guards = append(txn.Guards, store.Guard{Key: key, ModRevision: a.stored[key]})
		keys = append(keys, key)
	}
	return txn, keys
}

func (a *assignments) done(txn store.Txn, rev int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writes++
	for _, p := range txn.Puts {
		a.stored[p.Key] = rev
		a.differLocked(p.Key)
	}
	for _, key := range txn.Deletes {
		delete(a.stored, key)
		a.differLocked(key)
	}
}

// doubt makes the next round read again: what was written is not known.
func (a *assignments) doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read = false
}

// releases counts records that nobody wants any more.
func (a *assignments) releases() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.deletes)
}

// complain logs the first failure of a row; recovered the end of it.
func (a *assignments) complain(err error) {
	a.mu.Lock()
	first := a.healthy
	a.healthy = false
	n := len(a.wanted)
	a.mu.Unlock()
	if first {
		a.log.Warn("assignment records cannot be written now; calls go on without", "err", err, "wanted", n)
	}
}

func (a *assignments) recovered() {
	a.mu.Lock()
	was := a.healthy
	a.healthy = true
	a.mu.Unlock()
	if !was {
		a.log.Info("assignment records are written again")
	}
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
