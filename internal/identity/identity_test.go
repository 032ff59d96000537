package identity_test

import (
	"context"
	"testing"

	"paddock/internal/identity"
)

func TestRolesAreOrdered(t *testing.T) {
	order := []identity.Role{
		identity.RoleInvoke, identity.RoleDeploy, identity.RoleTenantAdmin, identity.RoleOperator,
	}
	for i, have := range order {
		for j, needs := range order {
			if got := have.Includes(needs); got != (i >= j) {
				t.Errorf("%s.Includes(%s) = %v", have, needs, got)
			}
		}
		if have.Includes("") || have.Includes("root") || identity.Role("").Includes(have) {
			t.Errorf("%s: an unknown role took part", have)
		}
	}
}

func TestScopes(t *testing.T) {
	if _, unknown := identity.ParseScopes([]string{"call", "root"}); unknown != "root" {
		t.Errorf("unknown %q", unknown)
	}
	both, _ := identity.ParseScopes([]string{"logs", "call", "logs"})
	call, _ := identity.ParseScopes([]string{"call"})
	all, _ := identity.ParseScopes(nil)
	if both != "call logs" || all != "" {
		t.Errorf("%q %q", both, all)
	}
	for _, c := range []struct {
		wide, narrow identity.Scopes
		includes     bool
	}{{all, all, true}, {all, call, true}, {call, all, false}, {both, call, true}, {call, both, false}, {call, call, true}} {
		if got := c.wide.Include(c.narrow); got != c.includes {
			t.Errorf("%q.Include(%q) = %v", c.wide, c.narrow, got)
		}
	}
	for _, r := range identity.Resources() {
		if !all.Allow(r) || call.Allow(r) != (r == "call") {
			t.Errorf("Allow(%s)", r)
		}
	}
}

func TestContext(t *testing.T) {
	if _, ok := identity.From(context.Background()); ok {
		t.Fatal("an empty context has an identity")
	}
	want := identity.Identity{KeyID: "k", Role: identity.RoleDeploy, Tenant: "acme"}
	if got, ok := identity.From(identity.With(context.Background(), want)); !ok || got != want {
		t.Fatalf("got %+v, %v", got, ok)
	}
}
