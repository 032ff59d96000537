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

func TestContext(t *testing.T) {
	if _, ok := identity.From(context.Background()); ok {
		t.Fatal("an empty context has an identity")
	}
	want := identity.Identity{KeyID: "k", Role: identity.RoleDeploy, Tenant: "acme"}
	if got, ok := identity.From(identity.With(context.Background(), want)); !ok || got != want {
		t.Fatalf("got %+v, %v", got, ok)
	}
}
