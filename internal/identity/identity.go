// Package identity says who makes a request: a credential, its role and the tenant it acts for. The router puts an
// Identity into the context once the credential is checked; the services read it. It checks no credential itself.
package identity

import (
	"context"

	"paddock/internal/tenant"
)

// Role is what a credential may do. Each role can do all that the ones before it can, within its tenant.
type Role string

// The roles, weakest first. Only RoleOperator belongs to no tenant.
const (
	RoleInvoke      Role = "invoke"       // call functions, run code, read logs
	RoleDeploy      Role = "deploy"       // and change functions
	RoleTenantAdmin Role = "tenant-admin" // and keys
	RoleOperator    Role = "operator"     // everything, in every tenant
)

// ParseRole returns the role named s and whether there is one.
func ParseRole(s string) (Role, bool) {
	switch r := Role(s); r {
	case RoleInvoke, RoleDeploy, RoleTenantAdmin, RoleOperator:
		return r, true
	}
	return "", false
}

func (r Role) rank() int {
	switch r {
	case RoleInvoke:
		return 1
	case RoleDeploy:
		return 2
	case RoleTenantAdmin:
		return 3
	case RoleOperator:
		return 4
	}
	return 0
}

// Includes says whether r may do what needs asks for. An unknown role includes nothing and is included in nothing.
func (r Role) Includes(needs Role) bool { return needs.rank() > 0 && r.rank() >= needs.rank() }

// Identity is who asks. It is a value: nobody changes one that is in a context.
type Identity struct {
	KeyID string // for logs and authorship; not secret
	Role  Role
	// Tenant is the effective tenant: the credential's own, or the one that an operator named; "" if it named none.
	Tenant tenant.ID
}

type contextKey struct{}

// With returns a context that carries id.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// From returns the identity in ctx and whether there is one. Without one, deny.
func From(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(contextKey{}).(Identity)
	return id, ok
}
