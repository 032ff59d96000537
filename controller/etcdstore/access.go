package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"paddock/controller/store"
)

// root is the name that etcd asks for before it turns access control on. Nobody can be it here: it has no password, and no
// certificate has that name.
const root = "root"

// SetAccess turns access control on: admin may do everything, users may do what they are listed with, everybody else nothing. A
// user is the common name of a client's certificate; there are no passwords. It is idempotent, and rights that are not listed
// any more are taken away. The caller must come with admin's certificate, or it has locked itself out.
func (s *Store) SetAccess(ctx context.Context, admin string, users map[string]store.Access) error {
	a := access{s.client}
	for _, name := range []string{root, admin} {
		if err := a.user(ctx, name, root); err != nil {
			return fmt.Errorf("etcdstore: user %s: %w", name, err)
		}
	}
	for name, may := range users {
		if err := a.role(ctx, name, may); err != nil {
			return fmt.Errorf("etcdstore: role %s: %w", name, err)
		}
		if err := a.user(ctx, name, name); err != nil {
			return fmt.Errorf("etcdstore: user %s: %w", name, err)
		}
	}
	if _, err := s.client.AuthEnable(ctx); err != nil {
		return fmt.Errorf("etcdstore: turning access control on: %w", err)
	}
	return nil
}

// access brings users and roles to what is wanted.
type access struct{ client *clientv3.Client }

// user sees to it that there is a user of that name, with the role.
func (a access) user(ctx context.Context, name, role string) error {
	_, err := a.client.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
	if err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
		return err
	}
	if role == root { // etcd makes no role of that name by itself
		if _, err := a.client.RoleAdd(ctx, root); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
			return err
		}
	}
	_, err = a.client.UserGrantRole(ctx, name, role)
	return err
}

// role sees to it that there is a role of that name which may do just that.
func (a access) role(ctx context.Context, name string, may store.Access) error {
	if _, err := a.client.RoleAdd(ctx, name); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return err
	}
	wanted := map[string]clientv3.PermissionType{}
	for _, prefix := range may.Read {
		wanted[prefix] = clientv3.PermissionType(clientv3.PermRead)
	}
	for _, prefix := range may.Write {
		wanted[prefix] = clientv3.PermissionType(clientv3.PermReadWrite)
	}
	now, err := a.client.RoleGet(ctx, name)
	if err != nil {
		return err
	}
	for _, p := range now.Perm {
		key, end := string(p.Key), string(p.RangeEnd)
		if kind, ok := wanted[key]; ok && end == clientv3.GetPrefixRangeEnd(key) && int32(kind) == int32(p.PermType) {
			delete(wanted, key)
			continue
		}
		if _, err := a.client.RoleRevokePermission(ctx, name, key, end); err != nil {
			return err
		}
	}
	for prefix, kind := range wanted {
		if !strings.HasSuffix(prefix, "/") {
			return fmt.Errorf("%q is no prefix", prefix)
		}
		if _, err := a.client.RoleGrantPermission(ctx, name, prefix, clientv3.GetPrefixRangeEnd(prefix), kind); err != nil {
			return err
		}
	}
	return nil
}
