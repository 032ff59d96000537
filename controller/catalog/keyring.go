package catalog

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

const (
	macBytes     = sha256.Size
	secretBytes  = 32
	keyIDBytes   = 8
	pepperBytes  = 32
	tokenPrefix  = "pdk_"
	maxKeyIDForm = 2 * keyIDBytes
)

// Pepper is what secrets' MACs are made with. It stays outside of the store: who has only the store cannot even test a
// guess.
type Pepper []byte

// LoadPepper reads the pepper from a file that only its owner can read, and makes one if there is none. Without that file
// every key is void.
func LoadPepper(path string) (Pepper, error) {
	b, err := loadOrCreate(path, func() ([]byte, error) {
		b := make([]byte, pepperBytes)
		_, err := rand.Read(b)
		return b, err
	})
	if err == nil && len(b) != pepperBytes {
		err = fmt.Errorf("%s has %d bytes, not %d", path, len(b), pepperBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("pepper: %w", err)
	}
	return b, nil
}

// mac binds a secret to its key's id.
func (p Pepper) mac(id, secret string) []byte {
	h := hmac.New(sha256.New, p)
	h.Write([]byte(id + "." + secret))
	return h.Sum(nil)
}

// newToken makes a key's id and secret.
func newToken() (id, secret string) {
	b := make([]byte, keyIDBytes+secretBytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b[:keyIDBytes]), base64.RawURLEncoding.EncodeToString(b[keyIDBytes:])
}

func formatToken(id, secret string) string { return tokenPrefix + id + "." + secret }

// Keyring checks API keys against the View, in memory. Safe for concurrent use.
type Keyring struct {
	view   *View
	pepper Pepper
}

// NewKeyring returns a Keyring over v.
func NewKeyring(v *View, p Pepper) *Keyring { return &Keyring{view: v, pepper: p} }

// Parse splits a token "pdk_<id>.<secret>". It knows nothing of whether there is such a key.
func (k *Keyring) Parse(token string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, ".")
	if !ok || len(id) != maxKeyIDForm || len(secret) != base64.RawURLEncoding.EncodedLen(secretBytes) {
		return "", "", false
	}
	return id, secret, true
}

// Key returns a key's record. A changed record is another pointer: what was derived from an old one no longer counts.
func (k *Keyring) Key(id string) (*KeyView, bool) { return k.view.Key(id) }

// Verify compares the secret with the record in constant time. It does not look at the expiry.
func (k *Keyring) Verify(v *KeyView, secret string) bool {
	return hmac.Equal(v.MAC, k.pepper.mac(v.ID, secret))
}

// Stale says that the view is so old that keys must fail closed.
func (k *Keyring) Stale() bool { return k.view.Stale() }

func (v *KeyView) expired(now time.Time) bool { return !v.Expires.IsZero() && !now.Before(v.Expires) }
