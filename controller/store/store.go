// Package store is what Paddock asks of the store that its processes agree through: a revisioned key-value map with
// guarded transactions, watches that miss nothing, and leases. Every write raises one revision for the whole store. The
// keys are built in keys.go and nowhere else. It holds no records' meaning and no implementation: those are etcdstore
// and memstore, with one contract suite over both in storetest.
package store

import (
	"context"
	"errors"
	"time"
)

// Errors, to be asked for with errors.Is. What an implementation returns wraps its own cause beside them.
var (
	// ErrNotFound: no such key.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict: a guard did not hold; nothing was written. Read again and decide again.
	ErrConflict = errors.New("store: conflict")
	// ErrCompacted: the revision that a watch wanted to start from is gone. List and watch from there.
	ErrCompacted = errors.New("store: revision compacted")
	// ErrUnavailable: the store did not answer in time. A Commit may still have taken effect: its guards make it safe to
	// read again and repeat.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrNoSpace: the store's disk or quota is full; nothing was written. Reads go on.
	ErrNoSpace = errors.New("store: no space")
	// ErrTooLarge: a transaction or value is beyond what the store takes; nothing was written.
	ErrTooLarge = errors.New("store: too large")
	// ErrLeaseLost: the lease that a put names is gone; nothing was written.
	ErrLeaseLost = errors.New("store: lease lost")
	// ErrDenied: the store has access control, and who asks may not do that.
	ErrDenied = errors.New("store: denied: the certificate's role has no right to that ('paddock store access' gives the rights)")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store: closed")
)

// Limits that every implementation keeps, so that code tried over one works over the other.
const (
	MaxTxnOps     = 128             // guards, and puts plus deletes, of one Commit
	MaxValueBytes = 1 << 20         // of one value
	MaxTxnBytes   = 5 << 18         // keys and values of one Commit, 1.25 MiB
	CallTimeout   = 5 * time.Second // a call gives up after this with ErrUnavailable, if its context did not end before
)

// KV is one key as it stands. Value belongs to the receiver.
type KV struct {
	Key         string
	Value       []byte
	ModRevision int64 // of its last write; guards compare with this
}

// Guard must hold for a Commit to happen.
type Guard struct {
	Key         string
	ModRevision int64 // 0: the key must be absent
}

// LeaseID names a lease; 0 is none.
type LeaseID int64

// Put is one key to write.
type Put struct {
	Key   string
	Value []byte
	Lease LeaseID // the key goes away with it
}

// Txn is written whole or not at all. No key may be both put and deleted, or be put twice. Deleting an absent key is no
// error; a transaction that only deletes absent keys makes no revision.
type Txn struct {
	Guards  []Guard
	Puts    []Put
	Deletes []string
}

// Event is one change of one key.
type Event struct {
	Key         string
	Value       []byte // nil if Deleted
	Deleted     bool
	ModRevision int64 // of this write or delete
}

// Batch is what a watch delivers: events in the order of their revisions, all of a revision in one batch. An empty batch
// is progress: everything up to Revision has been delivered. A batch with Err is the last.
type Batch struct {
	Events   []Event
	Revision int64
	Err      error // ErrCompacted, ErrUnavailable, ErrClosed, or the context's
}

// Store is safe for concurrent use.
type Store interface {
	// Get reads one key; ErrNotFound if it is absent.
	Get(ctx context.Context, key string) (KV, error)
	// List reads all keys under prefix, sorted, at one revision, which it returns.
	List(ctx context.Context, prefix string) ([]KV, int64, error)
	// Commit writes txn if all its guards hold and returns the revision of the write.
	Commit(ctx context.Context, txn Txn) (int64, error)
	// Watch delivers every change under prefix with a revision of at least from (0: from now on), until ctx ends, then a
	// batch with Err, then closes the channel. Progress comes at least every ProgressInterval while the store is there.
	// The receiver must keep reading or end ctx.
	Watch(ctx context.Context, prefix string, from int64) <-chan Batch
	// Grant makes a lease and keeps it alive until Release, Close or loss.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
	// Stats counts what this handle asked for since it was made.
	Stats() Stats
	// Close ends watches and keepalives. It is idempotent.
	Close() error
}

// ProgressInterval is how often a live watch shows that it is alive.
const ProgressInterval = time.Second

// Lease is a promise that ends by itself when its holder is gone. It is a hint of liveness, never a lock on anything
// outside of the store.
type Lease interface {
	ID() LeaseID
	// Done is closed when the lease is lost or released.
	Done() <-chan struct{}
	// Release ends the lease and deletes its keys now.
	Release(ctx context.Context) error
}

// Stats counts calls. A write is a Commit that made a revision.
type Stats struct {
	Reads     int64
	Writes    int64
	Puts      int64 // keys written
	Deletes   int64 // keys asked to be deleted
	Conflicts int64
	Failures  int64 // calls that the store did not answer
}
