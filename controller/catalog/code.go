package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"paddock/internal/errs"
	"paddock/internal/sizedcache"
	"paddock/internal/tenant"
)

const (
	hashBytes   = sha256.Size
	kindCode    = "code"
	loadTimeout = 10 * time.Second
	// sealOverhead is more than encryption adds to a text.
	sealOverhead = 64
	// maxCodeBytes bounds what is read of one blob, whatever policies say.
	maxCodeBytes = 64 << 20
)

// hashCode names code by what it is.
func hashCode(source []byte) string {
	sum := sha256.Sum256(source)
	return hex.EncodeToString(sum[:])
}

type codeKey struct {
	tenant tenant.ID
	hash   string
}

// codeCache holds decrypted code, the most recently used up to a number of bytes. Safe for concurrent use.
type codeCache struct {
	blobs *Blobs
	seal  *sealer
	loads singleflight.Group // one load of a piece of code at a time
	kept  *sizedcache.Cache[codeKey, []byte]
}

func newCodeCache(b *Blobs, s *sealer, most int64) *codeCache {
	return &codeCache{blobs: b, seal: s, kept: sizedcache.New[codeKey, []byte](most)}
}

// get returns the code of a tenant by hash.
func (c *codeCache) get(ctx context.Context, t *TenantView, hash string) ([]byte, error) {
	if source, ok := c.kept.Get(codeKey{t.ID, hash}); ok {
		return source, nil
	}
	// The load outlives a caller who goes away: others may wait for it.
	answers := c.loads.DoChan(string(t.ID)+"/"+hash, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		return c.load(ctx, t, hash)
	})
	select {
	case a := <-answers:
		if a.Err != nil {
			return nil, a.Err
		}
		return a.Val.([]byte), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *codeCache) load(ctx context.Context, t *TenantView, hash string) ([]byte, error) {
	fail := func(err error) error {
		return errs.Wrap(errs.Internal, "load code", err,
			"the code %.12s… of tenant %s cannot be read; the operator's log has the details", hash, t.ID)
	}
	source, err := c.open(ctx, t, hash, c.blobs.copied)
	if err != nil && !errors.Is(err, ErrKEKAway) { // no copy, or one under a former key
		source, err = c.open(ctx, t, hash, c.blobs.get)
	}
	if errors.Is(err, ErrNoBlob) {
		return nil, errs.Wrap(errs.NotFound, "load code", err, "tenant %s has no code %.12s…", t.ID, hash)
	}
	if e := asKEKAway("load code", err); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, fail(err)
	}
	if hashCode(source) != hash {
		return nil, fail(fmt.Errorf("blob %s/%s holds other code", t.ID, hash))
	}
	c.kept.Add(codeKey{t.ID, hash}, source, int64(len(source)))
	return source, nil
}

// open reads a ciphertext and opens it.
func (c *codeCache) open(ctx context.Context, t *TenantView, hash string,
	read func(context.Context, tenant.ID, string, int64) ([]byte, error)) ([]byte, error) {
	sealed, err := read(ctx, t.ID, hash, maxCodeBytes+sealOverhead)
	if err != nil {
		return nil, err
	}
	return c.seal.unseal(ctx, t.ID, t.dataKey, kindCode, hash, sealed)
}

// forget drops everything of a tenant, its key too.
func (c *codeCache) forget(t tenant.ID) {
	c.seal.forget(t)
	c.kept.Drop(func(key codeKey) bool { return key.tenant == t })
}

func (c *codeCache) size() (bytes int64, items int) { return c.kept.Size() }
