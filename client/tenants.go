package client

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "paddock/proto/paddock/v1"
)

// Tenants manages tenants: all of it with an operator's key, Get with a tenant-admin's as well.
type Tenants struct{ c *Client }

// Tenants manages tenants.
func (c *Client) Tenants() Tenants { return Tenants{c} }

// Create makes a tenant. What policy leaves unset is the service's default; nil is all defaults.
func (t Tenants) Create(ctx context.Context, id string, policy *Policy) (*Tenant, error) {
	return management(ctx, t.c, pb.NewCatalogClient(t.c.conn).CreateTenant, &pb.CreateTenantRequest{Id: id, Policy: policy})
}

// Get returns a tenant with the whole of its policy; "" is the key's own. Keys of the role tenant-admin may.
func (t Tenants) Get(ctx context.Context, id string) (*Tenant, error) {
	return management(ctx, t.c, pb.NewCatalogClient(t.c.conn).GetTenant, &pb.GetTenantRequest{Id: id})
}

// All lists all tenants.
func (t Tenants) All(ctx context.Context) iter.Seq2[*Tenant, error] {
	return pages(ctx, func(ctx context.Context, token string) (*pb.ListTenantsResponse, error) {
		return management(ctx, t.c, pb.NewCatalogClient(t.c.conn).ListTenants, &pb.ListTenantsRequest{PageToken: token})
	}, (*pb.ListTenantsResponse).GetTenants)
}

// Update replaces the fields of the policy that are set.
func (t Tenants) Update(ctx context.Context, id string, policy *Policy) (*Tenant, error) {
	return management(ctx, t.c, pb.NewCatalogClient(t.c.conn).UpdateTenant, &pb.UpdateTenantRequest{Id: id, Policy: policy})
}

// Suspend refuses its calls, cancels those in flight and drains its containers.
func (t Tenants) Suspend(ctx context.Context, id string) (*Tenant, error) {
	return management(ctx, t.c, pb.NewCatalogClient(t.c.conn).SuspendTenant, &pb.SuspendTenantRequest{Id: id})
}

// Resume undoes Suspend.
func (t Tenants) Resume(ctx context.Context, id string) (*Tenant, error) {
	return management(ctx, t.c, pb.NewCatalogClient(t.c.conn).SuspendTenant, &pb.SuspendTenantRequest{Id: id, Resume: true})
}

// Delete removes a tenant with its containers, keys, code and logs.
func (t Tenants) Delete(ctx context.Context, id string) error {
	_, err := management(ctx, t.c, pb.NewCatalogClient(t.c.conn).DeleteTenant, &pb.DeleteTenantRequest{Id: id})
	return err
}

// Keys manages API keys: those of its tenant with a tenant-admin's key, all with an operator's.
type Keys struct{ c *Client }

// Keys manages API keys.
func (c *Client) Keys() Keys { return Keys{c} }

// NewKey is a key to be made.
type NewKey struct {
	Tenant string // "" is the key's own, or an operator's key
	Role   string // operator, tenant-admin, deploy or invoke
	Note   string
	TTL    time.Duration // 0: it does not expire
	Owner  string        // "": the role
	Scopes []string      // none: all that the role may
}

// Create makes a key. The secret is what goes into Options.Key; nothing gives it out again.
func (k Keys) Create(ctx context.Context, n NewKey) (key *Key, secret string, err error) {
	req := &pb.CreateKeyRequest{Tenant: n.Tenant, Role: n.Role, Note: n.Note, Owner: n.Owner, Scopes: n.Scopes}
	if n.TTL != 0 {
		req.Ttl = durationpb.New(n.TTL)
	}
	res, err := management(ctx, k.c, pb.NewKeysClient(k.c.conn).CreateKey, req)
	return res.GetKey(), res.GetSecret(), err
}

// List lists a tenant's keys; "" is the key's own, or all with an operator's.
func (k Keys) List(ctx context.Context, tenant string) ([]*Key, error) {
	res, err := management(ctx, k.c, pb.NewKeysClient(k.c.conn).ListKeys, &pb.ListKeysRequest{Tenant: tenant})
	return res.GetKeys(), err
}

// Revoke ends a key, everywhere within 5 seconds.
func (k Keys) Revoke(ctx context.Context, id string) error {
	_, err := management(ctx, k.c, pb.NewKeysClient(k.c.conn).RevokeKey, &pb.RevokeKeyRequest{Id: id})
	return err
}
