package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"paddock/internal/tenant"
)

// KEK is the key-encryption key: it wraps the tenants' data keys and stays outside of the store. purpose says what the
// key is for; what was wrapped for one does not unwrap for another. Safe for concurrent use.
type KEK interface {
	Wrap(ctx context.Context, key, purpose []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, purpose []byte) ([]byte, error)
}

// fileKEK is a keyset in a file. A keyset may hold several keys: the primary wraps, all unwrap.
type fileKEK struct{ aead tink.AEAD }

// LoadKEK reads the key-encryption key from a file that only its owner can read, and makes one if there is none. Whoever
// loses that file has lost all code.
func LoadKEK(path string) (KEK, error) {
	b, err := loadOrCreate(path, newKeyset)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	a, err := openKeyset(b)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %s: %w", path, err)
	}
	return fileKEK{a}, nil
}

func (k fileKEK) Wrap(_ context.Context, key, purpose []byte) ([]byte, error) {
	return k.aead.Encrypt(key, purpose)
}

func (k fileKEK) Unwrap(_ context.Context, wrapped, purpose []byte) ([]byte, error) {
	return k.aead.Decrypt(wrapped, purpose)
}

// newKeyset makes a keyset of one AES-256-GCM key, in clear.
func newKeyset() ([]byte, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func openKeyset(b []byte) (tink.AEAD, error) {
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(b)))
	if err != nil {
		return nil, err
	}
	return aead.New(h)
}

// dataKeys bounds the unwrapped data keys that are remembered.
const dataKeys = 4096

// sealer encrypts and decrypts under tenants' data keys. What is sealed for one tenant, kind and name does not open as
// another. Safe for concurrent use.
type sealer struct {
	kek  KEK
	open *lru.Cache[tenant.ID, openedKey]
}

type openedKey struct {
	wrapped []byte
	aead    tink.AEAD
}

func newSealer(kek KEK) (*sealer, error) {
	cache, err := lru.New[tenant.ID, openedKey](dataKeys)
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
	return s.kek.Wrap(ctx, key, associated(t, "data-key", string(t)))
}

func (s *sealer) seal(ctx context.Context, t tenant.ID, wrapped []byte, kind, name string, plain []byte) ([]byte, error) {
	a, err := s.dataKey(ctx, t, wrapped)
	if err != nil {
		return nil, err
	}
	return a.Encrypt(plain, associated(t, kind, name))
}

func (s *sealer) unseal(ctx context.Context, t tenant.ID, wrapped []byte, kind, name string,
	sealed []byte) ([]byte, error) {
	a, err := s.dataKey(ctx, t, wrapped)
	if err != nil {
		return nil, err
	}
	plain, err := a.Decrypt(sealed, associated(t, kind, name))
	if err != nil {
		return nil, fmt.Errorf("%s %s of tenant %s does not open: it was changed, or is another's: %w", kind, name, t, err)
	}
	return plain, nil
}

func (s *sealer) dataKey(ctx context.Context, t tenant.ID, wrapped []byte) (tink.AEAD, error) {
	if o, ok := s.open.Get(t); ok && bytes.Equal(o.wrapped, wrapped) {
		return o.aead, nil
	}
	if len(wrapped) == 0 {
		return nil, errors.New("the tenant has no data key")
	}
	key, err := s.kek.Unwrap(ctx, wrapped, associated(t, "data-key", string(t)))
	if err != nil {
		return nil, fmt.Errorf("data key of tenant %s: the key-encryption key does not open it: %w", t, err)
	}
	a, err := openKeyset(key)
	if err != nil {
		return nil, err
	}
	s.open.Add(t, openedKey{wrapped, a})
	return a, nil
}

// forget drops what is remembered of a tenant's key.
func (s *sealer) forget(t tenant.ID) { s.open.Remove(t) }

// associated is what binds a ciphertext to its place. None of the parts can hold a '|'.
func associated(t tenant.ID, kind, name string) []byte {
	return []byte(string(t) + "|" + kind + "|" + name)
}
