package catalog

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// MaxHosts is how many host names a tenant may have.
const MaxHosts = 32

// normalHosts brings the host names of a policy, if it has any, into the form in which they are kept.
func normalHosts(p *pb.Policy) error {
	list := p.GetHosts()
	if list == nil {
		return nil
	}
	names := make([]string, 0, len(list.GetHosts()))
	for _, host := range list.GetHosts() {
		name, err := normalHost(host)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > MaxHosts {
		return errs.New(errs.Invalid, "policy: hosts has %d names: at most %d", len(names), MaxHosts)
	}
	p.Hosts = &pb.Hosts{Hosts: names}
	return nil
}

// takeHosts makes, in txn, the records of a tenant's host names those of want. Each name is one tenant's.
func (s *Service) takeHosts(ctx context.Context, t tenant.ID, had, want *pb.Policy, txn *store.Txn) error {
	old, next := had.GetHosts().GetHosts(), want.GetHosts().GetHosts()
	for _, host := range next {
		owner, rev, err := s.hostOwner(ctx, host)
		switch {
		case err != nil:
			return err
		case rev != 0 && owner == t:
			continue
		case rev != 0:
			return errs.New(errs.Conflict, "host %s belongs to tenant %s: take it from there first", host, owner)
		}
		p, err := put(store.Host(host), &pb.HostRecord{Tenant: string(t)})
		if err != nil {
			return err
		}
		txn.Guards = append(txn.Guards, store.Guard{Key: store.Host(host)})
		txn.Puts = append(txn.Puts, p)
	}
	for _, host := range old {
		if slices.Contains(next, host) {
			continue
		}
		owner, rev, err := s.hostOwner(ctx, host)
		if err != nil {
			return err
		}
		if rev != 0 && owner == t {
			txn.Guards = append(txn.Guards, store.Guard{Key: store.Host(host), ModRevision: rev})
			txn.Deletes = append(txn.Deletes, store.Host(host))
		}
	}
	return nil
}

func (s *Service) hostOwner(ctx context.Context, host string) (tenant.ID, int64, error) {
	rec := &pb.HostRecord{}
	rev, err := s.get(ctx, store.Host(host), rec)
	return tenant.ID(rec.GetTenant()), rev, err
}

// hostRecords returns the keys of a tenant's host names in the store.
func (s *Service) hostRecords(ctx context.Context, t tenant.ID) ([]string, error) {
	kvs, _, err := s.store.List(ctx, store.HostsPrefix)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range kvs {
		var rec pb.HostRecord
		if err := proto.Unmarshal(kv.Value, &rec); err == nil && rec.GetTenant() == string(t) {
			keys = append(keys, kv.Key)
		}
	}
	return keys, nil
}
