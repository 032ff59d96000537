package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"paddock/internal/tenant"
)

// dirBlobs keeps blobs in a directory.
type dirBlobs struct {
	bucket *blob.Bucket
	dir    string
}

func openDirBlobs(dir string) (*dirBlobs, error) {
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
	return &dirBlobs{bucket: b, dir: dir}, nil
}

func (d *dirBlobs) close() error { return d.bucket.Close() }

func (d *dirBlobs) put(ctx context.Context, key string, data []byte) error {
	var file *os.File
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := d.bucket.NewWriter(ctx, key, &blob.WriterOptions{
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
	return errors.Join(syncDir(filepath.Dir(filepath.Join(d.dir, key))), syncDir(d.dir))
}

func (d *dirBlobs) get(ctx context.Context, key string, limit int64) ([]byte, error) {
	r, err := d.bucket.NewReader(ctx, key, nil)
	if err != nil {
		return nil, blobError(key, err)
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, tooLargeBlob(key, r.Size(), limit)
	}
	return io.ReadAll(r)
}

func (d *dirBlobs) age(ctx context.Context, key string) (time.Time, error) {
	a, err := d.bucket.Attributes(ctx, key)
	if err != nil {
		return time.Time{}, blobError(key, err)
	}
	return a.ModTime, nil
}

func (d *dirBlobs) remove(ctx context.Context, key string) error {
	if err := blobError(key, d.bucket.Delete(ctx, key)); err != nil && !errors.Is(err, ErrNoBlob) {
		return err
	}
	return nil
}

func (d *dirBlobs) each(ctx context.Context, prefix string, f func(key string, put time.Time) error) error {
	for it := d.bucket.List(&blob.ListOptions{Prefix: prefix}); ; {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(o.Key, o.ModTime); err != nil {
			return err
		}
	}
}

// tidy has nothing to do: temporary files are listed like others, and nobody wants them.
func (d *dirBlobs) tidy(context.Context, time.Time) error { return nil }

// dropEmpty removes a tenant's directory if nobody puts at this moment.
func (d *dirBlobs) dropEmpty(t tenant.ID) { _ = os.Remove(filepath.Join(d.dir, string(t))) }

// blobError says ErrNoBlob where the bucket says that there is none.
func blobError(key string, err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return fmt.Errorf("%w: %s", ErrNoBlob, key)
	}
	return err
}

func tooLargeBlob(key string, size, limit int64) error {
	return fmt.Errorf("blob %s has %d bytes, more than %d", key, size, limit)
}
