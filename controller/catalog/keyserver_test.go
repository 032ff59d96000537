package catalog

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/tink-crypto/tink-go/v2/tink"

	"paddock/internal/errs"
)

// keyService is a key management service that can be away.
type keyService struct {
	tink.AEAD
	away  atomic.Bool
	asked atomic.Int64
}

var errAway = errors.New("dial tcp: connection refused")

func (k *keyService) EncryptWithContext(_ context.Context, plain, associated []byte) ([]byte, error) {
	if k.asked.Add(1); k.away.Load() {
		return nil, errAway
	}
	return k.Encrypt(plain, associated)
}

func (k *keyService) DecryptWithContext(_ context.Context, sealed, associated []byte) ([]byte, error) {
	if k.asked.Add(1); k.away.Load() {
		return nil, errAway
	}
	return k.Decrypt(sealed, associated)
}

// TestKeyService: with the key-encryption key in a service everything works; while that is away, what is decrypted or has
// its data key at hand is served on, the rest fails with what is wrong, and nothing has started.
func TestKeyService(t *testing.T) {
	key, err := newKeyset()
	must(t, err)
	_, a, err := openKeyset(key)
	must(t, err)
	service := &keyService{AEAD: a}
	remote := func(vo *ViewOptions, so *Options) { vo.KEK, so.KEK = RemoteKEK(service), RemoteKEK(service) }
	w := newWorld(t, mem(t), remote)
	w.tenant("acme", nil)
	w.tenant("cold", nil)
	w.secret("acme", "A", "", "value a")
	w.secret("cold", "A", "", "value")
	first, second := w.deploy("acme", "f", "code"), w.deploy("acme", "g", "more code")
	router := openWorld(t, w.store, w.dir, remote)
	for range 3 {
		if got, _ := router.gets("acme", ""); got != "map[A:value a]" {
			t.Errorf("%s", got)
		}
	}
	_, err = router.view.Source(t.Context(), "acme", first.Version.Hash)
	must(t, err)
	asked := service.asked.Load()

	service.away.Store(true)
	w.secret("acme", "A", "", "value a2") // the service has the data key at hand
	router.sees(w.view.Revision())
	if got, _ := router.gets("acme", ""); got != "map[A:value a2]" {
		t.Errorf("%s", got)
	}
	src, err := router.view.Source(t.Context(), "acme", second.Version.Hash)
	if err != nil || string(src) != "more code" || service.asked.Load() != asked {
		t.Errorf("%q, %v, asked %d times more", src, err, service.asked.Load()-asked)
	}
	_, err = router.view.Secrets(t.Context(), "cold", "")
	wantKind(t, err, errs.NoCapacity, "key-encryption key", "does not answer")
	if e := errs.From(err); e.WhetherStarted() != errs.StartedNo || e.RetryAfter == 0 || !errors.Is(err, errAway) {
		t.Errorf("%+v", e)
	}
	_, err = w.service.CreateTenant(t.Context(), "new", nil)
	wantKind(t, err, errs.NoCapacity, "key-encryption key")
	_, err = w.service.RotateDataKey(t.Context(), "acme")
	wantKind(t, err, errs.NoCapacity, "key-encryption key")

	service.away.Store(false)
	if got, _ := router.gets("cold", ""); got != "map[A:value]" {
		t.Errorf("%s", got)
	}
	_, err = w.service.RotateDataKey(t.Context(), "acme")
	must(t, err)
	if n, err := w.service.RotateKEK(t.Context()); n != 2 || err != nil {
		t.Errorf("%d wrapped again, %v", n, err)
	}
	if got, _ := openWorld(t, w.store, w.dir, remote).gets("acme", ""); got != "map[A:value a2]" {
		t.Errorf("%s", got)
	}
}
