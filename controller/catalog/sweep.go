package catalog

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

const (
	// keepExpired is how long an expired key's record stays for people to see why it fails.
	keepExpired = 7 * 24 * time.Hour
	// keepCode is how long code stays that nothing refers to: a deployment puts it first and refers to it then.
	keepCode = 24 * time.Hour
)

func (s *Service) sweepKeys(ctx context.Context) error {
	due := time.Now().Add(-keepExpired)
	for _, k := range s.view.keysOf(func(k *keyEntry) bool { return k.expired(due) }) {
		if _, err := s.RevokeKey(ctx, k.Tenant, k.ID); err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
	}
	return nil
}

// sweepCode asks the store what is referred to, after the age of what it removes is settled: whatever a deployment puts
// from now on is too young.
func (s *Service) sweepCode(ctx context.Context) error {
	before := time.Now().Add(-keepCode)
	kvs, _, err := s.store.List(ctx, store.VersionsPrefix)
	if err != nil {
		return s.fault("sweep code", err)
	}
	wanted := map[codeKey]bool{}
	for _, kv := range kvs {
		_, parts := store.SplitKey(kv.Key)
		var rec pb.VersionRecord
		if err := proto.Unmarshal(kv.Value, &rec); err != nil || len(parts) == 0 {
			return errs.Wrap(errs.Internal, "sweep code", err, "version %s cannot be read: no code is removed", kv.Key)
		}
		wanted[codeKey{tenant.ID(parts[0]), rec.GetHash()}] = true
	}
	n, err := s.opts.Blobs.sweep(ctx, before, func(t tenant.ID, name string) bool { return wanted[codeKey{t, name}] })
	if n > 0 {
		s.log.Info("code that nothing refers to removed", "blobs", n)
	}
	if err != nil {
		return s.fault("sweep code", err)
	}
	return nil
}
