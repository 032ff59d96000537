package catalog

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// keepOldKey is how long a replaced key stays, so that a writer who began with it can end: a deployment puts its code first
// and finds out then that the key has changed.
const keepOldKey = time.Hour

// Rotated says what a rotation of a data key encrypted again.
type Rotated struct {
	Secrets int
	Blobs   int
}

// RotateDataKey gives a tenant a new data key and encrypts its secrets and code again. The old key stays beside it, so that
// everything can be read whenever it is broken off; it goes with a later Sweep. While it is there a rotation makes no other
// key: it ends what is left.
func (s *Service) RotateDataKey(ctx context.Context, t tenant.ID) (Rotated, error) {
	const op = "rotate data key"
	if _, err := s.write(ctx, op, string(t), func() (store.Txn, error) { return s.addDataKey(ctx, t) }); err != nil {
		return Rotated{}, err
	}
	done, err := s.sealAgain(ctx, t)
	if err != nil {
		return done, s.fault(op, err)
	}
	s.log.Info("data key rotated", "tenant", t, "secrets", done.Secrets, "blobs", done.Blobs)
	return done, nil
}

// addDataKey puts a new key into a tenant's data key, unless a rotation has begun.
func (s *Service) addDataKey(ctx context.Context, t tenant.ID) (store.Txn, error) {
	return s.changeDataKey(ctx, t, func(k *openedKey, rec *pb.TenantRecord) ([]byte, error) {
		if k.keys.Len() > 1 {
			return nil, nil
		}
		rec.KeyReplaced = asTimestamp(time.Now())
		return withNewKey(k.keys)
	})
}

// dropOldDataKeys takes all but the newest out.
func (s *Service) dropOldDataKeys(ctx context.Context, t tenant.ID) (store.Txn, error) {
	return s.changeDataKey(ctx, t, func(k *openedKey, rec *pb.TenantRecord) ([]byte, error) {
		if rec.GetKeyReplaced() == nil || rec.GetKeyReplaced().AsTime().After(time.Now().Add(-keepOldKey)) {
			return nil, nil
		}
		rec.KeyReplaced = nil
		return withPrimaryOnly(k.keys)
	})
}

// changeDataKey replaces a tenant's keyset by what change returns, nil to leave it.
func (s *Service) changeDataKey(ctx context.Context, t tenant.ID,
	change func(*openedKey, *pb.TenantRecord) ([]byte, error)) (store.Txn, error) {
	rec, rev, err := s.tenantFor(ctx, t)
	if err != nil {
		return store.Txn{}, err
	}
	k, err := s.seal.dataKey(ctx, t, rec.GetWrappedKey())
	if err != nil {
		return store.Txn{}, err
	}
	next, err := change(k, rec)
	if err != nil || next == nil {
		return store.Txn{}, err
	}
	if rec.WrappedKey, err = s.opts.KEK.Wrap(ctx, next, dataKeyPurpose(t)); err != nil {
		return store.Txn{}, err
	}
	p, err := put(store.Tenant(t), rec)
	return store.Txn{Guards: []store.Guard{{Key: store.Tenant(t), ModRevision: rev}}, Puts: []store.Put{p}}, err
}

// sealAgain encrypts what is not under the tenant's newest key.
func (s *Service) sealAgain(ctx context.Context, t tenant.ID) (done Rotated, err error) {
	if done.Secrets, err = s.sealSecretsAgain(ctx, t); err != nil {
		return done, err
	}
	done.Blobs, err = s.sealBlobsAgain(ctx, t)
	return done, err
}

func (s *Service) sealSecretsAgain(ctx context.Context, t tenant.ID) (done int, err error) {
	kvs, _, err := s.store.List(ctx, store.SecretsOf(t))
	if err != nil {
		return 0, err
	}
	for _, kv := range kvs {
		rev, err := s.write(ctx, "rotate data key", string(t), func() (store.Txn, error) { return s.sealSecretAgain(ctx, t, kv.Key) })
		if err != nil {
			return done, err
		}
		if rev != 0 {
			done++
		}
	}
	return done, nil
}

// sealSecretAgain leaves the secret's own revision: nothing has changed for who uses it.
func (s *Service) sealSecretAgain(ctx context.Context, t tenant.ID, key string) (store.Txn, error) {
	owner, tenantRev, err := s.tenantFor(ctx, t)
	if err != nil {
		return store.Txn{}, err
	}
	rec := &pb.SecretRecord{}
	rev, err := s.get(ctx, key, rec)
	if err != nil || rev == 0 {
		return store.Txn{}, err
	}
	sealed, err := s.resealed(ctx, owner, kindSecret, secretRef(rec.GetName(), rec.GetFunction()), rec.GetSealed())
	if err != nil || sealed == nil {
		return store.Txn{}, err
	}
	rec.Sealed = sealed
	p, err := put(key, rec)
	return store.Txn{Guards: []store.Guard{
		{Key: store.Tenant(t), ModRevision: tenantRev}, {Key: key, ModRevision: rev},
	}, Puts: []store.Put{p}}, err
}

func (s *Service) sealBlobsAgain(ctx context.Context, t tenant.ID) (done int, err error) {
	owner, _, err := s.tenantFor(ctx, t)
	if err != nil {
		return 0, err
	}
	err = s.opts.Blobs.ofTenant(ctx, t, func(name string) error {
		old, err := s.opts.Blobs.get(ctx, t, name, maxCodeBytes+sealOverhead)
		if errors.Is(err, ErrNoBlob) {
			return nil
		}
		if err != nil {
			return err
		}
		sealed, err := s.resealed(ctx, owner, kindCode, name, old)
		if err != nil || sealed == nil {
			return err
		}
		done++
		return s.opts.Blobs.put(ctx, t, name, sealed)
	})
	return done, err
}

// resealed returns a ciphertext under the tenant's newest key, nil if it is under that already, or opens under none: then
// no key is worth keeping for it.
func (s *Service) resealed(ctx context.Context, owner *pb.TenantRecord, kind, name string, old []byte) ([]byte, error) {
	t := tenant.ID(owner.GetId())
	k, err := s.seal.dataKey(ctx, t, owner.GetWrappedKey())
	if err != nil || isUnder(old, k.primary) {
		return nil, err
	}
	plain, err := k.aead.Decrypt(old, associated(t, kind, name))
	if err != nil {
		s.log.Error("rotate data key: a ciphertext opens with none of the tenant's keys", "tenant", t, "kind", kind, "name", name)
		return nil, nil
	}
	return k.aead.Encrypt(plain, associated(t, kind, name))
}

// RotateKEK makes a new key-encryption key and wraps all data keys with it; it returns how many. The old key stays in the
// file, so that everything can be read whenever it is broken off; it goes with a later Sweep. While it is there a rotation
// makes no other key: it ends what is left. A key that a service keeps is rotated there; then this wraps everything with
// what that service holds for the newest.
func (s *Service) RotateKEK(ctx context.Context) (int, error) {
	const op = "rotate key-encryption key"
	if k, ok := s.opts.KEK.(rotatingKEK); ok {
		if err := k.addKey(); err != nil {
			return 0, errs.Wrap(errs.Internal, op, err, "the new key could not be written; the operator's log has the details")
		}
	}
	n, err := s.wrapAgain(ctx)
	if err != nil {
		return n, s.fault(op, err)
	}
	s.log.Info("key-encryption key rotated", "tenants", n)
	return n, nil
}

// wrapAgain wraps the data keys that are not under the newest key-encryption key.
func (s *Service) wrapAgain(ctx context.Context) (done int, err error) {
	kvs, _, err := s.store.List(ctx, store.TenantsPrefix)
	if err != nil {
		return 0, err
	}
	for _, kv := range kvs {
		_, parts := store.SplitKey(kv.Key)
		if len(parts) == 0 || !s.outdated(kv.Value) {
			continue
		}
		t := tenant.ID(parts[0])
		rev, err := s.write(ctx, "rotate key-encryption key", string(t), func() (store.Txn, error) { return s.wrapOne(ctx, t) })
		if err != nil && !errs.Is(err, errs.NotFound) {
			return done, err
		}
		if rev != 0 {
			done++
		}
	}
	return done, nil
}

// outdated says whether a tenant's record holds a data key that is not under the newest key-encryption key.
func (s *Service) outdated(tenantRecord []byte) bool {
	rec := &pb.TenantRecord{}
	if proto.Unmarshal(tenantRecord, rec) != nil {
		return true
	}
	k, ok := s.opts.KEK.(rotatingKEK)
	return len(rec.GetWrappedKey()) > 0 && (!ok || k.outdated(rec.GetWrappedKey()))
}

func (s *Service) wrapOne(ctx context.Context, t tenant.ID) (store.Txn, error) {
	rec := &pb.TenantRecord{}
	rev, err := s.get(ctx, store.Tenant(t), rec) // one that is being deleted as well: until then it needs its key
	if err != nil || rev == 0 {
		return store.Txn{}, err
	}
	key, err := s.opts.KEK.Unwrap(ctx, rec.GetWrappedKey(), dataKeyPurpose(t))
	if err != nil {
		return store.Txn{}, err
	}
	if rec.WrappedKey, err = s.opts.KEK.Wrap(ctx, key, dataKeyPurpose(t)); err != nil {
		return store.Txn{}, err
	}
	p, err := put(store.Tenant(t), rec)
	return store.Txn{Guards: []store.Guard{{Key: store.Tenant(t), ModRevision: rev}}, Puts: []store.Put{p}}, err
}

// sweepKeysets ends rotations: what is not under the newest keys is encrypted with them, and keys that were replaced long
// enough ago go.
func (s *Service) sweepKeysets(ctx context.Context) error {
	var all []error
	for _, t := range s.view.Tenants("", int(^uint(0)>>1)) {
		if t.keyReplaced.IsZero() || t.State == StateDeleting {
			continue
		}
		if _, err := s.sealAgain(ctx, t.ID); err != nil {
			all = append(all, s.fault("rotate data key", err))
			continue
		}
		_, err := s.write(ctx, "rotate data key", string(t.ID), func() (store.Txn, error) { return s.dropOldDataKeys(ctx, t.ID) })
		if err != nil && !errs.Is(err, errs.NotFound) {
			all = append(all, err)
		}
	}
	return errors.Join(append(all, s.sweepKEK(ctx))...)
}

func (s *Service) sweepKEK(ctx context.Context) error {
	k, ok := s.opts.KEK.(rotatingKEK)
	if !ok {
		return nil
	}
	before := time.Now().Add(-keepOldKey)
	if _, err := s.wrapAgain(ctx); err != nil {
		return s.fault("rotate key-encryption key", err)
	}
	n, err := k.dropOld(before)
	if n > 0 {
		s.log.Info("replaced key-encryption keys removed", "keys", n)
	}
	return err
}
