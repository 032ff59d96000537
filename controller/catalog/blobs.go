package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"paddock/controller/store"
	"paddock/internal/tenant"
)

// ErrNoBlob says that there is no such blob.
var ErrNoBlob = errors.New("no such blob")

// blobKeeper keeps blobs by key, "<tenant>/<name>". A blob is there whole or not at all, and once put it is on disk. Safe for
// concurrent use.
type blobKeeper interface {
	// put writes a blob, over one of the same key too: that renews its age.
	put(ctx context.Context, key string, data []byte) error
	// get reads a blob of at most limit bytes; ErrNoBlob if there is none.
	get(ctx context.Context, key string, limit int64) ([]byte, error)
	// age says when a blob was put; ErrNoBlob if there is none.
	age(ctx context.Context, key string) (time.Time, error)
	// remove is no error if there is no such blob.
	remove(ctx context.Context, key string) error
	// each calls f with all blobs under prefix until it fails.
	each(ctx context.Context, prefix string, f func(key string, put time.Time) error) error
	// tidy removes what writers that were killed before the given time have left half done.
	tidy(ctx context.Context, before time.Time) error
	close() error
}

// Blobs keeps ciphertexts by tenant and name: in a directory, or in the store with a directory that has copies. Safe for
// concurrent use.
type Blobs struct {
	kept   blobKeeper
	copies blobKeeper // nil: none
}

// OpenBlobs opens dir, and makes it 0700 if there is none.
func OpenBlobs(dir string) (*Blobs, error) {
	d, err := openDirBlobs(dir)
	if err != nil {
		return nil, err
	}
	return &Blobs{kept: d}, nil
}

// OpenStoreBlobs keeps blobs in the store, with copies of those that were used in dir: what is there is served while the store
// is away, and costs it no reading. dir "" keeps no copies.
func OpenStoreBlobs(ctx context.Context, s store.Store, dir string) (*Blobs, error) {
	kept, err := openStoreBlobs(ctx, s)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return &Blobs{kept: kept}, nil
	}
	copies, err := openDirBlobs(dir)
	if err != nil {
		return nil, err
	}
	return &Blobs{kept: kept, copies: copies}, nil
}

// Close releases the directory.
func (b *Blobs) Close() error {
	err := b.kept.close()
	if b.copies != nil {
		err = errors.Join(err, b.copies.close())
	}
	return err
}

func blobKey(t tenant.ID, name string) string { return string(t) + "/" + name }

// put writes a blob, over one of the same name too: that renews its age.
func (b *Blobs) put(ctx context.Context, t tenant.ID, name string, data []byte) error {
	if err := b.kept.put(ctx, blobKey(t, name), data); err != nil {
		return err
	}
	b.copy(ctx, blobKey(t, name), data)
	return nil
}

// copy keeps a copy if that is possible.
func (b *Blobs) copy(ctx context.Context, key string, data []byte) {
	if b.copies == nil {
		return
	}
	if err := b.copies.put(ctx, key, data); err != nil {
		_ = b.copies.remove(ctx, key) // a former one must not stand for it
	}
}

// get reads a blob as it is, of at most limit bytes; ErrNoBlob if there is none.
func (b *Blobs) get(ctx context.Context, t tenant.ID, name string, limit int64) ([]byte, error) {
	data, err := b.kept.get(ctx, blobKey(t, name), limit)
	if err == nil {
		b.copy(ctx, blobKey(t, name), data)
	}
	return data, err
}

// Read returns a blob as it is kept, encrypted, for a backup; ErrNoBlob if there is none.
func (b *Blobs) Read(ctx context.Context, t tenant.ID, name string) ([]byte, error) {
	return b.kept.get(ctx, blobKey(t, name), maxCodeBytes+sealOverhead)
}

// Write puts back what Read returned.
func (b *Blobs) Write(ctx context.Context, t tenant.ID, name string, data []byte) error {
	return b.put(ctx, t, name, data)
}

// copied reads a copy, which another process's put may have made a former ciphertext; ErrNoBlob if there is none.
func (b *Blobs) copied(ctx context.Context, t tenant.ID, name string, limit int64) ([]byte, error) {
	if b.copies == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoBlob, blobKey(t, name))
	}
	return b.copies.get(ctx, blobKey(t, name), limit)
}

// fetch sees to it that there is a copy, if copies are kept at all.
func (b *Blobs) fetch(ctx context.Context, t tenant.ID, name string) error {
	if b.copies == nil {
		return nil
	}
	if _, err := b.copies.age(ctx, blobKey(t, name)); err == nil {
		return nil
	}
	_, err := b.get(ctx, t, name, maxCodeBytes+sealOverhead)
	return err
}

// ofTenant calls f with the names of a tenant's blobs until it fails.
func (b *Blobs) ofTenant(ctx context.Context, t tenant.ID, f func(name string) error) error {
	prefix := string(t) + "/"
	return b.kept.each(ctx, prefix, func(key string, _ time.Time) error { return f(strings.TrimPrefix(key, prefix)) })
}

// removeTenant removes all blobs of a tenant. Copies that other processes have go with their next sweep; nothing opens them
// any more.
func (b *Blobs) removeTenant(ctx context.Context, t tenant.ID) error {
	for _, k := range b.keepers() {
		err := k.each(ctx, string(t)+"/", func(key string, _ time.Time) error { return k.remove(ctx, key) })
		if err != nil {
			return err
		}
		if d, ok := k.(*dirBlobs); ok {
			d.dropEmpty(t)
		}
	}
	return nil
}

func (b *Blobs) keepers() []blobKeeper {
	if b.copies == nil {
		return []blobKeeper{b.kept}
	}
	return []blobKeeper{b.copies, b.kept}
}

// has says whether there is such a blob.
func (b *Blobs) has(ctx context.Context, t tenant.ID, name string) (bool, error) {
	_, err := b.kept.age(ctx, blobKey(t, name))
	if errors.Is(err, ErrNoBlob) {
		return false, nil
	}
	return err == nil, err
}

// sweep removes blobs that were put before the given time and that keep does not want, and what a killed process left half
// written. It returns how many, copies not counted.
func (b *Blobs) sweep(ctx context.Context, before time.Time, keep func(t tenant.ID, name string) bool) (removed int, err error) {
	for _, k := range b.keepers() {
		removed = 0
		err := k.each(ctx, "", func(key string, put time.Time) error {
			t, name, _ := strings.Cut(key, "/")
			if !put.Before(before) || keep(tenant.ID(t), name) {
				return nil
			}
			// The listing is older than this moment: somebody may have put it again.
			now, err := k.age(ctx, key)
			if errors.Is(err, ErrNoBlob) || err == nil && !now.Before(before) {
				return nil
			}
			if err != nil {
				return err
			}
			removed++
			return k.remove(ctx, key)
		})
		if err != nil {
			return removed, err
		}
		if err := k.tidy(ctx, before); err != nil {
			return removed, err
		}
	}
	return removed, nil
}
