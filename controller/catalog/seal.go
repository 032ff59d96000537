package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"golang.org/x/sync/singleflight"

	"paddock/internal/tenant"
)

// dataKeys bounds the unwrapped data keys that are remembered.
const dataKeys = 4096

// sealer encrypts and decrypts under tenants' data keys. What is sealed for one tenant, kind and name does not open as
// another. Safe for concurrent use.
type sealer struct {
	kek    KEK
	open   *lru.Cache[tenant.ID, *openedKey]
	unwrap singleflight.Group
}

// openedKey is a tenant's data key: a keyset whose primary key encrypts and whose others, while a rotation lasts, still
// decrypt.
type openedKey struct {
	wrapped []byte
	keys    *keyset.Handle
	aead    tink.AEAD
	primary uint32
}

func newSealer(kek KEK) (*sealer, error) {
	cache, err := lru.New[tenant.ID, *openedKey](dataKeys)
	if err != nil {
		return nil, err
	}
	return &sealer{kek: kek, open: cache}, nil
}

// newDataKey makes a tenant's data key and returns it wrapped.
func (s *sealer) newDataKey(ctx context.Context, t tenant.ID) ([]byte, error) {
	key, err := newKeyset()
	if err != nil {
		return nil, err
	}
	return s.kek.Wrap(ctx, key, dataKeyPurpose(t))
}

func (s *sealer) seal(ctx context.Context, t tenant.ID, wrapped []byte, kind, name string, plain []byte) ([]byte, error) {
	k, err := s.dataKey(ctx, t, wrapped)
	if err != nil {
		return nil, err
	}
	return k.aead.Encrypt(plain, associated(t, kind, name))
}

func (s *sealer) unseal(ctx context.Context, t tenant.ID, wrapped []byte, kind, name string,
	sealed []byte) ([]byte, error) {
	k, err := s.dataKey(ctx, t, wrapped)
	if err != nil {
		return nil, err
	}
	plain, err := k.aead.Decrypt(sealed, associated(t, kind, name))
	if err != nil {
		return nil, fmt.Errorf("%s %s of tenant %s does not open: it was changed, or is another's: %w", kind, name, t, err)
	}
	return plain, nil
}

// dataKey returns a tenant's data key. One that is remembered needs no key-encryption key.
func (s *sealer) dataKey(ctx context.Context, t tenant.ID, wrapped []byte) (*openedKey, error) {
	if k, ok := s.open.Get(t); ok && bytes.Equal(k.wrapped, wrapped) {
		return k, nil
	}
	if len(wrapped) == 0 {
		return nil, errors.New("the tenant has no data key")
	}
	// One question for all who wait: the key may be kept far away.
	k, err, _ := s.unwrap.Do(string(t)+"|"+string(wrapped), func() (any, error) {
		return s.openKey(context.WithoutCancel(ctx), t, wrapped)
	})
	if err != nil {
		return nil, err
	}
	return k.(*openedKey), nil
}

func (s *sealer) openKey(ctx context.Context, t tenant.ID, wrapped []byte) (*openedKey, error) {
	key, err := s.kek.Unwrap(ctx, wrapped, dataKeyPurpose(t))
	if err != nil {
		return nil, fmt.Errorf("data key of tenant %s: the key-encryption key does not open it: %w", t, err)
	}
	h, a, err := openKeyset(key)
	if err != nil {
		return nil, err
	}
	k := &openedKey{wrapped: bytes.Clone(wrapped), keys: h, aead: a, primary: h.KeysetInfo().GetPrimaryKeyId()}
	s.open.Add(t, k)
	return k, nil
}

// forget drops what is remembered of a tenant's key.
func (s *sealer) forget(t tenant.ID) { s.open.Remove(t) }

func dataKeyPurpose(t tenant.ID) []byte { return associated(t, "data-key", string(t)) }

// associated is what binds a ciphertext to its place. None of the parts can hold a '|'.
func associated(t tenant.ID, kind, name string) []byte {
	return []byte(string(t) + "|" + kind + "|" + name)
}
