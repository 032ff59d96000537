package catalog

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Limits of secrets. All of a tenant's travel in the head of a call, which has to hold them.
const (
	MaxSecrets      = 100
	MaxSecretBytes  = 64 << 10
	MaxSecretsTotal = 256 << 10 // names and values of a tenant, as JSON
)

// NewSecret is what SetSecret sets.
type NewSecret struct {
	Name     string
	Function string // "": for all functions of the tenant
	Value    string
	Author   string // the key's id
}

// SetSecret makes a secret or replaces its value. The next call sees it.
func (s *Service) SetSecret(ctx context.Context, t tenant.ID, n NewSecret) (*SecretView, error) {
	if err := checkSecret(n); err != nil {
		return nil, err
	}
	size := encodedBytes(n.Name) + encodedBytes(n.Value)
	if size > MaxSecretsTotal {
		return nil, tooMuchSecret(t, size)
	}
	ref := secretRef(n.Name, n.Function)
	rec := &pb.SecretRecord{Name: n.Name, Function: n.Function, Author: n.Author, Bytes: size}
	_, err := s.write(ctx, "set secret", string(t), func() (store.Txn, error) {
		owner, tenantRev, err := s.tenantFor(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		txn := store.Txn{Guards: []store.Guard{{Key: store.Tenant(t), ModRevision: tenantRev}}}
		if rec.Revision, err = s.countSecret(ctx, t, ref, size, &txn); err != nil {
			return store.Txn{}, err
		}
		if rec.Sealed, err = s.seal.seal(ctx, t, owner.GetWrappedKey(), kindSecret, ref, []byte(n.Value)); err != nil {
			return store.Txn{}, err
		}
		rec.Updated = asTimestamp(time.Now())
		p, err := put(store.Secret(t, ref), rec)
		txn.Puts = append(txn.Puts, p)
		return txn, err
	})
	if err != nil {
		return nil, err
	}
	return secretView(rec), nil
}

// DeleteSecret removes a secret. The next call does not have it.
func (s *Service) DeleteSecret(ctx context.Context, t tenant.ID, name, function string) (int64, error) {
	if err := checkSecretPlace(name, function); err != nil {
		return 0, err
	}
	ref := secretRef(name, function)
	return s.write(ctx, "delete secret", string(t), func() (store.Txn, error) {
		rec := &pb.SecretRecord{}
		rev, err := s.get(ctx, store.Secret(t, ref), rec)
		if err != nil {
			return store.Txn{}, err
		}
		if rev == 0 {
			return store.Txn{}, errs.New(errs.NotFound, "tenant %s has no secret %s: `paddock secrets list` shows what there is", t, ref)
		}
		u, usageRev, err := s.usageFor(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		u.Secrets, u.SecretBytes = max(0, u.Secrets-1), max(0, u.SecretBytes-rec.GetBytes())
		u.SecretRevision++
		txn := store.Txn{
			Guards: []store.Guard{{Key: store.Secret(t, ref), ModRevision: rev}}, Deletes: []string{store.Secret(t, ref)},
		}
		return txn, putUsage(t, u, usageRev, &txn)
	})
}

// dropSecretsOf removes, in txn, the secrets that only one function gets.
func (s *Service) dropSecretsOf(ctx context.Context, t tenant.ID, function string, u *pb.UsageRecord, txn *store.Txn) error {
	kvs, _, err := s.store.List(ctx, store.SecretsOf(t))
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		if !strings.HasSuffix(kv.Key, secretRef("", function)) {
			continue
		}
		rec := &pb.SecretRecord{}
		if err := proto.Unmarshal(kv.Value, rec); err != nil {
			return errs.Wrap(errs.Internal, "read "+kv.Key, err, "a record cannot be read; the operator's log has the details")
		}
		txn.Guards = append(txn.Guards, store.Guard{Key: kv.Key, ModRevision: kv.ModRevision})
		txn.Deletes = append(txn.Deletes, kv.Key)
		u.Secrets, u.SecretBytes = max(0, u.Secrets-1), max(0, u.SecretBytes-rec.GetBytes())
		u.SecretRevision++
	}
	if len(txn.Deletes) >= store.MaxTxnOps || len(txn.Guards) >= store.MaxTxnOps { // the usage record is to come
		return errs.New(errs.Conflict, "function %s has too many versions and secrets of its own to go at once: remove its secrets "+
			"first, with `paddock secrets rm NAME --function %s`", function, function)
	}
	return nil
}

// countSecret takes the place that a secret needs, in txn, and returns the revision of the change.
func (s *Service) countSecret(ctx context.Context, t tenant.ID, ref string, size int64, txn *store.Txn) (int64, error) {
	old := &pb.SecretRecord{}
	rev, err := s.get(ctx, store.Secret(t, ref), old)
	if err != nil {
		return 0, err
	}
	txn.Guards = append(txn.Guards, store.Guard{Key: store.Secret(t, ref), ModRevision: rev})
	u, usageRev, err := s.usageFor(ctx, t)
	if err != nil {
		return 0, err
	}
	if rev == 0 {
		if u.GetSecrets() >= MaxSecrets {
			e := errs.New(errs.Limited, "tenant %s has %d secrets: that is the limit; remove those that are not needed", t, MaxSecrets)
			e.Cause = "secrets"
			return 0, e
		}
		u.Secrets++
	}
	u.SecretBytes += size - old.GetBytes()
	if u.SecretBytes > MaxSecretsTotal {
		return 0, tooMuchSecret(t, u.SecretBytes)
	}
	u.SecretRevision++
	return u.SecretRevision, putUsage(t, u, usageRev, txn)
}

func tooMuchSecret(t tenant.ID, size int64) *errs.Error {
	e := errs.New(errs.Limited, "the secrets of tenant %s would have %d bytes together: at most %d are allowed, since they travel "+
		"with every call", t, size, MaxSecretsTotal)
	e.Cause = "secrets"
	return e
}

// encodedBytes is what a text takes in the head of a call.
func encodedBytes(s string) int64 {
	b, _ := json.Marshal(s) // a string cannot fail
	return int64(len(b))
}

func checkSecret(n NewSecret) error {
	if err := checkSecretPlace(n.Name, n.Function); err != nil {
		return err
	}
	switch {
	case n.Value == "":
		return errs.New(errs.Invalid, "the value of secret %s is empty: to remove it, use `paddock secrets rm %s`", n.Name, n.Name)
	case len(n.Value) > MaxSecretBytes:
		return errs.New(errs.Invalid, "the value of secret %s has %d bytes: at most %d are allowed", n.Name, len(n.Value), MaxSecretBytes)
	case !utf8.ValidString(n.Value):
		return errs.New(errs.Invalid, "the value of secret %s is not UTF-8: encode it, as base64 for example", n.Name)
	}
	return nil
}

func checkSecretPlace(name, function string) error {
	if err := CheckSecretName(name); err != nil {
		return err
	}
	if function == "" {
		return nil
	}
	return CheckFunctionName(function)
}
