package etcdstore

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"paddock/controller/store"
)

type lease struct {
	store *Store
	id    clientv3.LeaseID
	stop  context.CancelFunc // ends the keepalive
	done  chan struct{}
	once  sync.Once
}

// Grant implements store.Store. ttl is rounded up to whole seconds.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (store.Lease, error) {
	resp, err := ask(ctx, s, func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) {
		return s.client.Grant(ctx, int64(math.Ceil(ttl.Seconds())))
	})
	if err != nil {
		return nil, err
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	keep, stop := context.WithCancel(s.ctx)
	l := &lease{store: s, id: resp.ID, stop: stop, done: make(chan struct{})}
	answers, err := s.client.KeepAlive(keep, resp.ID)
	if err != nil {
		stop()
		s.working.Done()
		return nil, s.translate(ctx, err)
	}
	go l.keep(answers)
	return l, nil
}

// keep lasts as long as the lease: the client closes answers when the server says that it is gone, or when its time has
// passed without an answer.
func (l *lease) keep(answers <-chan *clientv3.LeaseKeepAliveResponse) {
	defer l.store.working.Done()
	defer l.end()
	for {
		select {
		case _, ok := <-answers:
			if !ok {
				return
			}
		case <-l.store.dead:
			return
		}
	}
}

func (l *lease) end() {
	l.once.Do(func() {
		l.stop()
		close(l.done)
	})
}

func (l *lease) ID() store.LeaseID     { return store.LeaseID(l.id) }
func (l *lease) Done() <-chan struct{} { return l.done }

func (l *lease) Release(ctx context.Context) error {
	_, err := ask(ctx, l.store, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		return l.store.client.Revoke(ctx, l.id)
	})
	l.end()
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, store.ErrLeaseLost) {
		return nil
	}
	return err
}
