package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"paddock/internal/tenant"
)

// errNoBlob: there is no such blob.
var errNoBlob = errors.New("no such blob")

// Blobs keeps ciphertexts by tenant and name, in a directory. A blob is there whole or not at all, and once put it is on
// disk. Safe for concurrent use.
type Blobs struct {
	bucket *blob.Bucket
	dir    string
}

// OpenBlobs opens dir, and makes it 0700 if there is none.
func OpenBlobs(dir string) (*Blobs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// Temporary files go beside the final ones: elsewhere the rename would fail, and be none.
	b, err := fileblob.OpenBucket(dir, &fileblob.Options{
		NoTempDir: true, DirFileMode: 0o700, Metadata: fileblob.MetadataDontWrite,
	})
	if err != nil {
		return nil, err
	}
	return &Blobs{bucket: b, dir: dir}, nil
}

// Close releases the directory.
func (b *Blobs) Close() error { return b.bucket.Close() }

func blobKey(t tenant.ID, name string) string { return string(t) + "/" + name }

// put writes a blob, over one of the same name too: that renews its age.
func (b *Blobs) put(ctx context.Context, t tenant.ID, name string, data []byte) error {
	var file *os.File
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := b.bucket.NewWriter(ctx, blobKey(t, name), &blob.WriterOptions{
		ContentType: "application/octet-stream",
		BeforeWrite: func(as func(any) bool) error {
			as(&file)
			return nil
		},
	})
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil && file != nil {
		err = file.Sync()
	}
	if err != nil {
		cancel() // so that Close drops what was written
		_ = w.Close()
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Join(b.dir, string(t))), syncDir(b.dir))
}

// get reads a blob of at most limit bytes; errNoBlob if there is none.
func (b *Blobs) get(ctx context.Context, t tenant.ID, name string, limit int64) ([]byte, error) {
	r, err := b.bucket.NewReader(ctx, blobKey(t, name), nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("%w: %s", errNoBlob, blobKey(t, name))
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, more than %d", blobKey(t, name), r.Size(), limit)
	}
	return io.ReadAll(r)
}

// ofTenant calls f with a tenant's blobs and their names until it fails.
func (b *Blobs) ofTenant(ctx context.Context, t tenant.ID, f func(name string) error) error {
	prefix := string(t) + "/"
	return b.each(ctx, prefix, func(o *blob.ListObject) error { return f(strings.TrimPrefix(o.Key, prefix)) })
}

// removeTenant removes all blobs of a tenant.
func (b *Blobs) removeTenant(ctx context.Context, t tenant.ID) error {
	err := b.ofTenant(ctx, t, func(name string) error { return b.remove(ctx, blobKey(t, name)) })
	if err == nil {
		_ = os.Remove(filepath.Join(b.dir, string(t))) // empty, if nobody puts at this moment
	}
	return err
}

func (b *Blobs) remove(ctx context.Context, key string) error {
	if err := b.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return err
	}
	return nil
}

// each calls f with all blobs under prefix until it fails.
func (b *Blobs) each(ctx context.Context, prefix string, f func(*blob.ListObject) error) error {
	for it := b.bucket.List(&blob.ListOptions{Prefix: prefix}); ; {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(o); err != nil {
			return err
		}
	}
}

// has says whether there is such a blob.
func (b *Blobs) has(ctx context.Context, t tenant.ID, name string) (bool, error) {
	return b.bucket.Exists(ctx, blobKey(t, name))
}

// sweep removes blobs that were put before the given time and that keep does not want, and files that a killed process
// left half written. It returns how many.
func (b *Blobs) sweep(ctx context.Context, before time.Time, keep func(t tenant.ID, name string) bool) (int, error) {
	removed := 0
	err := b.each(ctx, "", func(o *blob.ListObject) error {
		t, name, _ := strings.Cut(o.Key, "/")
		if !o.ModTime.Before(before) || keep(tenant.ID(t), name) {
			return nil
		}
		// The listing is older than this moment: somebody may have put it again.
		now, err := b.bucket.Attributes(ctx, o.Key)
		if gcerrors.Code(err) == gcerrors.NotFound || err == nil && !now.ModTime.Before(before) {
			return nil
		}
		if err != nil {
			return err
		}
		removed++
		return b.remove(ctx, o.Key)
	})
	return removed, err
}
