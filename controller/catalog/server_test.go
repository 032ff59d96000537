package catalog

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

func as(t *testing.T, role identity.Role, id tenant.ID) context.Context {
	return identity.With(t.Context(), identity.Identity{KeyID: "k-" + string(role), Role: role, Tenant: id})
}

// TestWhoMay: every rpc, by every role, in one's own tenant and another's. Whoever adds an rpc adds a row: the counts at
// the end say so.
func TestWhoMay(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("other", nil)
	w.deploy("acme", "f", "x")
	foreign, _, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "other", Role: identity.RoleInvoke})
	must(t, err)
	c, k := NewServer(w.service), NewKeyServer(w.service)
	rows := []struct {
		name  string
		needs identity.Role
		call  func(context.Context) error
	}{
		{"CreateTenant", identity.RoleOperator, func(ctx context.Context) error {
			_, err := c.CreateTenant(ctx, &pb.CreateTenantRequest{Id: "acme"})
			return ignore(err, errs.Conflict)
		}},
		{"GetTenant", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := c.GetTenant(ctx, &pb.GetTenantRequest{Id: "acme"})
			return err
		}},
		{"ListTenants", identity.RoleOperator, func(ctx context.Context) error {
			_, err := c.ListTenants(ctx, &pb.ListTenantsRequest{})
			return err
		}},
		{"UpdateTenant", identity.RoleOperator, func(ctx context.Context) error {
			_, err := c.UpdateTenant(ctx, &pb.UpdateTenantRequest{Id: "acme", Policy: &pb.Policy{}})
			return err
		}},
		{"SuspendTenant", identity.RoleOperator, func(ctx context.Context) error {
			_, err := c.SuspendTenant(ctx, &pb.SuspendTenantRequest{Id: "acme", Resume: true})
			return err
		}},
		{"DeleteTenant", identity.RoleOperator, func(ctx context.Context) error {
			_, err := c.DeleteTenant(ctx, &pb.DeleteTenantRequest{Id: "nobody"})
			return ignore(err, errs.NotFound)
		}},
		{"DeployFunction", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.DeployFunction(ctx, &pb.DeployFunctionRequest{Name: "f", Source: []byte("x")})
			return err
		}},
		{"GetFunction", identity.RoleInvoke, func(ctx context.Context) error {
			_, err := c.GetFunction(ctx, &pb.GetFunctionRequest{Name: "f"})
			return err
		}},
		{"ListFunctions", identity.RoleInvoke, func(ctx context.Context) error {
			_, err := c.ListFunctions(ctx, &pb.ListFunctionsRequest{})
			return err
		}},
		{"DeleteFunction", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.DeleteFunction(ctx, &pb.DeleteFunctionRequest{Name: "none"})
			return ignore(err, errs.NotFound)
		}},
		{"UpdateFunction", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.UpdateFunction(ctx, &pb.UpdateFunctionRequest{Name: "f", Access: &pb.Access{Mode: "public"}})
			return err
		}},
		{"ListVersions", identity.RoleInvoke, func(ctx context.Context) error {
			_, err := c.ListVersions(ctx, &pb.ListVersionsRequest{Name: "f"})
			return err
		}},
		{"GetVersion", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.GetVersion(ctx, &pb.GetVersionRequest{Name: "f"})
			return err
		}},
		{"DiffVersions", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.DiffVersions(ctx, &pb.DiffVersionsRequest{Name: "f"})
			return err
		}},
		{"ActivateVersion", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.ActivateVersion(ctx, &pb.ActivateVersionRequest{Name: "f", Version: 1})
			return err
		}},
		{"RollbackFunction", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.RollbackFunction(ctx, &pb.RollbackFunctionRequest{Name: "none"})
			return ignore(err, errs.NotFound)
		}},
		{"DeleteVersion", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.DeleteVersion(ctx, &pb.DeleteVersionRequest{Name: "none", Version: 1})
			return ignore(err, errs.NotFound)
		}},
		{"PutPipeline", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.PutPipeline(ctx, &pb.PutPipelineRequest{Name: "login", Pipeline: &pb.Pipeline{
				Steps: []*pb.PipelineStep{{Function: "f"}},
			}})
			return err
		}},
		{"PublishPipeline", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.PublishPipeline(ctx, &pb.PublishPipelineRequest{Name: "login", Pipeline: &pb.Pipeline{
				Steps: []*pb.PipelineStep{{Function: "f"}},
			}, Functions: []*pb.DeployFunctionRequest{{Name: "f", Source: []byte("x")}}})
			return err
		}},
		{"GetPipeline", identity.RoleInvoke, func(ctx context.Context) error {
			_, err := c.GetPipeline(ctx, &pb.GetPipelineRequest{Name: "none"})
			return ignore(err, errs.NotFound)
		}},
		{"ListPipelines", identity.RoleInvoke, func(ctx context.Context) error {
			_, err := c.ListPipelines(ctx, &pb.ListPipelinesRequest{})
			return err
		}},
		{"DeletePipeline", identity.RoleDeploy, func(ctx context.Context) error {
			_, err := c.DeletePipeline(ctx, &pb.DeletePipelineRequest{Name: "none"})
			return ignore(err, errs.NotFound)
		}},
		{"SetSecret", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := c.SetSecret(ctx, &pb.SetSecretRequest{Name: "S", Value: "v"})
			return err
		}},
		{"ListSecrets", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := c.ListSecrets(ctx, &pb.ListSecretsRequest{})
			return err
		}},
		{"DeleteSecret", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := c.DeleteSecret(ctx, &pb.DeleteSecretRequest{Name: "NONE"})
			return ignore(err, errs.NotFound)
		}},
		{"RotateDataKey", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := c.RotateDataKey(ctx, &pb.RotateDataKeyRequest{})
			return err
		}},
		{"RotateKEK", identity.RoleOperator, func(ctx context.Context) error {
			_, err := k.RotateKEK(ctx, &pb.RotateKEKRequest{})
			return err
		}},
		{"CreateKey", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := k.CreateKey(ctx, &pb.CreateKeyRequest{Tenant: "acme", Role: "invoke"})
			return err
		}},
		{"ListKeys", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := k.ListKeys(ctx, &pb.ListKeysRequest{})
			return err
		}},
		{"RevokeKey", identity.RoleTenantAdmin, func(ctx context.Context) error {
			_, err := k.RevokeKey(ctx, &pb.RevokeKeyRequest{Id: foreign.ID}) // another tenant's: not there
			if errs.Is(err, errs.NotFound) {
				return nil
			}
			return fmt.Errorf("revoking another tenant's key: %w", err)
		}},
	}
	roles := []identity.Role{
		"", "root", identity.RoleInvoke, identity.RoleDeploy, identity.RoleTenantAdmin, identity.RoleOperator,
	}
	for _, r := range rows {
		wantKind(t, r.call(t.Context()), errs.Unauthenticated)
		for _, role := range roles {
			err := r.call(as(t, role, "acme"))
			if role.Includes(r.needs) {
				if err != nil {
					t.Errorf("%s as %s: %v", r.name, role, err)
				}
				continue
			}
			if !errs.Is(err, errs.Denied) {
				t.Errorf("%s as %q: %v, want denied", r.name, role, err)
			}
		}
	}
	if have := len(pb.Catalog_ServiceDesc.Methods) + len(pb.Keys_ServiceDesc.Methods); have != len(rows) {
		t.Errorf("%d rpcs, %d rows", have, len(rows))
	}
	if _, ok := w.view.Key(foreign.ID); !ok {
		t.Error("another tenant's key was revoked")
	}
	// Within the role, but in another's tenant.
	admin := as(t, identity.RoleTenantAdmin, "other")
	_, err = c.GetTenant(admin, &pb.GetTenantRequest{Id: "acme"})
	wantKind(t, err, errs.Denied)
	own, err := c.GetTenant(as(t, identity.RoleTenantAdmin, "acme"), &pb.GetTenantRequest{})
	if err != nil || own.GetId() != "acme" {
		t.Errorf("its own tenant: %v, %v", own, err)
	}
	_, err = c.GetTenant(as(t, identity.RoleOperator, ""), &pb.GetTenantRequest{})
	wantKind(t, err, errs.Invalid, "Paddock-Tenant")
	_, err = c.GetFunction(admin, &pb.GetFunctionRequest{Name: "f"})
	wantKind(t, err, errs.NotFound)
	_, err = k.CreateKey(admin, &pb.CreateKeyRequest{Tenant: "acme", Role: "invoke"})
	wantKind(t, err, errs.Denied)
	_, err = k.ListKeys(admin, &pb.ListKeysRequest{Tenant: "acme"})
	wantKind(t, err, errs.Denied)
	_, err = k.CreateKey(admin, &pb.CreateKeyRequest{Role: "operator"})
	wantKind(t, err, errs.Denied)
	_, err = c.DeployFunction(as(t, identity.RoleOperator, ""), &pb.DeployFunctionRequest{Name: "f", Source: []byte("x")})
	wantKind(t, err, errs.Invalid, "Paddock-Tenant")
}

func ignore(err error, kind errs.Kind) error {
	if errs.Is(err, kind) {
		return nil
	}
	return err
}

func TestOperatorsKeysByAPI(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	k := NewKeyServer(w.service)
	// An operator who acts for a tenant otherwise can still make an operator's key.
	made, err := k.CreateKey(as(t, identity.RoleOperator, "acme"), &pb.CreateKeyRequest{Role: "operator"})
	must(t, err)
	if made.Key.Tenant != "" || made.Key.Role != "operator" {
		t.Errorf("%+v", made.Key)
	}
	_, err = k.CreateKey(as(t, identity.RoleOperator, ""), &pb.CreateKeyRequest{Role: "operator", Tenant: "acme"})
	wantKind(t, err, errs.Invalid)
	of, err := k.CreateKey(as(t, identity.RoleOperator, ""), &pb.CreateKeyRequest{
		Role: "invoke", Tenant: "acme", Ttl: durationpb.New(time.Hour),
	})
	must(t, err)
	if of.Key.Expires == nil {
		t.Error("no expiry")
	}
	all, err := k.ListKeys(as(t, identity.RoleOperator, ""), &pb.ListKeysRequest{})
	must(t, err)
	if len(all.Keys) != 2 {
		t.Errorf("%d keys", len(all.Keys))
	}
	for _, key := range all.Keys {
		if _, secret, _ := w.keyring.Parse(of.Secret); strings.Contains(key.String(), secret) {
			t.Error("a listing shows a secret")
		}
	}
	_, err = k.RevokeKey(as(t, identity.RoleOperator, ""), &pb.RevokeKeyRequest{Id: of.Key.Id})
	must(t, err)
	for _, ttl := range []time.Duration{-1, 0} {
		_, err = k.CreateKey(as(t, identity.RoleOperator, ""), &pb.CreateKeyRequest{
			Role: "invoke", Tenant: "acme", Ttl: durationpb.New(ttl),
		})
		wantKind(t, err, errs.Invalid)
	}
}

// TestPages: however the pages are cut, every name comes once and in order.
func TestPages(t *testing.T) {
	w := newWorld(t, mem(t))
	c := NewServer(w.service)
	const n = 23
	for i := range n {
		w.tenant(fmt.Sprintf("t%02d", i), nil)
		w.deploy("t00", fmt.Sprintf("f%02d", i), "x")
	}
	for _, size := range []int32{0, 1, 7, n, n + 1} {
		var tenants, functions []string
		for token := ""; ; {
			r, err := c.ListTenants(as(t, identity.RoleOperator, ""), &pb.ListTenantsRequest{PageSize: size, PageToken: token})
			must(t, err)
			for _, v := range r.Tenants {
				tenants = append(tenants, v.Id)
			}
			if token = r.NextPageToken; token == "" {
				break
			}
		}
		for token := ""; ; {
			r, err := c.ListFunctions(as(t, identity.RoleInvoke, "t00"), &pb.ListFunctionsRequest{PageSize: size, PageToken: token})
			must(t, err)
			for _, v := range r.Functions {
				functions = append(functions, v.Name)
			}
			if token = r.NextPageToken; token == "" {
				break
			}
		}
		for i := range n {
			if len(tenants) != n || len(functions) != n ||
				tenants[i] != fmt.Sprintf("t%02d", i) || functions[i] != fmt.Sprintf("f%02d", i) {
				t.Fatalf("pages of %d: %v, %v", size, tenants, functions)
			}
		}
	}
	for _, r := range []*pb.ListTenantsRequest{{PageSize: -1}, {PageSize: 1001}, {PageToken: "not base64!"}} {
		_, err := c.ListTenants(as(t, identity.RoleOperator, ""), r)
		wantKind(t, err, errs.Invalid)
	}
}

// TestListsFollowTenants: who has come is listed, and who has gone is not, whoever listed before.
func TestListsFollowTenants(t *testing.T) {
	w := newWorld(t, mem(t))
	list := func() (ids string) {
		for _, v := range w.view.Tenants("", 100) {
			ids += " " + string(v.ID)
		}
		return ids
	}
	for _, step := range []struct{ id, want string }{{"m", " m"}, {"z", " m z"}, {"a", " a m z"}} {
		w.tenant(step.id, nil)
		if got := list(); got != step.want {
			t.Errorf("after %s has come:%s, want%s", step.id, got, step.want)
		}
	}
	_, err := w.service.UpdateTenant(t.Context(), "m", &pb.Policy{MaxFunctions: ptr32(7)})
	must(t, err)
	if all := w.view.Tenants("a", 1); len(all) != 1 || all[0].ID != "m" || all[0].Policy.MaxFunctions != 7 {
		t.Errorf("behind a: %+v", all)
	}
	gone, err := w.service.DeleteTenant(t.Context(), "m")
	must(t, err)
	w.sees(gone.Revision)
	if got := list(); got != " a z" {
		t.Errorf("after m has gone:%s", got)
	}
}

// TestShownPolicy: what is shown has every field set, and taken as an update means the same.
func TestShownPolicy(t *testing.T) {
	w := newWorld(t, mem(t))
	c := NewServer(w.service)
	op := as(t, identity.RoleOperator, "")
	made, err := c.CreateTenant(op, &pb.CreateTenantRequest{Id: "acme", Policy: &pb.Policy{
		Isolation: ptr("runc"), Egress: &pb.Hosts{Hosts: []string{"*.example.com:443"}}, MaxCalls: ptr[int64](5),
		Inject: &pb.Injections{Injections: []*pb.Injection{{Host: "api.example.com", Header: "Authorization", Prefix: "Bearer ", Secret: "KEY"}}},
	}})
	must(t, err)
	fields := made.Policy.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !made.Policy.ProtoReflect().Has(fields.Get(i)) {
			t.Errorf("%s is not shown", fields.Get(i).Name())
		}
	}
	again, err := c.UpdateTenant(op, &pb.UpdateTenantRequest{Id: "acme", Policy: made.Policy})
	must(t, err)
	if again.Policy.String() != made.Policy.String() || again.Revision <= made.Revision {
		t.Errorf("%v\n%v", made, again)
	}
	for _, id := range []string{"", "UPPER", "a/b", "a\x00", "..", strings.Repeat("a", 64)} {
		_, err := c.CreateTenant(op, &pb.CreateTenantRequest{Id: id})
		wantKind(t, err, errs.Invalid)
	}
}
