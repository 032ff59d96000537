package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
)

const (
	kindSecret = "secret"
	// secretCacheBytes bounds the decrypted secrets in memory.
	secretCacheBytes = 64 << 20
	// openedOverhead is what a set of decrypted secrets takes besides its texts, roughly.
	openedOverhead = 256
)

// Secret is a decrypted secret.
type Secret struct {
	Value    string
	Revision int64 // of the tenant's secrets as this value was set
}

// Secrets are what a function gets, decrypted. Nobody changes one.
type Secrets struct {
	// Values by name: for INVOKE's head.
	Values map[string]string
	// Revision is another one whenever any of these secrets is, and the same as long as none is.
	Revision string

	revisions map[string]int64
}

// Lookup returns a secret by name and whether there is one. A nil Secrets has none.
func (s *Secrets) Lookup(name string) (Secret, bool) {
	if s == nil {
		return Secret{}, false
	}
	value, ok := s.Values[name]
	return Secret{Value: value, Revision: s.revisions[name]}, ok
}

// SecretView is a secret as people may see it.
type SecretView struct {
	Name     string
	Function string // "": every function of the tenant gets it
	Revision int64
	Updated  time.Time
	Author   string
	sealed   []byte
}

// secretRef names a secret within its tenant: in the store's key and in what its ciphertext is bound to.
func secretRef(name, function string) string {
	if function == "" {
		return name
	}
	return name + "@" + function
}

// secretSet is a tenant's secrets. Nobody changes one that readers can see.
type secretSet struct{ byRef map[string]*SecretView }

// of returns the secrets that a function gets, by reference: the tenant's, and over them the function's own.
func (s *secretSet) of(function string) []*SecretView {
	var all []*SecretView
	for _, ref := range slices.Sorted(maps.Keys(s.byRef)) { // "NAME" before "NAME@function"
		if v := s.byRef[ref]; v.Function == "" || v.Function == function {
			all = append(all, v)
		}
	}
	return all
}

type functionKey struct {
	tenant   tenant.ID
	function string
}

// openedSet is what a function gets of a secretSet.
type openedSet struct {
	from    *secretSet
	secrets *Secrets
}

// Secrets returns the secrets that a function of a tenant gets, decrypted, or what every function gets for function "".
// It is nil where there are none. It never asks the store, and the key-encryption key only once per tenant.
func (v *View) Secrets(ctx context.Context, t tenant.ID, function string) (*Secrets, error) {
	set, ok := v.secrets.get(t)
	if !ok {
		return nil, nil
	}
	key := functionKey{t, function}
	if o, ok := v.opened.Get(key); ok && o.from == set {
		return o.secrets, nil
	}
	tv, ok := v.tenants.get(t)
	if !ok {
		return nil, nil
	}
	secrets, bytes, err := v.openSecrets(ctx, tv, set.of(function))
	if err != nil {
		return nil, err
	}
	v.opened.Add(key, openedSet{set, secrets}, bytes)
	return secrets, nil
}

func (v *View) openSecrets(ctx context.Context, t *TenantView, all []*SecretView) (*Secrets, int64, error) {
	if len(all) == 0 {
		return nil, openedOverhead, nil
	}
	s := &Secrets{Values: make(map[string]string, len(all)), revisions: make(map[string]int64, len(all))}
	revision, bytes := sha256.New(), int64(openedOverhead)
	for _, one := range all {
		ref := secretRef(one.Name, one.Function)
		plain, err := v.code.seal.unseal(ctx, t.ID, t.dataKey, kindSecret, ref, one.sealed)
		if err != nil {
			return nil, 0, secretFault(t.ID, ref, err)
		}
		fmt.Fprintf(revision, "%s %d\n", ref, one.Revision)
		s.Values[one.Name], s.revisions[one.Name] = string(plain), one.Revision
		bytes += int64(len(one.Name) + len(plain))
	}
	s.Revision = hex.EncodeToString(revision.Sum(nil)[:16])
	return s, bytes, nil
}

func secretFault(t tenant.ID, ref string, err error) *errs.Error {
	if e := asKEKAway("read secrets", err); e != nil {
		return e
	}
	return errs.Wrap(errs.Internal, "read secrets", err,
		"the secret %s of tenant %s cannot be read; the operator's log has the details", ref, t)
}

// asKEKAway returns what a caller is told if the key-encryption key could not be asked, nil if err is something else.
func asKEKAway(op string, err error) *errs.Error {
	if !errors.Is(err, ErrKEKAway) {
		return nil
	}
	e := errs.Wrap(errs.NoCapacity, op, err,
		"the service that keeps the key-encryption key does not answer: what is decrypted already is served on; try again")
	e.Cause, e.RetryAfter = "kek", 5*time.Second
	return e
}

// ListSecrets returns a tenant's secrets by name, then by function, without their values.
func (v *View) ListSecrets(t tenant.ID) []*SecretView {
	set, ok := v.secrets.get(t)
	if !ok {
		return nil
	}
	all := slices.Collect(maps.Values(set.byRef))
	slices.SortFunc(all, func(a, b *SecretView) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Function, b.Function)
	})
	return all
}
