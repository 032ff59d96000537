package backup

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/tenant"
)

// Check reads a backup through and says what is in it: that it is whole, and of a format that this version reads.
func Check(file string, passphrase []byte) (*Manifest, *Counts, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return scan(f, passphrase, visitor{records: func(r io.Reader) error {
		return eachRecord(r, func(string, []byte) error { return nil })
	}})
}

// Files says which files are in a backup.
func Files(file string, passphrase []byte) (names []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, _, err = scan(f, passphrase, visitor{file: func(name string, _ io.Reader, _ int64) error {
		names = append(names, name)
		return nil
	}})
	return names, err
}

// Target is where a backup is put. The store must hold nothing; Empty says so.
type Target struct {
	Store store.Store
	Blobs *catalog.Blobs
	// Put writes one of the files; nothing that is there may be replaced.
	Put func(name string, data []byte) error
}

// restoring stands in a store while a backup is being put there: what is beside it is half of something.
const restoring = store.Root + "restoring"

// Empty returns an error if the store holds anything but what running controllers say of themselves. What a restore that was
// broken off has left is removed.
func (t *Target) Empty(ctx context.Context) error {
	kvs, _, err := t.Store.List(ctx, store.Root)
	if err != nil {
		return err
	}
	broken := slices.ContainsFunc(kvs, func(kv store.KV) bool { return kv.Key == restoring })
	kvs = slices.DeleteFunc(kvs, func(kv store.KV) bool {
		return slices.ContainsFunc(left, func(p string) bool { return strings.HasPrefix(kv.Key, p) })
	})
	switch {
	case broken:
		return t.clear(ctx)
	case len(kvs) > 0:
		return fmt.Errorf("the store is not empty: it has %d records, the first is %s; a backup is restored into an empty one, before the first router starts",
			len(kvs), kvs[0].Key)
	}
	return nil
}

// Restore puts a backup that Check has found whole into an empty target. After an error nothing of it is left in the store.
func Restore(ctx context.Context, file string, passphrase []byte, t Target) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.commit(ctx, store.Txn{Guards: []store.Guard{{Key: restoring}}, Puts: []store.Put{{Key: restoring, Value: []byte("1")}}}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.clear(context.WithoutCancel(ctx)))
		}
	}()
	_, _, err = scan(f, passphrase, visitor{
		records: func(r io.Reader) error { return t.putRecords(ctx, r) },
		file: func(name string, r io.Reader, size int64) error {
			data, err := readEntry(r, size)
			if err != nil {
				return err
			}
			return t.Put(name, data)
		},
		blob: func(name string, r io.Reader, size int64) error {
			owner, hash, ok := strings.Cut(name, "/")
			if !ok || path.Clean(name) != name || strings.Contains(hash, "/") || owner == ".." {
				return fmt.Errorf("%w (a blob has the name %.80q)", ErrDamaged, name)
			}
			data, err := readEntry(r, size)
			if err != nil {
				return err
			}
			return t.Blobs.Write(ctx, tenant.ID(owner), hash, data)
		},
	})
	if err != nil {
		return err
	}
	return t.commit(ctx, store.Txn{Deletes: []string{restoring}})
}

// maxInMemory bounds an entry that is read whole.
const maxInMemory = 128 << 20

func readEntry(r io.Reader, size int64) ([]byte, error) {
	if size > maxInMemory {
		return nil, fmt.Errorf("%w (an entry of %d bytes)", ErrDamaged, size)
	}
	return io.ReadAll(r)
}

func (t *Target) commit(ctx context.Context, txn store.Txn) error {
	_, err := t.Store.Commit(ctx, txn)
	return err
}

// putRecords writes records, many in one transaction.
func (t *Target) putRecords(ctx context.Context, r io.Reader) error {
	var txn store.Txn
	size := 0
	flush := func() error {
		if len(txn.Puts) == 0 {
			return nil
		}
		err := t.commit(ctx, txn)
		txn, size = store.Txn{}, 0
		return err
	}
	err := eachRecord(r, func(key string, value []byte) error {
		if len(txn.Puts) == store.MaxTxnOps || size+len(key)+len(value) > store.MaxTxnBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		txn.Puts = append(txn.Puts, store.Put{Key: key, Value: value})
		size += len(key) + len(value)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// eachRecord calls f with every record until it fails.
func eachRecord(r io.Reader, f func(key string, value []byte) error) error {
	in := bufio.NewReader(r)
	field := func() ([]byte, error) {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return nil, err
		}
		if n > store.MaxValueBytes {
			return nil, fmt.Errorf("a record of %d bytes", n)
		}
		b := make([]byte, n)
		_, err = io.ReadFull(in, b)
		return b, err
	}
	for {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		key, err := field()
		if err != nil {
			return fmt.Errorf("%w (%w)", ErrDamaged, err)
		}
		value, err := field()
		if err != nil {
			return fmt.Errorf("%w (%w)", ErrDamaged, err)
		}
		if !strings.HasPrefix(string(key), store.Root) {
			return fmt.Errorf("%w (a record has the key %.80q)", ErrDamaged, key)
		}
		if err := f(string(key), value); err != nil {
			return err
		}
	}
}

// clear removes what a restore has put, the note that it was under way last.
func (t *Target) clear(ctx context.Context) error {
	for _, prefix := range []string{store.BlobsPrefix, store.Root} {
		kvs, _, err := t.Store.List(ctx, prefix)
		if err != nil {
			return err
		}
		for chunk := range slices.Chunk(kvs, store.MaxTxnOps) {
			var txn store.Txn
			for _, kv := range chunk {
				if kv.Key != restoring && !slices.ContainsFunc(left, func(p string) bool { return strings.HasPrefix(kv.Key, p) }) {
					txn.Deletes = append(txn.Deletes, kv.Key)
				}
			}
			if len(txn.Deletes) == 0 {
				continue
			}
			if err := t.commit(ctx, txn); err != nil {
				return err
			}
		}
	}
	return t.commit(ctx, store.Txn{Deletes: []string{restoring}})
}
