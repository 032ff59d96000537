package router

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"paddock/controller/catalog"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/metrics"
	"paddock/internal/tenant"
)

// credential is what a request brought to say who it is.
type credential struct {
	authorization string // the whole field, "" if missing or repeated
	tenant        string // Paddock-Tenant
}

// verified is a credential that was checked: as long as the key's record is the same and the token hashes alike, it
// stands without another HMAC.
type verified struct {
	key    *catalog.KeyView
	digest [sha256.Size]byte
}

// authenticator checks credentials against the keyring. Safe for concurrent use.
type authenticator struct {
	known   Catalogue
	keys    Keyring
	cache   *lru.Cache[string, verified] // by key id
	guard   *guard
	metrics *metrics.Router
	now     func() time.Time
}

// verifiedKeys bounds the verified credentials that are remembered.
const verifiedKeys = 16384

func newAuthenticator(known Catalogue, keys Keyring, m *metrics.Router) (*authenticator, error) {
	cache, err := lru.New[string, verified](verifiedKeys)
	if err != nil {
		return nil, err
	}
	g, err := newGuard()
	if err != nil {
		return nil, err
	}
	return &authenticator{known: known, keys: keys, cache: cache, guard: g, metrics: m, now: time.Now}, nil
}

// authorize is the choke point of HTTP and gRPC: who may pass the route, and for which tenant. Every bad credential gets
// the same answer, whatever is wrong with it; the operator's metrics and audit log have the reason, which is "" unless
// somebody was turned away.
func (a *authenticator) authorize(ru *rule, c credential) (id identity.Identity, reason string, err error) {
	if ru.role == public {
		return identity.Identity{}, "", nil
	}
	key, claimed, reason := a.authenticate(c.authorization)
	if reason != "" {
		a.metrics.AuthFailed(reason)
		return identity.Identity{KeyID: claimed}, reason, errBadCredential()
	}
	id = identity.Identity{KeyID: key.ID, Role: key.Role, Tenant: key.Tenant, Scopes: key.Scopes}
	if reason, err = a.permit(&id, key, ru, c.tenant); reason != "" {
		a.metrics.AuthFailed(reason)
	}
	return id, reason, err
}

// permit holds a good key to its role, its scopes and its tenant.
func (a *authenticator) permit(id *identity.Identity, key *catalog.KeyView, ru *rule, named string) (reason string, err error) {
	switch {
	case !key.Role.Includes(ru.role):
		return "role", denied("this key's role may not do that: it needs " + string(ru.role))
	case !key.Scopes.Allow(ru.resource):
		return "scope", denied("this key's scopes do not have " + string(ru.resource))
	case key.Role == identity.RoleOperator:
		return "", a.nameTenant(id, ru, named)
	}
	return a.ownTenant(id, named)
}

// nameTenant puts the tenant that an operator names into id.
func (a *authenticator) nameTenant(id *identity.Identity, ru *rule, name string) error {
	if name == "" {
		if ru.tenant == tenantActs {
			return errs.New(errs.Invalid, "an operator's key must name the tenant in Paddock-Tenant")
		}
		return nil
	}
	if _, ok := a.known.Tenant(tenant.ID(name)); ok {
		id.Tenant = tenant.ID(name)
		return nil
	}
	t, err := tenant.ParseID(name)
	if err != nil {
		return errs.New(errs.Invalid, "%v", err)
	}
	if ru.tenant == tenantActs {
		return errs.New(errs.NotFound, "there is no tenant %q: create it with `paddock tenants create %s`", t, t)
	}
	id.Tenant = t
	return nil
}

// ownTenant holds a tenant's key to its tenant. What it says does not depend on whether another tenant exists.
func (a *authenticator) ownTenant(id *identity.Identity, name string) (reason string, err error) {
	if id.Tenant == "" || name != "" && name != string(id.Tenant) {
		return "tenant", denied("this key belongs to another tenant")
	}
	t, ok := a.known.Tenant(id.Tenant)
	if !ok {
		return "tenant", errBadCredential()
	}
	if t.Policy.Suspended {
		return "suspended", denied("tenant " + string(id.Tenant) + " is suspended: ask the operator")
	}
	return "", nil
}

// nobodysKey stands in where there is no key of an id, so that a token of an unknown key costs the same work as a wrong
// secret of one that exists.
var nobodysKey = &catalog.KeyView{MAC: make([]byte, sha256.Size)}

// authenticate returns the key of an Authorization field, or why there is none, with the id that was claimed.
func (a *authenticator) authenticate(field string) (key *catalog.KeyView, claimed, reason string) {
	token, ok := bearer(field)
	if !ok {
		if field == "" {
			return nil, "", "missing"
		}
		return nil, "", "malformed"
	}
	id, secret, ok := a.keys.Parse(token)
	if !ok {
		return nil, "", "malformed"
	}
	key, known := a.keys.Key(id)
	if !known {
		key = nobodysKey
	}
	digest := sha256.Sum256([]byte(token))
	seen, hit := a.cache.Get(id)
	if !hit || seen.key != key || subtle.ConstantTimeCompare(seen.digest[:], digest[:]) != 1 {
		if !a.keys.Verify(key, secret) || !known {
			return nil, id, "unknown"
		}
		a.cache.Add(id, verified{key, digest})
	}
	now := a.now()
	switch {
	case a.keys.Stale():
		return nil, id, "stale"
	case !key.Expires.IsZero() && !now.Before(key.Expires):
		return nil, id, "expired"
	}
	key.Use(now)
	return key, id, ""
}

// bearer returns the token of "Bearer TOKEN".
func bearer(field string) (string, bool) {
	const scheme = "Bearer "
	if len(field) <= len(scheme) || len(field) > 512 || !strings.EqualFold(field[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimSpace(field[len(scheme):]), true
}

// slowDown turns the answer to a bad credential into "wait" for an address ("ip:port") that keeps sending them.
func (a *authenticator) slowDown(err error, remote string) error {
	if !errs.Is(err, errs.Unauthenticated) {
		return err
	}
	host, _, splitErr := net.SplitHostPort(remote)
	if splitErr != nil {
		host = remote
	}
	wait := a.guard.failed(host, a.now())
	if wait == 0 {
		return err
	}
	e := errs.New(errs.Limited, "too many requests with bad credentials from this address: wait and check the key")
	e.Cause, e.RetryAfter = "rate", wait
	return e
}

func errBadCredential() error {
	return errs.New(errs.Unauthenticated, "send a valid key: Authorization: Bearer KEY")
}

func denied(message string) error { return &errs.Error{Kind: errs.Denied, Message: message} }
