package catalog

import (
	"context"
	"time"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// CreateTenant makes a tenant with the fields that policy sets over the defaults.
func (s *Service) CreateTenant(ctx context.Context, t tenant.ID, policy *pb.Policy) (*TenantView, error) {
	if err := normalHosts(policy); err != nil {
		return nil, err
	}
	rec := &pb.TenantRecord{
		Id: string(t), State: string(StateActive), Policy: mergePolicy(nil, policy), Created: asTimestamp(time.Now()),
	}
	if err := s.checkPolicy(policy, rec.Policy); err != nil {
		return nil, err
	}
	wrapped, err := s.seal.newDataKey(ctx, t)
	if e := asKEKAway("create tenant", err); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, errs.Wrap(errs.Internal, "create tenant", err, "the tenant's data key could not be made")
	}
	rec.WrappedKey = wrapped
	rev, err := s.write(ctx, "create tenant", string(t), func() (store.Txn, error) {
		old := &pb.TenantRecord{}
		switch rev, err := s.get(ctx, store.Tenant(t), old); {
		case err != nil:
			return store.Txn{}, err
		case rev != 0 && State(old.GetState()) == StateDeleting:
			return store.Txn{}, errs.New(errs.Conflict, "tenant %s is being deleted: wait until it is gone", t)
		case rev != 0:
			return store.Txn{}, errs.New(errs.Conflict, "there is a tenant %q already", t)
		}
		p, err := put(store.Tenant(t), rec)
		if err != nil {
			return store.Txn{}, err
		}
		txn := store.Txn{Guards: []store.Guard{{Key: store.Tenant(t)}}, Puts: []store.Put{p}}
		return txn, s.takeHosts(ctx, t, nil, rec.GetPolicy(), &txn)
	})
	if err != nil {
		return nil, err
	}
	return viewOf(rec, rev, s.maxima()), nil
}

// UpdateTenant replaces the fields of its policy that patch sets.
func (s *Service) UpdateTenant(ctx context.Context, t tenant.ID, patch *pb.Policy) (*TenantView, error) {
	if err := normalHosts(patch); err != nil {
		return nil, err
	}
	return s.changeTenant(ctx, "update tenant", t, func(rec *pb.TenantRecord, txn *store.Txn) error {
		had := rec.GetPolicy()
		rec.Policy = mergePolicy(had, patch)
		if err := s.checkPolicy(patch, mergePolicy(boundedPolicy(had, s.maxima()), patch)); err != nil {
			return err
		}
		if patch.GetHosts() == nil {
			return nil
		}
		return s.takeHosts(ctx, t, had, rec.GetPolicy(), txn)
	})
}

// SuspendTenant makes every call of a tenant refused, or undoes that.
func (s *Service) SuspendTenant(ctx context.Context, t tenant.ID, resume bool) (*TenantView, error) {
	return s.changeTenant(ctx, "suspend tenant", t, func(rec *pb.TenantRecord, _ *store.Txn) error {
		rec.State = string(StateSuspended)
		if resume {
			rec.State = string(StateActive)
		}
		return nil
	})
}

func (s *Service) changeTenant(ctx context.Context, op string, t tenant.ID,
	change func(*pb.TenantRecord, *store.Txn) error) (*TenantView, error) {
	var rec *pb.TenantRecord
	rev, err := s.write(ctx, op, string(t), func() (store.Txn, error) {
		var mod int64
		var err error
		if rec, mod, err = s.tenantFor(ctx, t); err != nil {
			return store.Txn{}, err
		}
		txn := store.Txn{Guards: []store.Guard{{Key: store.Tenant(t), ModRevision: mod}}}
		if err := change(rec, &txn); err != nil {
			return store.Txn{}, err
		}
		p, err := put(store.Tenant(t), rec)
		txn.Puts = append(txn.Puts, p)
		return txn, err
	})
	if err != nil {
		return nil, err
	}
	return viewOf(rec, rev, s.maxima()), nil
}

// maxima are the view's: what is refused here and what calls are held to is one thing.
func (s *Service) maxima() *Maxima { return &s.view.opts.Maxima }

func (s *Service) checkPolicy(patch, whole *pb.Policy) error {
	if patch == nil {
		patch = &pb.Policy{}
	}
	return checkPolicy(patch, resolvePolicy(whole, s.maxima()), *s.maxima(), s.opts.CheckEgress, s.opts.CheckInject)
}

// viewOf shows a record that was just written.
func viewOf(rec *pb.TenantRecord, rev int64, m *Maxima) *TenantView {
	p := effectivePolicy(rec.GetPolicy(), m)
	p.Suspended = State(rec.GetState()) != StateActive
	return &TenantView{
		ID: tenant.ID(rec.GetId()), State: State(rec.GetState()), Policy: &p, Created: asTime(rec.GetCreated()), Revision: rev,
	}
}
