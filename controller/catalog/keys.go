package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// MaxKeyTTL bounds the life of keys that have an end.
const MaxKeyTTL = 10 * 365 * 24 * time.Hour

// NewKey is what CreateKey makes.
type NewKey struct {
	Tenant tenant.ID // "" for an operator's
	Role   identity.Role
	Note   string
	TTL    time.Duration // 0: never expires
	Owner  string        // who uses it; "": the role
	Scopes identity.Scopes
}

// MaxLiveKeys is how many keys of one owner may work at a time: the one in use, and the one that replaces it.
const MaxLiveKeys = 2

// ownerOf is the owner that counts: keys of a role that name none share one.
func ownerOf(owner string, role identity.Role) string {
	if owner == "" {
		return string(role)
	}
	return owner
}

// CreateKey makes an API key and returns its token, which nothing can show again.
func (s *Service) CreateKey(ctx context.Context, n NewKey) (k *KeyInfo, token string, revision int64, err error) {
	if err := checkKey(n); err != nil {
		return nil, "", 0, err
	}
	id, secret := newToken()
	k, revision, err = s.putKey(ctx, n, id, secret, s.checkLive)
	if err != nil {
		return nil, "", 0, err
	}
	return k, formatToken(id, secret), revision, nil
}

func checkKey(n NewKey) error {
	if _, ok := identity.ParseRole(string(n.Role)); !ok {
		return errs.New(errs.Invalid, "there is no role %.40q: use invoke, deploy, tenant-admin or operator", n.Role)
	}
	switch {
	case n.Role == identity.RoleOperator && n.Tenant != "":
		return errs.New(errs.Invalid, "an operator's key belongs to no tenant: leave the tenant out")
	case n.Role != identity.RoleOperator && n.Tenant == "":
		return errs.New(errs.Invalid, "a key of role %s belongs to a tenant: name it", n.Role)
	case n.TTL < 0 || n.TTL > MaxKeyTTL:
		return errs.New(errs.Invalid, "a key's time to live is %v: it must be above 0 and at most %v", n.TTL, MaxKeyTTL)
	case len(n.Owner) > maxOwner || strings.ContainsFunc(n.Owner, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errs.New(errs.Invalid, "a key's owner is a name of at most %d printable bytes", maxOwner)
	}
	return checkNote(n.Note)
}

const maxOwner = 64

// checkLive refuses a third key of an owner that works. It asks the store, after the count was read that every change of a
// tenant's keys guards on: so two that are made at once cannot both be the second.
func (s *Service) checkLive(ctx context.Context, n NewKey) error {
	now := time.Now()
	live, err := s.storedKeys(ctx, func(k *keyEntry) bool {
		return k.Tenant == n.Tenant && k.owner == ownerOf(n.Owner, n.Role) && !k.expired(now)
	})
	if err != nil || len(live) < MaxLiveKeys {
		return err
	}
	slices.SortFunc(live, func(a, b *keyEntry) int { return a.usedAt().Compare(b.usedAt()) })
	e := errs.New(errs.Limited, "owner %q has %d keys that work: revoke one (%s), or name another owner",
		ownerOf(n.Owner, n.Role), len(live), describeKeys(live))
	e.Cause = "keys"
	return e
}

// describeKeys helps to choose which to revoke: the one first that was not used for longest.
func describeKeys(keys []*keyEntry) string {
	var all []string
	for _, k := range keys {
		used := "never used"
		if at := k.usedAt(); !at.IsZero() {
			used = "last used " + at.UTC().Format(time.RFC3339)
		}
		all = append(all, fmt.Sprintf("%s, made %s, %s", k.ID, k.created.UTC().Format(time.RFC3339), used))
	}
	return strings.Join(all, "; ")
}

// putKey writes a key's record. It takes one of the tenant's places for keys; operators' keys are counted in one place
// of their own. check may refuse it, once the count was read.
func (s *Service) putKey(ctx context.Context, n NewKey, id, secret string, check func(context.Context, NewKey) error) (*KeyInfo, int64, error) {
	now := time.Now()
	rec := &pb.KeyRecord{
		Id: id, Tenant: string(n.Tenant), Role: string(n.Role), Note: n.Note, Created: asTimestamp(now),
		Mac: s.opts.Pepper.mac(id, secret), Owner: n.Owner, Scopes: n.Scopes.List(),
	}
	if n.TTL > 0 {
		rec.Expires = asTimestamp(now.Add(n.TTL))
	}
	rev, err := s.write(ctx, "create key", string(n.Tenant), func() (store.Txn, error) {
		txn := store.Txn{Guards: []store.Guard{{Key: store.Key(id)}}}
		if n.Tenant != "" {
			_, tenantRev, err := s.tenantFor(ctx, n.Tenant)
			if err != nil {
				return store.Txn{}, err
			}
			txn.Guards = append(txn.Guards, store.Guard{Key: store.Tenant(n.Tenant), ModRevision: tenantRev})
		}
		if err := s.countKey(ctx, n.Tenant, &txn); err != nil {
			return store.Txn{}, err
		}
		if err := check(ctx, n); err != nil {
			return store.Txn{}, err
		}
		p, err := put(store.Key(id), rec)
		txn.Puts = append(txn.Puts, p)
		return txn, err
	})
	if err != nil {
		return nil, 0, err
	}
	return &KeyInfo{
		ID: id, Tenant: n.Tenant, Role: n.Role, Note: n.Note, Created: now, Expires: asTime(rec.GetExpires()),
		Owner: ownerOf(n.Owner, n.Role), Scopes: n.Scopes,
	}, rev, nil
}

// countKey takes a place in txn. The record of operators' keys is usage/ without a tenant.
func (s *Service) countKey(ctx context.Context, t tenant.ID, txn *store.Txn) error {
	u, rev, err := s.usageFor(ctx, t)
	if err != nil {
		return err
	}
	if u.GetKeys() >= MaxKeys {
		e := errs.New(errs.Limited, "there are %d keys: that is the limit; revoke those that are not needed", MaxKeys)
		e.Cause = "keys"
		return e
	}
	u.Keys++
	return putUsage(t, u, rev, txn)
}

// KeyInfo is an API key as people may see it.
type KeyInfo struct {
	ID      string
	Tenant  tenant.ID
	Role    identity.Role
	Note    string
	Created time.Time
	Expires time.Time // zero: never
	Owner   string
	Scopes  identity.Scopes
	Used    time.Time // zero: not yet; to the hour where another process saw it
}

// Keys lists a tenant's keys, operators' for "", or everybody's, oldest first.
func (s *Service) Keys(t tenant.ID, everybody bool) []*KeyInfo {
	var out []*KeyInfo
	for _, k := range s.view.keysOf(func(k *keyEntry) bool { return everybody || k.Tenant == t }) {
		out = append(out, &KeyInfo{
			ID: k.ID, Tenant: k.Tenant, Role: k.Role, Note: k.note, Created: k.created, Expires: k.Expires,
			Owner: k.owner, Scopes: k.Scopes, Used: k.usedAt(),
		})
	}
	return out
}

// RevokeKey removes a key of a tenant, or an operator's for "". The last operator's key stays: without it nobody could
// make another.
func (s *Service) RevokeKey(ctx context.Context, t tenant.ID, id string) (int64, error) {
	return s.write(ctx, "revoke key", string(t), func() (store.Txn, error) {
		rec := &pb.KeyRecord{}
		rev, err := s.get(ctx, store.Key(id), rec)
		if err != nil {
			return store.Txn{}, err
		}
		if rev == 0 || rec.GetTenant() != string(t) {
			return store.Txn{}, errs.New(errs.NotFound, "there is no key %.40q", id)
		}
		txn := store.Txn{Guards: []store.Guard{{Key: store.Key(id), ModRevision: rev}}, Deletes: []string{store.Key(id)}}
		u, usageRev, err := s.usageFor(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		if t == "" {
			if err := s.keepsOperator(ctx, id); err != nil {
				return store.Txn{}, err
			}
		}
		u.Keys = max(0, u.Keys-1)
		return txn, putUsage(t, u, usageRev, &txn)
	})
}

// keepsOperator says whether an operator's key other than id works. It asks the store, after the count was read that every
// change of operators' keys guards on: so two revocations cannot each rely on the other's key.
func (s *Service) keepsOperator(ctx context.Context, id string) error {
	keys, err := s.operatorKeys(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, k := range keys {
		if k.ID != id && !k.expired(now) {
			return nil
		}
	}
	return errs.New(errs.Conflict, "%s is the last operator's key that works: make another first", id)
}

// operatorKeys reads the operators' keys from the store.
func (s *Service) operatorKeys(ctx context.Context) ([]*keyEntry, error) {
	return s.storedKeys(ctx, func(k *keyEntry) bool { return k.Role == identity.RoleOperator })
}

// storedKeys reads from the store the keys that want names, with what is known here of their use.
func (s *Service) storedKeys(ctx context.Context, want func(*keyEntry) bool) ([]*keyEntry, error) {
	kvs, _, err := s.store.List(ctx, store.KeysPrefix)
	if err != nil {
		return nil, err
	}
	var out []*keyEntry
	for _, kv := range kvs {
		_, parts := store.SplitKey(kv.Key)
		if len(parts) == 0 {
			continue
		}
		k, err := decodeKey(parts[0], kv.Value)
		if err != nil || !want(k) {
			continue
		}
		if held, ok := s.view.keys.get(k.ID); ok {
			k.used = held.used
		}
		out = append(out, k)
	}
	return out, nil
}
