package catalog

import (
	"context"
	"encoding/base64"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Pages of listings.
const (
	defaultPage = 100
	maxPage     = 1000
)

// Server offers a Service and its View as the API's Catalog. Requests carry an identity in their context; what a role may
// ask for at all is checked before, here only that nobody leaves their tenant. Errors are *errs.Error.
type Server struct {
	pb.UnimplementedCatalogServer
	service *Service
	view    *View
}

// NewServer returns a Server.
func NewServer(s *Service) *Server { return &Server{service: s, view: s.view} }

var _ pb.CatalogServer = (*Server)(nil)

// who returns the identity of a request, which must include a role.
func who(ctx context.Context, needs identity.Role) (identity.Identity, error) {
	id, ok := identity.From(ctx)
	if !ok {
		return id, errs.New(errs.Unauthenticated, "the request carries no identity")
	}
	if !id.Role.Includes(needs) {
		return id, errs.New(errs.Denied, "role %s may not do that: it needs %s", id.Role, needs)
	}
	return id, nil
}

// actsFor returns the identity of a request within one tenant.
func actsFor(ctx context.Context, needs identity.Role) (identity.Identity, error) {
	id, err := who(ctx, needs)
	if err == nil && id.Tenant == "" {
		err = errs.New(errs.Invalid, "name the tenant: the header Paddock-Tenant, or --tenant")
	}
	return id, err
}

// operatorFor returns the tenant that an operator's request is about.
func operatorFor(ctx context.Context, id string) (tenant.ID, error) {
	if _, err := who(ctx, identity.RoleOperator); err != nil {
		return "", err
	}
	return parseTenant(id)
}

func parseTenant(id string) (tenant.ID, error) {
	t, err := tenant.ParseID(id)
	if err != nil {
		return "", errs.New(errs.Invalid, "%v", err)
	}
	return t, nil
}

// CreateTenant implements paddock.v1.Catalog.
func (s *Server) CreateTenant(ctx context.Context, r *pb.CreateTenantRequest) (*pb.Tenant, error) {
	t, err := operatorFor(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	v, err := s.service.CreateTenant(ctx, t, r.GetPolicy())
	return showTenant(v), err
}

// GetTenant implements paddock.v1.Catalog. A tenant's own keys may read it.
func (s *Server) GetTenant(ctx context.Context, r *pb.GetTenantRequest) (*pb.Tenant, error) {
	if r.GetId() == "" { // the caller's own
		id, err := actsFor(ctx, identity.RoleTenantAdmin)
		if err != nil {
			return nil, err
		}
		return s.tenant(id.Tenant)
	}
	id, err := who(ctx, identity.RoleTenantAdmin)
	if err != nil {
		return nil, err
	}
	t, err := parseTenant(r.GetId())
	if err != nil {
		return nil, err
	}
	if id.Role != identity.RoleOperator && id.Tenant != t {
		return nil, errs.New(errs.Denied, "this key belongs to another tenant")
	}
	return s.tenant(t)
}

func (s *Server) tenant(t tenant.ID) (*pb.Tenant, error) {
	v, ok := s.view.Tenant(t)
	if !ok {
		return nil, noTenant(t)
	}
	out := showTenant(v)
	out.Usage = &pb.TenantUsage{}
	if one, ok := s.view.snapshots.get(t); ok {
		out.Functions = int32(len(one.functions))
		out.Usage.Functions, out.Usage.Pipelines, out.Usage.SourceBytes = out.Functions, int32(len(one.pipelines)), one.largest()
	}
	return out, nil
}

// ListTenants implements paddock.v1.Catalog.
func (s *Server) ListTenants(ctx context.Context, r *pb.ListTenantsRequest) (*pb.ListTenantsResponse, error) {
	if _, err := who(ctx, identity.RoleOperator); err != nil {
		return nil, err
	}
	size, after, err := page(r)
	if err != nil {
		return nil, err
	}
	out := &pb.ListTenantsResponse{}
	for _, v := range s.view.Tenants(tenant.ID(after), size+1) {
		if len(out.Tenants) == size {
			out.NextPageToken = pageToken(out.Tenants[size-1].Id)
			break
		}
		out.Tenants = append(out.Tenants, showTenant(v))
	}
	return out, nil
}

// UpdateTenant implements paddock.v1.Catalog.
func (s *Server) UpdateTenant(ctx context.Context, r *pb.UpdateTenantRequest) (*pb.Tenant, error) {
	t, err := operatorFor(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	v, err := s.service.UpdateTenant(ctx, t, r.GetPolicy())
	return showTenant(v), err
}

// SuspendTenant implements paddock.v1.Catalog.
func (s *Server) SuspendTenant(ctx context.Context, r *pb.SuspendTenantRequest) (*pb.Tenant, error) {
	t, err := operatorFor(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	v, err := s.service.SuspendTenant(ctx, t, r.GetResume())
	return showTenant(v), err
}

// DeleteTenant implements paddock.v1.Catalog.
func (s *Server) DeleteTenant(ctx context.Context, r *pb.DeleteTenantRequest) (*pb.DeleteTenantResponse, error) {
	t, err := operatorFor(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	d, err := s.service.DeleteTenant(ctx, t)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteTenantResponse{
		Revision: d.Revision, Containers: int32(d.Containers), Keys: int32(d.Keys), Functions: int32(d.Functions),
	}, nil
}

// SetSecret implements paddock.v1.Catalog.
func (s *Server) SetSecret(ctx context.Context, r *pb.SetSecretRequest) (*pb.Secret, error) {
	id, err := actsFor(ctx, identity.RoleTenantAdmin)
	if err != nil {
		return nil, err
	}
	v, err := s.service.SetSecret(ctx, id.Tenant, NewSecret{
		Name: r.GetName(), Function: r.GetFunction(), Value: r.GetValue(), Author: id.KeyID,
	})
	if err != nil {
		return nil, err
	}
	return showSecret(v), nil
}

// ListSecrets implements paddock.v1.Catalog. Values are shown to nobody.
func (s *Server) ListSecrets(ctx context.Context, _ *pb.ListSecretsRequest) (*pb.ListSecretsResponse, error) {
	id, err := actsFor(ctx, identity.RoleTenantAdmin)
	if err != nil {
		return nil, err
	}
	out := &pb.ListSecretsResponse{}
	for _, v := range s.view.ListSecrets(id.Tenant) {
		out.Secrets = append(out.Secrets, showSecret(v))
	}
	return out, nil
}

// DeleteSecret implements paddock.v1.Catalog.
func (s *Server) DeleteSecret(ctx context.Context, r *pb.DeleteSecretRequest) (*pb.DeleteSecretResponse, error) {
	id, err := actsFor(ctx, identity.RoleTenantAdmin)
	if err != nil {
		return nil, err
	}
	rev, err := s.service.DeleteSecret(ctx, id.Tenant, r.GetName(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	return &pb.DeleteSecretResponse{Revision: rev}, nil
}

// RotateDataKey implements paddock.v1.Catalog.
func (s *Server) RotateDataKey(ctx context.Context, _ *pb.RotateDataKeyRequest) (*pb.RotateDataKeyResponse, error) {
	id, err := actsFor(ctx, identity.RoleTenantAdmin)
	if err != nil {
		return nil, err
	}
	done, err := s.service.RotateDataKey(ctx, id.Tenant)
	if err != nil {
		return nil, err
	}
	return &pb.RotateDataKeyResponse{Secrets: int32(done.Secrets), Blobs: int32(done.Blobs)}, nil
}

func showSecret(v *SecretView) *pb.Secret {
	return &pb.Secret{
		Name: v.Name, Function: v.Function, Revision: v.Revision, Updated: asTimestamp(v.Updated), Author: v.Author,
	}
}

func showTenant(v *TenantView) *pb.Tenant {
	if v == nil {
		return nil
	}
	return &pb.Tenant{
		Id: string(v.ID), State: string(v.State), Policy: showPolicy(v.Policy), Created: asTimestamp(v.Created),
		Revision: v.Revision,
	}
}

// page reads what a listing asks for: the size, and the name after which it begins.
func page(r interface {
	GetPageSize() int32
	GetPageToken() string
}) (size int, after string, err error) {
	size = int(r.GetPageSize())
	switch {
	case size == 0:
		size = defaultPage
	case size < 0 || size > maxPage:
		return 0, "", errs.New(errs.Invalid, "page_size is %d: it must be from 1 to %d", size, maxPage)
	}
	b, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil {
		return 0, "", errs.New(errs.Invalid, "page_token: use the next_page_token of the page before")
	}
	return size, string(b), nil
}

func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }
