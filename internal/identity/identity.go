// Package identity says who makes a request: a credential, its role and the tenant it acts for. The router puts an
// Identity into the context once the credential is checked; the services read it. It checks no credential itself.
package identity

import (
	"context"
	"slices"
	"strings"

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

// Resources is what scopes name and the route table is divided into.
func Resources() []string {
	return []string{"call", "logs", "functions", "secrets", "keys", "tenants", "pool", "audit"}
}

// Scopes are the resources that a credential is held to, joined by spaces; "" is all that its role may.
type Scopes string

// ParseScopes makes Scopes of names, sorted; unknown is the first that is no resource, "" if all are.
func ParseScopes(names []string) (s Scopes, unknown string) {
	known := Resources()
	names = slices.Clone(names)
	slices.Sort(names)
	for _, n := range names {
		if !slices.Contains(known, n) {
			return "", n
		}
	}
	return Scopes(strings.Join(slices.Compact(names), " ")), ""
}

// List returns the names, none for all.
func (s Scopes) List() []string { return strings.Fields(string(s)) }

// Allow says whether a resource is within s.
func (s Scopes) Allow(resource string) bool {
	return s == "" || slices.Contains(s.List(), resource)
}

// Include says whether s is at least as wide as t.
func (s Scopes) Include(t Scopes) bool {
	if s == "" {
		return true
	}
	return t != "" && !slices.ContainsFunc(t.List(), func(r string) bool { return !s.Allow(r) })
}

// Identity is who asks. It is a value: nobody changes one that is in a context.
type Identity struct {
	KeyID string // for logs and authorship; not secret
	Role  Role
	// Tenant is the effective tenant: the credential's own, or the one that an operator named; "" if it named none.
	Tenant tenant.ID
	Scopes Scopes
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
