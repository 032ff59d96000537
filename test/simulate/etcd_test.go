package simulate

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"paddock/controller/store"
)

// commitTime is what a write takes: a round among the members and a disk.
const commitTime = 2 * time.Millisecond

// etcd is a store of which the tenants' own records are made up when they are listed, and everything else is kept. It is as
// large as the real one would be only where someone holds a list.
type etcd struct {
	static func(yield func(key string, value []byte)) // at revision 1
	listed time.Duration                              // real time that the last whole list took to make

	mu          sync.Mutex
	rev         int64
	data        map[string]*record
	assignments map[string]map[string]*record // by controller
	leases      map[store.LeaseID]map[string]bool
	nextLease   store.LeaseID
	watchers    []*watcher
	stats       store.Stats
	assigned    int64 // puts of assignments
}

type record struct {
	value []byte
	mod   int64
	lease store.LeaseID
}

// watcher is one watch: what it has not delivered yet.
type watcher struct {
	mu     sync.Mutex
	events []store.Event
	rev    int64
	wake   chan struct{}
}

func newEtcd(static func(func(string, []byte))) *etcd {
	return &etcd{
		static: static, rev: 1, data: map[string]*record{}, assignments: map[string]map[string]*record{},
		leases: map[store.LeaseID]map[string]bool{},
	}
}

// placeLocked is the map that a key belongs in.
func (e *etcd) placeLocked(key string) map[string]*record {
	kind, parts := store.SplitKey(key)
	if kind != store.KindAssignment {
		return e.data
	}
	m := e.assignments[parts[0]]
	if m == nil {
		m = map[string]*record{}
		e.assignments[parts[0]] = m
	}
	return m
}

// seed puts a record there from the beginning.
func (e *etcd) seed(key string, value []byte) {
	e.placeLocked(key)[key] = &record{value: value, mod: 1}
}

func (e *etcd) Get(_ context.Context, key string) (store.KV, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Reads++
	r := e.placeLocked(key)[key]
	if r == nil {
		return store.KV{}, fmt.Errorf("%w: %s", store.ErrNotFound, key)
	}
	return store.KV{Key: key, Value: r.value, ModRevision: r.mod}, nil
}

func (e *etcd) List(_ context.Context, prefix string) ([]store.KV, int64, error) {
	began := wall()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Reads++
	var kvs []store.KV
	add := func(m map[string]*record) {
		for key, r := range m {
			if strings.HasPrefix(key, prefix) { // copies, as from the network
				kvs = append(kvs, store.KV{Key: strings.Clone(key), Value: bytes.Clone(r.value), ModRevision: r.mod})
			}
		}
	}
	if of, ok := strings.CutPrefix(prefix, store.AssignmentsPrefix); ok && of != "" {
		add(e.assignments[strings.TrimSuffix(of, "/")])
		return kvs, e.rev, nil
	}
	add(e.data)
	if prefix == store.Root {
		e.static(func(key string, value []byte) { kvs = append(kvs, store.KV{Key: key, Value: value, ModRevision: 1}) })
		for _, m := range e.assignments {
			add(m)
		}
		e.listed = wall() - began
	}
	return kvs, e.rev, nil
}

func (e *etcd) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := store.CheckTxn(txn); err != nil {
		return 0, err
	}
	select {
	case <-time.After(commitTime):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, g := range txn.Guards {
		var mod int64
		if r := e.placeLocked(g.Key)[g.Key]; r != nil {
			mod = r.mod
		}
		if mod != g.ModRevision {
			e.stats.Conflicts++
			return 0, fmt.Errorf("%w: %s", store.ErrConflict, g.Key)
		}
	}
	var events []store.Event
	for _, p := range txn.Puts {
		e.placeLocked(p.Key)[p.Key] = &record{value: p.Value, mod: e.rev + 1, lease: p.Lease}
		if p.Lease != 0 {
			e.leases[p.Lease][p.Key] = true
		}
		if strings.HasPrefix(p.Key, store.AssignmentsPrefix) {
			e.assigned++
		}
		events = append(events, store.Event{Key: p.Key, Value: p.Value, ModRevision: e.rev + 1})
	}
	events = append(events, e.deleteLocked(txn.Deletes)...)
	e.stats.Puts += int64(len(txn.Puts))
	e.tellLocked(events)
	return e.rev, nil
}

func (e *etcd) deleteLocked(keys []string) (events []store.Event) {
	for _, key := range keys {
		if m := e.placeLocked(key); m[key] != nil {
			delete(m, key)
			e.stats.Deletes++
			events = append(events, store.Event{Key: key, Deleted: true, ModRevision: e.rev + 1})
		}
	}
	return events
}

func (e *etcd) tellLocked(events []store.Event) {
	if len(events) == 0 {
		return
	}
	e.rev++
	e.stats.Writes++
	for _, w := range e.watchers {
		w.mu.Lock()
		w.events, w.rev = append(w.events, events...), e.rev
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (e *etcd) Watch(ctx context.Context, prefix string, from int64) <-chan store.Batch {
	w, out := &watcher{wake: make(chan struct{}, 1)}, make(chan store.Batch)
	e.mu.Lock()
	defer e.mu.Unlock()
	if prefix != store.Root || from != e.rev+1 {
		panic(fmt.Sprintf("a watch of %s from %d at %d is not modelled", prefix, from, e.rev))
	}
	w.rev = e.rev
	e.watchers = append(e.watchers, w)
	go func() {
		defer close(out)
		progress := time.NewTicker(store.ProgressInterval)
		defer progress.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			case <-progress.C:
			}
			w.mu.Lock()
			b := store.Batch{Events: w.events, Revision: w.rev}
			w.events = nil
			w.mu.Unlock()
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// lease ends when its holder lets go of it, or its time is up without it.
type lease struct {
	e    *etcd
	id   store.LeaseID
	done chan struct{}
}

func (e *etcd) Grant(context.Context, time.Duration) (store.Lease, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nextLease++
	e.leases[e.nextLease] = map[string]bool{}
	return &lease{e, e.nextLease, make(chan struct{})}, nil
}

func (l *lease) ID() store.LeaseID     { return l.id }
func (l *lease) Done() <-chan struct{} { return l.done }

func (l *lease) Release(context.Context) error {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	var keys []string
	for key := range l.e.leases[l.id] {
		keys = append(keys, key)
	}
	delete(l.e.leases, l.id)
	slices.Sort(keys)
	l.e.tellLocked(l.e.deleteLocked(keys))
	return nil
}

func (e *etcd) Stats() store.Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

func (e *etcd) Close() error { return nil }

// puts counts the assignments that were written.
func (e *etcd) puts() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.assigned
}
