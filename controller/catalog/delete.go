package catalog

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Deleted says what went with a tenant.
type Deleted struct {
	Revision   int64
	Containers int
	Keys       int
	Functions  int
}

// DeleteTenant removes a tenant with all that is its: containers, keys, functions, pipelines, host names, code, and at last the record with its
// data key, without which no copy of its code can be read. The tenant serves nothing from the first write on. Broken off
// anywhere, it goes on when it is called again or at the next Sweep.
func (s *Service) DeleteTenant(ctx context.Context, t tenant.ID) (Deleted, error) {
	const op = "delete tenant"
	var d Deleted
	if err := s.markDeleting(ctx, t); err != nil {
		return d, err
	}
	var err error
	if s.opts.Remover != nil {
		if d.Containers, err = s.opts.Remover.RemoveTenant(ctx, t); err != nil {
			return d, s.fault(op, err)
		}
	}
	keys, err := s.keyRecords(ctx, t)
	if err != nil {
		return d, s.fault(op, err)
	}
	if d.Keys, err = s.deleteKeys(ctx, keys); err != nil {
		return d, s.fault(op, err)
	}
	for _, prefix := range []string{
		store.FunctionsOf(t), store.AllVersionsOf(t), store.PipelinesOf(t), store.SecretsOf(t),
	} {
		n, err := s.deletePrefix(ctx, prefix)
		if err != nil {
			return d, s.fault(op, err)
		}
		if prefix == store.FunctionsOf(t) {
			d.Functions = n
		}
	}
	hosts, err := s.hostRecords(ctx, t)
	if err != nil {
		return d, s.fault(op, err)
	}
	if _, err := s.deleteKeys(ctx, hosts); err != nil {
		return d, s.fault(op, err)
	}
	if err := s.opts.Blobs.removeTenant(ctx, t); err != nil {
		return d, s.fault(op, err)
	}
	if d.Revision, err = s.dropTenant(ctx, t); err != nil {
		return d, err
	}
	s.seal.forget(t)
	s.log.Info("tenant deleted", "tenant", t, "containers", d.Containers, "keys", d.Keys, "functions", d.Functions)
	return d, nil
}

// markDeleting is the write from which on nothing can be added to the tenant: every addition guards on its record.
func (s *Service) markDeleting(ctx context.Context, t tenant.ID) error {
	_, err := s.write(ctx, "delete tenant", string(t), func() (store.Txn, error) {
		rec := &pb.TenantRecord{}
		rev, err := s.get(ctx, store.Tenant(t), rec)
		if err != nil {
			return store.Txn{}, err
		}
		if rev == 0 {
			return store.Txn{}, noTenant(t)
		}
		if State(rec.GetState()) == StateDeleting {
			return store.Txn{}, nil
		}
		rec.State = string(StateDeleting)
		p, err := put(store.Tenant(t), rec)
		return store.Txn{Guards: []store.Guard{{Key: store.Tenant(t), ModRevision: rev}}, Puts: []store.Put{p}}, err
	})
	return err
}

// dropTenant removes the record, if it is still being deleted. Somebody else who was faster has done the same.
func (s *Service) dropTenant(ctx context.Context, t tenant.ID) (int64, error) {
	return s.write(ctx, "delete tenant", string(t), func() (store.Txn, error) {
		rec := &pb.TenantRecord{}
		rev, err := s.get(ctx, store.Tenant(t), rec)
		if err != nil || rev == 0 || State(rec.GetState()) != StateDeleting {
			return store.Txn{}, err
		}
		return store.Txn{
			Guards:  []store.Guard{{Key: store.Tenant(t), ModRevision: rev}},
			Deletes: []string{store.Tenant(t), store.Usage(t)},
		}, nil
	})
}

// keyRecords reads the ids of a tenant's keys from the store, which knows of those that the view has not seen yet.
func (s *Service) keyRecords(ctx context.Context, t tenant.ID) ([]string, error) {
	kvs, _, err := s.store.List(ctx, store.KeysPrefix)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range kvs {
		var rec pb.KeyRecord
		if err := proto.Unmarshal(kv.Value, &rec); err == nil && rec.GetTenant() == string(t) {
			keys = append(keys, kv.Key)
		}
	}
	return keys, nil
}

func (s *Service) deletePrefix(ctx context.Context, prefix string) (int, error) {
	kvs, _, err := s.store.List(ctx, prefix)
	if err != nil {
		return 0, err
	}
	keys := make([]string, len(kvs))
	for i, kv := range kvs {
		keys[i] = kv.Key
	}
	return s.deleteKeys(ctx, keys)
}

func (s *Service) deleteKeys(ctx context.Context, keys []string) (int, error) {
	for done := 0; done < len(keys); {
		next := keys[done:min(done+store.MaxTxnOps, len(keys))]
		if _, err := s.store.Commit(ctx, store.Txn{Deletes: next}); err != nil {
			return done, err
		}
		done += len(next)
	}
	return len(keys), nil
}

// Sweep does what is due in the background: it finishes deletions that were broken off, removes keys a while after they
// expired, code that nothing refers to, and keys that a rotation has replaced. One process at a time should do it, once an hour or so; two harm nothing.
func (s *Service) Sweep(ctx context.Context) error {
	var all []error
	for _, t := range s.view.Tenants("", int(^uint(0)>>1)) {
		if t.State == StateDeleting {
			if _, err := s.DeleteTenant(ctx, t.ID); err != nil && !errs.Is(err, errs.NotFound) {
				all = append(all, err)
			}
		}
	}
	all = append(all, s.sweepKeys(ctx), s.sweepCode(ctx), s.sweepKeysets(ctx))
	return errors.Join(all...)
}
