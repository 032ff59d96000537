package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// ErrKEKAway says that the key-encryption key is kept elsewhere, and that elsewhere does not answer.
var ErrKEKAway = errors.New("the service that keeps the key-encryption key does not answer")

// KEK is the key-encryption key: it wraps the tenants' data keys and stays outside of the store. purpose says what the
// key is for; what was wrapped for one does not unwrap for another. Safe for concurrent use.
type KEK interface {
	Wrap(ctx context.Context, key, purpose []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, purpose []byte) ([]byte, error)
}

// rotatingKEK is a KEK that is rotated here, not by the service that keeps it.
type rotatingKEK interface {
	KEK
	// addKey makes a new key that wraps from now on; the old ones still unwrap. While old ones are there it does nothing:
	// what was begun is to be ended first.
	addKey() error
	// outdated says that wrapped is not under the key that wraps now.
	outdated(wrapped []byte) bool
	// dropOld removes the keys that were replaced before the given time and says how many those were. Nothing may be
	// wrapped with them any more.
	dropOld(before time.Time) (int, error)
}

// remoteTimeout bounds one question to a key service.
const remoteTimeout = 5 * time.Second

// remoteKEK is a KEK that never leaves a key service; there it is rotated, too.
type remoteKEK struct {
	aead    tink.AEADWithContext
	timeout time.Duration
}

// RemoteKEK makes a KEK of a key in a key management service. Its errors are ErrKEKAway, whatever the service says: a data
// key that was remembered still serves.
func RemoteKEK(a tink.AEADWithContext) KEK { return remoteKEK{a, remoteTimeout} }

func (k remoteKEK) Wrap(ctx context.Context, key, purpose []byte) ([]byte, error) {
	return k.ask(ctx, key, purpose, k.aead.EncryptWithContext)
}

func (k remoteKEK) Unwrap(ctx context.Context, wrapped, purpose []byte) ([]byte, error) {
	return k.ask(ctx, wrapped, purpose, k.aead.DecryptWithContext)
}

func (k remoteKEK) ask(ctx context.Context, in, purpose []byte,
	do func(context.Context, []byte, []byte) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	out, err := do(ctx, in, purpose)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKEKAway, err)
	}
	return out, nil
}

// fileKEK is a keyset in a file. A keyset may hold several keys: the primary wraps, all unwrap. Another process may rotate
// the file: it is read again when a key is missing.
type fileKEK struct {
	path string

	mu      sync.RWMutex
	keys    *keyset.Handle
	aead    tink.AEAD
	changed time.Time // the file's, as it was read
}

// LoadKEK reads the key-encryption key from a file that only its owner can read, and makes one if there is none. Whoever
// loses that file has lost all code and all secrets.
func LoadKEK(path string) (KEK, error) {
	if _, err := loadOrCreate(path, newKeyset); err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	k := &fileKEK{path: path}
	if _, err := k.readLocked(); err != nil {
		return nil, err
	}
	return k, nil
}

// readLocked reads the file if it is not as it was read last, and says whether it did.
func (k *fileKEK) readLocked() (bool, error) {
	info, err := os.Stat(k.path)
	if err != nil {
		return false, fmt.Errorf("key-encryption key: %w", err)
	}
	if k.keys != nil && info.ModTime().Equal(k.changed) {
		return false, nil
	}
	b, err := readSecret(k.path)
	if err != nil {
		return false, fmt.Errorf("key-encryption key: %w", err)
	}
	h, a, err := openKeyset(b)
	if err != nil {
		return false, fmt.Errorf("key-encryption key %s: %w", k.path, err)
	}
	k.keys, k.aead, k.changed = h, a, info.ModTime()
	return true, nil
}

func (k *fileKEK) now() tink.AEAD {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.aead
}

func (k *fileKEK) Wrap(_ context.Context, key, purpose []byte) ([]byte, error) {
	return k.now().Encrypt(key, purpose)
}

func (k *fileKEK) Unwrap(_ context.Context, wrapped, purpose []byte) ([]byte, error) {
	key, err := k.now().Decrypt(wrapped, purpose)
	if err == nil {
		return key, nil
	}
	k.mu.Lock()
	fresh, readErr := k.readLocked()
	k.mu.Unlock()
	if readErr != nil || !fresh {
		return nil, errors.Join(err, readErr)
	}
	return k.now().Decrypt(wrapped, purpose)
}

func (k *fileKEK) addKey() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.readLocked(); err != nil {
		return err
	}
	if k.keys.Len() > 1 {
		return nil
	}
	b, err := withNewKey(k.keys)
	if err != nil {
		return err
	}
	return k.writeLocked(b)
}

func (k *fileKEK) outdated(wrapped []byte) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return !isUnder(wrapped, k.keys.KeysetInfo().GetPrimaryKeyId())
}

func (k *fileKEK) dropOld(before time.Time) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.readLocked(); err != nil {
		return 0, err
	}
	old := k.keys.Len() - 1
	if old == 0 || !k.changed.Before(before) { // the file was last written as the key was added
		return 0, nil
	}
	b, err := withPrimaryOnly(k.keys)
	if err != nil {
		return 0, err
	}
	return old, k.writeLocked(b)
}

func (k *fileKEK) writeLocked(b []byte) error {
	if err := writeSecret(k.path, b, true); err != nil {
		return fmt.Errorf("key-encryption key: %w", err)
	}
	k.keys = nil
	_, err := k.readLocked()
	return err
}

// newKeyset makes a keyset of one AES-256-GCM key, in clear.
func newKeyset() ([]byte, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	return inClear(h)
}

func inClear(h *keyset.Handle) ([]byte, error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func openKeyset(b []byte) (*keyset.Handle, tink.AEAD, error) {
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(b)))
	if err != nil {
		return nil, nil, err
	}
	a, err := aead.New(h)
	return h, a, err
}

// withNewKey returns h, in clear, with another key that encrypts from now on.
func withNewKey(h *keyset.Handle) ([]byte, error) {
	m := keyset.NewManagerFromHandle(h)
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	return managed(m, m.SetPrimary(id))
}

// withPrimaryOnly returns h, in clear, without the keys that only decrypt.
func withPrimaryOnly(h *keyset.Handle) ([]byte, error) {
	m := keyset.NewManagerFromHandle(h)
	var err error
	info := h.KeysetInfo()
	for _, k := range info.GetKeyInfo() {
		if k.GetKeyId() != info.GetPrimaryKeyId() {
			err = errors.Join(err, m.Delete(k.GetKeyId()))
		}
	}
	return managed(m, err)
}

func managed(m *keyset.Manager, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return inClear(h)
}

// A ciphertext of a keyset begins with a byte of version and the id of its key.
const keyPrefix = 5

// isUnder says whether a ciphertext was made with the key of that id.
func isUnder(sealed []byte, id uint32) bool {
	return len(sealed) >= keyPrefix && binary.BigEndian.Uint32(sealed[1:keyPrefix]) == id
}

// NoKEK is for who follows the catalogue and must not be able to read what is secret in it: controllers.
func NoKEK() KEK { return noKEK{} }

type noKEK struct{}

func (noKEK) Wrap(context.Context, []byte, []byte) ([]byte, error)   { return nil, ErrKEKAway }
func (noKEK) Unwrap(context.Context, []byte, []byte) ([]byte, error) { return nil, ErrKEKAway }
