package catalog

import (
	"context"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// compile refuses code that does not compile. What stands as a version already has compiled, and is not asked about again.
func (s *Service) compile(ctx context.Context, t tenant.ID, uploads []*upload) error {
	if s.opts.Compile == nil || len(uploads) == 0 {
		return nil
	}
	policy, err := s.policyOf(ctx, t)
	if err != nil {
		return err
	}
	byRuntime := map[string][]call.Code{}
	for _, u := range uploads {
		if n := int64(len(u.Source)); n > policy.SourceBytes {
			return tooLong(u.Name, n, policy.SourceBytes)
		}
		if f, ok := s.view.lookup(t, u.Name); ok && u.same(f.Versions()) != nil {
			continue
		}
		byRuntime[u.Runtime] = append(byRuntime[u.Runtime], call.Code{Hash: u.hash, Kind: u.Kind, Name: u.Name + ".js", Source: u.Source})
	}
	for runtime, code := range byRuntime {
		if err := s.opts.Compile(ctx, t, policy, runtime, code); err != nil {
			return err
		}
	}
	return nil
}

// policyOf returns a tenant's policy as the view has it: of a tenant that was made a moment ago elsewhere, once it is seen.
func (s *Service) policyOf(ctx context.Context, t tenant.ID) (*tenant.Policy, error) {
	v, ok := s.view.Tenant(t)
	if !ok {
		_, rev, err := s.tenantFor(ctx, t)
		if err != nil {
			return nil, err
		}
		s.seen(ctx, rev)
		if v, ok = s.view.Tenant(t); !ok {
			return nil, noTenant(t)
		}
	}
	return v.Policy, nil
}

func tooLong(function string, n, most int64) *errs.Error {
	return errs.New(errs.Invalid, "the source of %s has %d bytes: at most %d are allowed", function, n, most)
}
