package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	pb "paddock/proto/paddock/v1"
)

// LeaseTTL is how long a controller counts as alive after its last sign of life.
const LeaseTTL = 10 * time.Second

// rejoinBackMax is how long a controller waits at most, half as much more by chance, before it registers again.
const rejoinBackMax = 2 * time.Second

// membership keeps controllers/<id> in the store, under a lease, for as long as it runs: when the lease is lost the record
// is written again. Losing it harms nobody here: the assignments' records stay and count again with the next one.
type membership struct {
	store store.Store
	log   *slog.Logger

	mu      sync.Mutex
	record  *pb.ControllerRecord
	changed chan struct{} // closed and replaced when record is
	joined  bool
	before  func(context.Context) // runs ahead of each registration; nil: nothing
}

func newMembership(s store.Store, rec *pb.ControllerRecord, log *slog.Logger) *membership {
	return &membership{store: s, log: log, record: rec, changed: make(chan struct{})}
}

// update replaces the record.
func (m *membership) update(change func(*pb.ControllerRecord)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := proto.Clone(m.record).(*pb.ControllerRecord)
	change(next)
	if proto.Equal(next, m.record) {
		return
	}
	m.record = next
	close(m.changed)
	m.changed = make(chan struct{})
}

// renew writes the record once more as it is: a sign of life that others can tell from an old record.
func (m *membership) renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *membership) current() (*pb.ControllerRecord, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record, m.changed
}

// run registers and registers again until ctx ends, then takes the record away.
func (m *membership) run(ctx context.Context) {
	backoff := writeBackoff
	for {
		joined, err := m.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if joined {
			backoff = writeBackoff
		}
		m.log.Warn("not registered in the store; registering again", "err", err)
		// Controllers lose their leases together when the store is in trouble: they do not come back together.
		if !sleep(ctx, backoff/2+rand.N(backoff)) {
			return
		}
		backoff = min(2*backoff, rejoinBackMax)
	}
}

// once registers and stays until the lease is lost or ctx ends. joined says whether it was registered at all.
func (m *membership) once(ctx context.Context) (joined bool, err error) {
	lease, err := m.store.Grant(ctx, LeaseTTL)
	if err != nil {
		return false, err
	}
	defer func() {
		m.setJoined(false)
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = lease.Release(release) // it ends by itself otherwise
	}()
	if m.before != nil {
		m.before(ctx)
	}
	for {
		rec, changed := m.current()
		if err := m.put(ctx, rec, lease.ID()); err != nil {
			return joined, err
		}
		if !joined {
			m.log.Info("registered in the store", "controller", rec.GetId())
		}
		joined = true
		m.setJoined(true)
		select {
		case <-ctx.Done():
			return joined, ctx.Err()
		case <-lease.Done():
			return joined, errors.New("the lease was lost")
		case <-changed:
		}
	}
}

// put writes the record over whatever stands there: our own from before a restart, at most.
func (m *membership) put(ctx context.Context, rec *pb.ControllerRecord, lease store.LeaseID) error {
	value, err := proto.Marshal(rec)
	if err != nil {
		return err
	}
	key := store.Controller(rec.GetId())
	for range 3 {
		kv, err := m.store.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		_, err = m.store.Commit(ctx, store.Txn{
			Guards: []store.Guard{{Key: key, ModRevision: kv.ModRevision}},
			Puts:   []store.Put{{Key: key, Value: value, Lease: lease}},
		})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%s keeps changing: another controller has the same id", key)
}

func (m *membership) setJoined(v bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined = v
}

// isJoined says whether the record stands in the store as far as we know.
func (m *membership) isJoined() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}
