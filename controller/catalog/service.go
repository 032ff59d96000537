package catalog

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Limits that are not a tenant's policy.
const (
	MaxKeys      = 100 // of a tenant, and of operators
	MaxVersions  = 100 // of a function that are kept; older ones go when newer ones come
	MaxFormer    = 16  // steps that a function can be rolled back
	conflictTry  = 64  // times a guarded write is decided again
	conflictWait = 2 * time.Millisecond
	seenWait     = 2 * time.Second
)

// Remover makes a tenant's containers go away and cancels its calls; it returns how many containers there were. It is
// called again if it failed, and with a tenant that has none.
type Remover interface {
	RemoveTenant(ctx context.Context, t tenant.ID) (int, error)
}

// Compiler says whether code for a runtime compiles, without running it: errs.LoadError if some does not, another kind if that
// could not be found out.
type Compiler func(ctx context.Context, t tenant.ID, policy *tenant.Policy, runtime string, code []call.Code) error

// Options say what a Service writes to.
type Options struct {
	Store   store.Store
	View    *View
	Blobs   *Blobs
	KEK     KEK
	Pepper  Pepper
	Remover Remover
	// CheckEgress judges one egress rule; nil: only its form, host:port.
	CheckEgress func(rule string) error
	// CheckInject judges a policy's injections; nil: only that nothing is missing.
	CheckInject func([]tenant.Injection) error
	// Compile is asked before code is stored. nil: nobody is.
	Compile Compiler
	// Runtimes that functions may name; the first is the default. nil: node.
	Runtimes []string
	Logger   *slog.Logger
}

// Service changes the catalogue. Every change is one transaction guarded by what it was decided on, or a row of such that
// can be broken off and repeated. Errors are *errs.Error. Safe for concurrent use, by any number of processes.
type Service struct {
	opts   Options
	store  store.Store
	view   *View
	seal   *sealer
	log    *slog.Logger
	queues queues
}

// NewService returns a Service.
func NewService(o Options) (*Service, error) {
	if o.CheckEgress == nil {
		o.CheckEgress = checkHostPort
	}
	if o.CheckInject == nil {
		o.CheckInject = checkComplete
	}
	if o.Runtimes == nil {
		o.Runtimes = []string{"node"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	seal, err := newSealer(o.KEK)
	if err != nil {
		return nil, err
	}
	return &Service{
		opts: o, store: o.Store, view: o.View, seal: seal, log: o.Logger, queues: queues{m: map[string]*queue{}},
	}, nil
}

// write decides and commits until no other writer was faster. decide reads what it needs and guards it; an empty
// transaction means that there is nothing to do. Writers of one queue in this process take turns, so that they do not
// spend their time on each other's conflicts.
func (s *Service) write(ctx context.Context, op, queue string, decide func() (store.Txn, error)) (int64, error) {
	leave, err := s.queues.enter(ctx, queue)
	if err != nil {
		return 0, s.fault(op, err)
	}
	defer leave()
	for try := range conflictTry {
		txn, err := decide()
		if err != nil {
			return 0, s.fault(op, err)
		}
		if len(txn.Puts)+len(txn.Deletes) == 0 {
			return 0, nil
		}
		rev, err := s.store.Commit(ctx, txn)
		if err == nil {
			s.seen(ctx, rev)
			return rev, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			e := s.fault(op, err)
			if errors.Is(err, store.ErrUnavailable) {
				e.Started = errs.StartedMaybe
			}
			return 0, e
		}
		select {
		case <-ctx.Done():
			return 0, s.fault(op, ctx.Err())
		case <-time.After(rand.N(conflictWait * time.Duration(try+1))):
		}
	}
	return 0, errs.New(errs.Conflict, "others keep changing the same thing: try again")
}

// seen waits until this process's view has the write, so that whoever goes on in this process finds it. A view that lags
// fails nobody.
func (s *Service) seen(ctx context.Context, rev int64) {
	ctx, cancel := context.WithTimeout(ctx, seenWait)
	defer cancel()
	_ = s.view.WaitRevision(ctx, rev)
}

// get reads a record into m and returns its revision, 0 if it is absent.
func (s *Service) get(ctx context.Context, key string, m proto.Message) (int64, error) {
	kv, err := s.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := proto.Unmarshal(kv.Value, m); err != nil {
		return 0, errs.Wrap(errs.Internal, "read "+key, err, "a record cannot be read; the operator's log has the details")
	}
	return kv.ModRevision, nil
}

// tenantFor reads a tenant that is to be changed.
func (s *Service) tenantFor(ctx context.Context, t tenant.ID) (*pb.TenantRecord, int64, error) {
	rec := &pb.TenantRecord{}
	rev, err := s.get(ctx, store.Tenant(t), rec)
	switch {
	case err != nil:
		return nil, 0, err
	case rev == 0:
		return nil, 0, noTenant(t)
	case State(rec.GetState()) == StateDeleting:
		return nil, 0, errs.New(errs.Conflict, "tenant %s is being deleted", t)
	}
	return rec, rev, nil
}

// usageFor reads a tenant's counts.
func (s *Service) usageFor(ctx context.Context, t tenant.ID) (*pb.UsageRecord, int64, error) {
	u := &pb.UsageRecord{}
	rev, err := s.get(ctx, store.Usage(t), u)
	return u, rev, err
}

func put(key string, m proto.Message) (store.Put, error) {
	b, err := proto.Marshal(m)
	return store.Put{Key: key, Value: b}, err
}

func noTenant(t tenant.ID) *errs.Error {
	return errs.New(errs.NotFound, "there is no tenant %q: create it with `paddock tenants create %s`", t, t)
}

// fault gives an error of the store or of the disk its kind and a text for the caller.
func (s *Service) fault(op string, err error) *errs.Error {
	var e *errs.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		e = errs.Wrap(errs.NoCapacity, op, err, "the store does not answer: calls go on, changes have to wait; try again")
		e.RetryAfter = time.Second
	case errors.Is(err, ErrKEKAway):
		e = asKEKAway(op, err)
	case errors.Is(err, store.ErrNoSpace):
		e = errs.Wrap(errs.NoCapacity, op, err, "the store's disk or quota is full: the operator has to make room")
		e.RetryAfter = time.Minute
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e = errs.Wrap(errs.NoCapacity, op, err, "the disk that holds the code is full: the operator has to make room")
		e.RetryAfter = time.Minute
	case errors.Is(err, store.ErrTooLarge):
		e = errs.Wrap(errs.Invalid, op, err, "the request makes a record that is too large")
	case errors.Is(err, context.Canceled):
		e = errs.Wrap(errs.Cancelled, op, err, "the caller went away")
	case errors.Is(err, context.DeadlineExceeded):
		e = errs.Wrap(errs.Timeout, op, err, "the deadline passed")
	default:
		e = errs.From(err)
		e.Op = strings.TrimSpace(op)
	}
	return e
}

// queues lets writers of the same thing take turns.
type queues struct {
	mu sync.Mutex
	m  map[string]*queue
}

type queue struct {
	turn chan struct{} // holds one
	used int
}

// enter waits for the turn of name; leave gives it on.
func (q *queues) enter(ctx context.Context, name string) (leave func(), err error) {
	q.mu.Lock()
	one := q.m[name]
	if one == nil {
		one = &queue{turn: make(chan struct{}, 1)}
		q.m[name] = one
	}
	one.used++
	q.mu.Unlock()
	done := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if one.used--; one.used == 0 {
			delete(q.m, name)
		}
	}
	select {
	case one.turn <- struct{}{}:
		return func() { <-one.turn; done() }, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}
