// Package memstore is store.Store in one process's memory: for tests and for trying things out. It keeps the revisions,
// guards, history and leases of the real one, and can be made to go away or to forget history. It persists nothing and
// its leases do not run out by themselves.
package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"paddock/controller/store"
)

// historyEvents are kept for watches at least, and at most twice as many; older ones are compacted.
const historyEvents = 10_000

type entry struct {
	value []byte
	mod   int64
	lease store.LeaseID
}

// Store is a store.Store. Make one with New.
type Store struct {
	mu        sync.Mutex
	data      map[string]entry
	leases    map[store.LeaseID]*lease
	nextLease store.LeaseID
	rev       int64
	compacted int64         // events with ModRevision <= compacted are gone
	history   []store.Event // by revision
	changed   chan struct{} // closed and replaced at every write and change of state
	away      bool
	closed    bool
	stats     store.Stats
	watches   sync.WaitGroup
}

// New returns an empty store at revision 1, as etcd's is.
func New() *Store {
	return &Store{
		data: map[string]entry{}, leases: map[store.LeaseID]*lease{}, rev: 1, changed: make(chan struct{}),
	}
}

var _ store.Store = (*Store)(nil)

// SetAway makes every call fail with store.ErrUnavailable and ends the watches, or undoes that.
func (s *Store) SetAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
	s.signalLocked()
}

// Compact forgets the history up to and including rev.
func (s *Store) Compact(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compactLocked(min(rev, s.rev))
	s.signalLocked()
}

// Expire ends a lease as if it had run out.
func (s *Store) Expire(id store.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLeaseLocked(id)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.KV, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(ctx); err != nil {
		return store.KV{}, err
	}
	s.stats.Reads++
	e, ok := s.data[key]
	if !ok {
		return store.KV{}, fmt.Errorf("%w: %s", store.ErrNotFound, key)
	}
	return store.KV{Key: key, Value: slices.Clone(e.value), ModRevision: e.mod}, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(ctx); err != nil {
		return nil, 0, err
	}
	s.stats.Reads++
	var kvs []store.KV
	for _, key := range slices.Sorted(maps.Keys(s.data)) {
		if strings.HasPrefix(key, prefix) {
			e := s.data[key]
			kvs = append(kvs, store.KV{Key: key, Value: slices.Clone(e.value), ModRevision: e.mod})
		}
	}
	return kvs, s.rev, nil
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := store.CheckTxn(txn); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(ctx); err != nil {
		return 0, err
	}
	for _, g := range txn.Guards {
		if s.data[g.Key].mod != g.ModRevision {
			s.stats.Conflicts++
			return 0, fmt.Errorf("%w: %s", store.ErrConflict, g.Key)
		}
	}
	for _, p := range txn.Puts {
		if p.Lease != 0 && s.leases[p.Lease] == nil {
			return 0, store.ErrLeaseLost
		}
	}
	var events []store.Event
	next := s.rev + 1
	for _, p := range txn.Puts {
		value := slices.Clone(p.Value)
		s.data[p.Key] = entry{value: value, mod: next, lease: p.Lease}
		events = append(events, store.Event{Key: p.Key, Value: value, ModRevision: next})
	}
	for _, key := range txn.Deletes {
		if _, ok := s.data[key]; ok {
			delete(s.data, key)
			events = append(events, store.Event{Key: key, Deleted: true, ModRevision: next})
		}
	}
	s.stats.Puts += int64(len(txn.Puts))
	s.stats.Deletes += int64(len(txn.Deletes))
	s.recordLocked(events)
	return s.rev, nil
}

// recordLocked makes one revision of events, if there are any.
func (s *Store) recordLocked(events []store.Event) {
	if len(events) == 0 {
		return
	}
	s.rev++
	s.stats.Writes++
	s.history = append(s.history, events...)
	if len(s.history) > 2*historyEvents {
		s.compactLocked(s.history[len(s.history)-historyEvents-1].ModRevision)
	}
	s.signalLocked()
}

func (s *Store) compactLocked(rev int64) {
	s.compacted = max(s.compacted, rev)
	keep := slices.IndexFunc(s.history, func(e store.Event) bool { return e.ModRevision > rev })
	if keep < 0 {
		keep = len(s.history)
	}
	s.history = slices.Clone(s.history[keep:])
}

func (s *Store) signalLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) usableLocked(ctx context.Context) error {
	switch {
	case s.closed:
		return store.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case s.away:
		s.stats.Failures++
		return store.ErrUnavailable
	}
	return nil
}

// Stats implements store.Store.
func (s *Store) Stats() store.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		for _, l := range s.leases {
			close(l.done)
		}
		clear(s.leases)
		s.signalLocked()
	}
	s.mu.Unlock()
	s.watches.Wait()
	return nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) <-chan store.Batch {
	out := make(chan store.Batch)
	s.mu.Lock()
	if from == 0 {
		from = s.rev + 1
	}
	if !s.closed {
		s.watches.Add(1)
		defer func() { go s.watch(ctx, prefix, from, out) }()
	} else {
		defer func() { go deliver(out, store.Batch{Err: store.ErrClosed}) }()
	}
	s.mu.Unlock()
	return out
}

// deliver hands over the last batch. A reader that has gone away is not waited for for long.
func deliver(out chan<- store.Batch, b store.Batch) {
	defer close(out)
	timeout := time.NewTimer(store.ProgressInterval)
	defer timeout.Stop()
	select {
	case out <- b:
	case <-timeout.C:
	}
}

func (s *Store) watch(ctx context.Context, prefix string, next int64, out chan<- store.Batch) {
	defer s.watches.Done()
	progress := time.NewTicker(store.ProgressInterval)
	defer progress.Stop()
	for {
		batch, changed := s.since(ctx, prefix, next)
		if batch.Err != nil {
			deliver(out, batch)
			return
		}
		next = max(next, batch.Revision+1)
		if len(batch.Events) == 0 {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				continue
			case <-progress.C:
			}
		}
		select {
		case out <- batch:
		case <-ctx.Done():
		}
	}
}

// since returns the events under prefix from revision next on, and what is closed when there may be more.
func (s *Store) since(ctx context.Context, prefix string, next int64) (store.Batch, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := store.Batch{Revision: max(s.rev, next-1)}
	switch {
	case s.closed:
		b.Err = store.ErrClosed
	case ctx.Err() != nil:
		b.Err = ctx.Err()
	case s.away:
		b.Err = store.ErrUnavailable
	case next <= s.compacted:
		b.Err = store.ErrCompacted
	}
	if b.Err != nil {
		return b, nil
	}
	first, _ := slices.BinarySearchFunc(s.history, next, func(e store.Event, rev int64) int {
		return int(e.ModRevision - rev)
	})
	for _, e := range s.history[first:] {
		if strings.HasPrefix(e.Key, prefix) {
			e.Value = slices.Clone(e.Value)
			b.Events = append(b.Events, e)
		}
	}
	return b, s.changed
}

type lease struct {
	store *Store
	id    store.LeaseID
	done  chan struct{}
}

// Grant implements store.Store.
func (s *Store) Grant(ctx context.Context, _ time.Duration) (store.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(ctx); err != nil {
		return nil, err
	}
	s.nextLease++
	l := &lease{store: s, id: s.nextLease, done: make(chan struct{})}
	s.leases[l.id] = l
	return l, nil
}

func (s *Store) endLeaseLocked(id store.LeaseID) {
	l := s.leases[id]
	if l == nil {
		return
	}
	delete(s.leases, id)
	close(l.done)
	var events []store.Event
	for _, key := range slices.Sorted(maps.Keys(s.data)) {
		if s.data[key].lease == id {
			delete(s.data, key)
			events = append(events, store.Event{Key: key, Deleted: true, ModRevision: s.rev + 1})
		}
	}
	s.recordLocked(events)
}

func (l *lease) ID() store.LeaseID     { return l.id }
func (l *lease) Done() <-chan struct{} { return l.done }

func (l *lease) Release(ctx context.Context) error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.leases[l.id] == nil {
		return nil
	}
	if err := l.store.usableLocked(ctx); err != nil {
		return err
	}
	l.store.endLeaseLocked(l.id)
	return nil
}
