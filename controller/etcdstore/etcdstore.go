// Package etcdstore is store.Store over etcd: a cluster by its endpoints (Dial), or a server inside this process (Embed).
// It and only it imports etcd. It knows nothing of what records mean, and takes no part in running a cluster.
package etcdstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"paddock/controller/store"
)

// listPage is how many keys one range request of a List reads.
const listPage = 2000

// A connection that shows no sign of life is given up after keepaliveTime + keepaliveTimeout.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
)

// Store is a store.Store over one etcd client.
type Store struct {
	client *clientv3.Client
	log    *slog.Logger
	// dead is closed when the server in this process has failed for good; nil for a remote one.
	dead <-chan struct{}
	// writable says whether a write may be tried; nil: always.
	writable func() error
	counts   counts
	watches  atomic.Int64 // numbers them

	stop    context.CancelFunc // ends watches and keepalives
	ctx     context.Context
	working sync.WaitGroup
	closing sync.Once
	mu      sync.Mutex // guards closed against working.Add
	closed  bool
}

type counts struct{ reads, writes, puts, deletes, conflicts, failures atomic.Int64 }

var _ store.Store = (*Store)(nil)

// Options say which cluster.
type Options struct {
	Endpoints []string // "https://host:2379", "unix:///path"
	TLS       *tls.Config
	Username  string
	Password  string
	Logger    *slog.Logger
}

// Dial connects to a cluster and reads from it once, so that a wrong endpoint is an error here and not later.
func Dial(ctx context.Context, o Options) (*Store, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("etcdstore: no endpoints")
	}
	log := orDiscard(o.Logger)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, Username: o.Username, Password: o.Password,
		DialTimeout: store.CallTimeout, DialKeepAliveTime: keepaliveTime, DialKeepAliveTimeout: keepaliveTimeout,
		Logger: zap.New(&slogCore{log: log}),
	})
	if err != nil {
		return nil, fmt.Errorf("etcdstore: %w", err)
	}
	s := newStore(client, log)
	if _, err := s.Get(ctx, store.Root); err != nil && !errors.Is(err, store.ErrNotFound) {
		_ = s.Close()
		return nil, fmt.Errorf("etcdstore: etcd at %s: %w", strings.Join(o.Endpoints, ", "), err)
	}
	return s, nil
}

func newStore(client *clientv3.Client, log *slog.Logger) *Store {
	s := &Store{client: client, log: log}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.KV, error) {
	s.counts.reads.Add(1)
	resp, err := ask(ctx, s, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.client.Get(ctx, key)
	})
	if err != nil {
		return store.KV{}, err
	}
	if len(resp.Kvs) == 0 {
		return store.KV{}, fmt.Errorf("%w: %s", store.ErrNotFound, key)
	}
	kv := resp.Kvs[0]
	return store.KV{Key: key, Value: kv.Value, ModRevision: kv.ModRevision}, nil
}

// List implements store.Store. It reads in pages, all at the revision of the first.
func (s *Store) List(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	s.counts.reads.Add(1)
	end := clientv3.GetPrefixRangeEnd(prefix)
	var kvs []store.KV
	var rev int64
	for from := prefix; ; {
		resp, err := ask(ctx, s, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(rev))
		})
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			kvs = append(kvs, store.KV{Key: string(kv.Key), Value: kv.Value, ModRevision: kv.ModRevision})
		}
		if !resp.More {
			return kvs, rev, nil
		}
		from = kvs[len(kvs)-1].Key + "\x00"
	}
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := store.CheckTxn(txn); err != nil {
		return 0, err
	}
	if s.writable != nil {
		if err := s.writable(); err != nil {
			return 0, err
		}
	}
	resp, err := ask(ctx, s, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.client.Txn(ctx).If(compares(txn)...).Then(ops(txn)...).Commit()
	})
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		s.counts.conflicts.Add(1)
		return 0, store.ErrConflict
	}
	s.counts.puts.Add(int64(len(txn.Puts)))
	s.counts.deletes.Add(int64(len(txn.Deletes)))
	if wrote(txn, resp) {
		s.counts.writes.Add(1)
	}
	return resp.Header.Revision, nil
}

func compares(txn store.Txn) []clientv3.Cmp {
	if guardsOff {
		return nil
	}
	out := make([]clientv3.Cmp, len(txn.Guards))
	for i, g := range txn.Guards {
		out[i] = clientv3.Compare(clientv3.ModRevision(g.Key), "=", g.ModRevision)
	}
	return out
}

func ops(txn store.Txn) []clientv3.Op {
	out := make([]clientv3.Op, 0, len(txn.Puts)+len(txn.Deletes))
	for _, p := range txn.Puts {
		out = append(out, clientv3.OpPut(p.Key, string(p.Value), clientv3.WithLease(clientv3.LeaseID(p.Lease))))
	}
	for _, key := range txn.Deletes {
		out = append(out, clientv3.OpDelete(key))
	}
	return out
}

func wrote(txn store.Txn, resp *clientv3.TxnResponse) bool {
	if len(txn.Puts) > 0 {
		return true
	}
	for _, r := range resp.Responses {
		if d := r.GetResponseDeleteRange(); d != nil && d.Deleted > 0 {
			return true
		}
	}
	return false
}

// ask runs one call with a deadline and translates its error. A call into a server in this process may hang once that
// server has failed, whatever its context says, so it is not waited for.
func ask[T any](ctx context.Context, s *Store, call func(context.Context) (T, error)) (T, error) {
	var none T
	if err := s.enter(); err != nil {
		return none, err
	}
	bounded, cancel := context.WithTimeout(ctx, store.CallTimeout)
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		defer s.working.Done()
		defer cancel()
		value, err := call(bounded)
		answers <- answer{value, err}
	}()
	var a answer
	select {
	case a = <-answers:
	case <-bounded.Done():
		a.err = bounded.Err()
	case <-s.dead:
		a.err = errors.New("the embedded server failed")
	}
	if a.err != nil {
		select {
		case a = <-answers: // the call's own end cancels bounded too, after its answer
		default:
		}
	}
	if a.err != nil {
		return none, s.translate(ctx, a.err)
	}
	return a.value, nil
}

// enter registers a piece of work that Close waits for.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	select {
	case <-s.dead:
		s.counts.failures.Add(1)
		return fmt.Errorf("%w: the embedded server failed", store.ErrUnavailable)
	default:
	}
	s.working.Add(1)
	return nil
}

// translate gives an error of etcd its meaning. ctx is the caller's: its end is reported as such.
func (s *Store) translate(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%w: %w", store.ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: %w", store.ErrLeaseLost, err)
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w: %w", store.ErrCompacted, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrUserNotFound):
		return fmt.Errorf("%w: %w", store.ErrDenied, err)
	}
	s.counts.failures.Add(1)
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// Stats implements store.Store.
func (s *Store) Stats() store.Stats {
	c := &s.counts
	return store.Stats{
		Reads: c.reads.Load(), Writes: c.writes.Load(), Puts: c.puts.Load(), Deletes: c.deletes.Load(),
		Conflicts: c.conflicts.Load(), Failures: c.failures.Load(),
	}
}

// Close implements store.Store. Leases are left to run out.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.stop()
		s.settle()
		if err = s.client.Close(); errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) {
			err = nil
		}
	})
	return err
}

// settle waits for what is under way, but not for a server that has failed.
func (s *Store) settle() {
	settled := make(chan struct{})
	go func() {
		s.working.Wait()
		close(settled)
	}()
	select {
	case <-settled:
	case <-s.dead:
	case <-time.After(2 * store.CallTimeout):
		s.log.Error("etcd: calls did not end at close")
	}
}
