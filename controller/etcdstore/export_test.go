package etcdstore

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"paddock/controller/store"
)

// Client is the client under s.
func Client(s *Store) *clientv3.Client { return s.client }

// Revoke ends a lease behind its holder's back.
func Revoke(ctx context.Context, s *Store, id store.LeaseID) error {
	_, err := s.client.Revoke(ctx, clientv3.LeaseID(id))
	return err
}

// BreakServer makes the server meet what it cannot go on with.
func BreakServer(e *Embedded) {
	go e.server.GetLogger().Fatal("made to fail by a test", zap.Error(errors.New("no space left on device")))
}
