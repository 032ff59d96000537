package catalog

import (
	"context"
	"strings"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// KeyServer offers a Service as the API's Keys. An operator manages operators' keys and any tenant's; a tenant-admin its
// own tenant's. Errors are *errs.Error.
type KeyServer struct {
	pb.UnimplementedKeysServer
	service *Service
}

// NewKeyServer returns a KeyServer.
func NewKeyServer(s *Service) *KeyServer { return &KeyServer{service: s} }

var _ pb.KeysServer = (*KeyServer)(nil)

// keysOfTenant returns whose keys a request is about: the tenant that it names, else that of the identity.
func keysOfTenant(ctx context.Context, named string) (tenant.ID, error) {
	id, err := who(ctx, identity.RoleTenantAdmin)
	if err != nil {
		return "", err
	}
	t := id.Tenant
	if named != "" {
		if t, err = parseTenant(named); err != nil {
			return "", err
		}
	}
	switch {
	case id.Role == identity.RoleOperator:
		if id.Tenant != "" && t != id.Tenant {
			return "", errs.New(errs.Invalid, "the request names tenant %s and its header %s", t, id.Tenant)
		}
		return t, nil
	case t != id.Tenant || t == "":
		return "", errs.New(errs.Denied, "this key belongs to another tenant")
	}
	return t, nil
}

// CreateKey implements paddock.v1.Keys. An operator's key is made by an operator whose request names no tenant.
func (s *KeyServer) CreateKey(ctx context.Context, r *pb.CreateKeyRequest) (*pb.CreateKeyResponse, error) {
	t, err := keysOfTenant(ctx, r.GetTenant())
	if err != nil {
		return nil, err
	}
	if r.GetRole() == string(identity.RoleOperator) {
		if _, err := who(ctx, identity.RoleOperator); err != nil {
			return nil, err
		}
		t = tenant.ID(r.GetTenant()) // the tenant that the caller acts for otherwise does not count here
	}
	n := NewKey{Tenant: t, Role: identity.Role(r.GetRole()), Note: r.GetNote(), Owner: r.GetOwner()}
	var unknown string
	if n.Scopes, unknown = identity.ParseScopes(r.GetScopes()); unknown != "" {
		return nil, errs.New(errs.Invalid, "there is no scope %.40q: use %s", unknown, strings.Join(identity.Resources(), ", "))
	}
	if id, _ := identity.From(ctx); !id.Scopes.Include(n.Scopes) {
		return nil, errs.New(errs.Denied, "a key with scopes makes no key with more: name scopes among %s", id.Scopes)
	}
	if r.Ttl != nil {
		if n.TTL = r.Ttl.AsDuration(); r.Ttl.CheckValid() != nil || n.TTL <= 0 {
			return nil, errs.New(errs.Invalid, "a key's time to live must be above 0 and at most %v", MaxKeyTTL)
		}
	}
	k, token, rev, err := s.service.CreateKey(ctx, n)
	if err != nil {
		return nil, err
	}
	return &pb.CreateKeyResponse{Key: showKey(k), Secret: token, Revision: rev}, nil
}

// ListKeys implements paddock.v1.Keys. An operator who names no tenant sees all keys.
func (s *KeyServer) ListKeys(ctx context.Context, r *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
	t, err := keysOfTenant(ctx, r.GetTenant())
	if err != nil {
		return nil, err
	}
	out := &pb.ListKeysResponse{}
	for _, k := range s.service.Keys(t, t == "") {
		out.Keys = append(out.Keys, showKey(k))
	}
	return out, nil
}

// RevokeKey implements paddock.v1.Keys. An operator who names no tenant may revoke any key by its id.
func (s *KeyServer) RevokeKey(ctx context.Context, r *pb.RevokeKeyRequest) (*pb.RevokeKeyResponse, error) {
	t, err := keysOfTenant(ctx, "")
	if err != nil {
		return nil, err
	}
	if t == "" {
		if k, ok := s.service.view.Key(r.GetId()); ok {
			t = k.Tenant
		}
	}
	rev, err := s.service.RevokeKey(ctx, t, r.GetId())
	if err != nil {
		return nil, err
	}
	return &pb.RevokeKeyResponse{Revision: rev}, nil
}

// RotateKEK implements paddock.v1.Keys.
func (s *KeyServer) RotateKEK(ctx context.Context, _ *pb.RotateKEKRequest) (*pb.RotateKEKResponse, error) {
	if _, err := who(ctx, identity.RoleOperator); err != nil {
		return nil, err
	}
	n, err := s.service.RotateKEK(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.RotateKEKResponse{Tenants: int32(n)}, nil
}

func showKey(k *KeyInfo) *pb.Key {
	return &pb.Key{
		Id: k.ID, Tenant: string(k.Tenant), Role: string(k.Role), Note: k.Note, Created: asTimestamp(k.Created),
		Expires: asTimestamp(k.Expires), Owner: k.Owner, Scopes: k.Scopes.List(), LastUsed: asTimestamp(k.Used),
	}
}
