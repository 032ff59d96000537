package catalog

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	pb "paddock/proto/paddock/v1"
)

// Bounds of blobs in the store, which is small: its quota is 2 GiB, with history and what the catalogue takes.
const (
	blobChunkBytes  = 512 << 10
	maxStoredBlob   = 32 << 20
	maxStoredBlobs  = 1 << 30 // all together, by what this process knows
	blobReadRetries = 3
)

// storeBlobs keeps blobs in the store in bounded pieces: what all routers reach, and what survives what the store survives. A
// blob's head names the generation of its pieces, so that one that is written again is read whole, the old or the new one.
type storeBlobs struct {
	store store.Store
	total atomic.Int64 // of what there is, as last counted, and of what was put since
}

func openStoreBlobs(ctx context.Context, s store.Store) (*storeBlobs, error) {
	b := &storeBlobs{store: s}
	return b, b.count(ctx)
}

func (b *storeBlobs) close() error { return nil }

// count learns how much there is.
func (b *storeBlobs) count(ctx context.Context) error {
	var total int64
	err := b.heads(ctx, "", func(_ string, h *pb.BlobRecord) error {
		total += h.GetSizeBytes()
		return nil
	})
	if err == nil {
		b.total.Store(total)
	}
	return err
}

func (b *storeBlobs) put(ctx context.Context, key string, data []byte) error {
	if len(data) > maxStoredBlob {
		return fmt.Errorf("%w: code of %d bytes, at most %d where the store keeps it; a directory (--blobs) takes more", store.ErrTooLarge, len(data), maxStoredBlob)
	}
	if b.total.Load()+int64(len(data)) > maxStoredBlobs {
		return fmt.Errorf("%w: stored code takes %d MiB of the store: delete functions, or keep it in a directory (--blobs)", store.ErrNoSpace, b.total.Load()>>20)
	}
	head, err := newBlobHead(data)
	if err != nil {
		return err
	}
	value, err := proto.Marshal(head)
	if err != nil {
		return err
	}
	chunks := slices.Collect(slices.Chunk(data, blobChunkBytes))
	txn := store.Txn{Puts: []store.Put{{Key: store.BlobHead(key), Value: value}}}
	if len(chunks) > 2 { // they do not fit into one transaction
		writing := store.BlobWriting(key, head.GetGeneration())
		if err := b.putChunks(ctx, key, head, writing, value, chunks); err != nil {
			return err
		}
		txn.Deletes = []string{writing}
	} else {
		for i, c := range chunks {
			txn.Puts = append(txn.Puts, store.Put{Key: store.BlobChunk(key, head.GetGeneration(), i), Value: c})
		}
	}
	if err := b.replace(ctx, key, txn); err != nil {
		return err
	}
	b.total.Add(int64(len(data)))
	return nil
}

func newBlobHead(data []byte) (*pb.BlobRecord, error) {
	var generation [8]byte
	if _, err := rand.Read(generation[:]); err != nil {
		return nil, err
	}
	return &pb.BlobRecord{
		Written: asTimestamp(time.Now()), SizeBytes: int64(len(data)), Generation: hex.EncodeToString(generation[:]),
		Chunks: int32((len(data) + blobChunkBytes - 1) / blobChunkBytes),
	}, nil
}

// putChunks writes pieces one by one, after a note by which tidy finds them if the head never comes.
func (b *storeBlobs) putChunks(ctx context.Context, key string, head *pb.BlobRecord, writing string, note []byte, chunks [][]byte) error {
	if _, err := b.store.Commit(ctx, store.Txn{Puts: []store.Put{{Key: writing, Value: note}}}); err != nil {
		return err
	}
	for i, c := range chunks {
		put := store.Put{Key: store.BlobChunk(key, head.GetGeneration(), i), Value: c}
		if _, err := b.store.Commit(ctx, store.Txn{Puts: []store.Put{put}}); err != nil {
			return err
		}
	}
	return nil
}

// replace commits a new head together with the end of the former one's pieces.
func (b *storeBlobs) replace(ctx context.Context, key string, txn store.Txn) error {
	for range blobReadRetries {
		former, rev, err := b.head(ctx, key)
		if err != nil && !errors.Is(err, ErrNoBlob) {
			return err
		}
		t := txn
		t.Guards = []store.Guard{{Key: store.BlobHead(key), ModRevision: rev}}
		for _, p := range txn.Deletes { // the note must still stand: else tidy has taken the pieces
			kv, err := b.store.Get(ctx, p)
			if err != nil {
				return err
			}
			t.Guards = append(t.Guards, store.Guard{Key: p, ModRevision: kv.ModRevision})
		}
		t.Deletes = append(slices.Clone(txn.Deletes), chunkKeys(key, former)...)
		_, err = b.store.Commit(ctx, t)
		if err == nil {
			b.total.Add(-former.GetSizeBytes())
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("blob %s: %w", key, store.ErrConflict)
}

// head reads a blob's head and its revision; ErrNoBlob if there is none.
func (b *storeBlobs) head(ctx context.Context, key string) (*pb.BlobRecord, int64, error) {
	kv, err := b.store.Get(ctx, store.BlobHead(key))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: %s", ErrNoBlob, key)
	}
	if err != nil {
		return nil, 0, err
	}
	rec := &pb.BlobRecord{}
	if err := proto.Unmarshal(kv.Value, rec); err != nil {
		return nil, 0, fmt.Errorf("blob %s: its head cannot be read: %w", key, err)
	}
	return rec, kv.ModRevision, nil
}

func chunkKeys(key string, head *pb.BlobRecord) []string {
	keys := make([]string, head.GetChunks())
	for i := range keys {
		keys[i] = store.BlobChunk(key, head.GetGeneration(), i)
	}
	return keys
}

func (b *storeBlobs) get(ctx context.Context, key string, limit int64) ([]byte, error) {
	for try := 0; ; try++ {
		head, _, err := b.head(ctx, key)
		if err != nil {
			return nil, err
		}
		if head.GetSizeBytes() > limit {
			return nil, tooLargeBlob(key, head.GetSizeBytes(), limit)
		}
		data, err := b.pieces(ctx, key, head)
		if !errors.Is(err, store.ErrNotFound) || try == blobReadRetries { // written again meanwhile
			return data, err
		}
	}
}

func (b *storeBlobs) pieces(ctx context.Context, key string, head *pb.BlobRecord) ([]byte, error) {
	var all bytes.Buffer
	for _, k := range chunkKeys(key, head) {
		kv, err := b.store.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		all.Write(kv.Value)
	}
	if int64(all.Len()) != head.GetSizeBytes() {
		return nil, fmt.Errorf("blob %s has %d bytes, its head says %d", key, all.Len(), head.GetSizeBytes())
	}
	return all.Bytes(), nil
}

func (b *storeBlobs) age(ctx context.Context, key string) (time.Time, error) {
	head, _, err := b.head(ctx, key)
	return asTime(head.GetWritten()), err
}

func (b *storeBlobs) remove(ctx context.Context, key string) error {
	for range blobReadRetries {
		head, rev, err := b.head(ctx, key)
		if errors.Is(err, ErrNoBlob) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = b.store.Commit(ctx, store.Txn{
			Guards:  []store.Guard{{Key: store.BlobHead(key), ModRevision: rev}},
			Deletes: append(chunkKeys(key, head), store.BlobHead(key)),
		})
		if err == nil {
			b.total.Add(-head.GetSizeBytes())
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("blob %s: %w", key, store.ErrConflict)
}

func (b *storeBlobs) each(ctx context.Context, prefix string, f func(key string, put time.Time) error) error {
	return b.heads(ctx, prefix, func(key string, h *pb.BlobRecord) error { return f(key, asTime(h.GetWritten())) })
}

func (b *storeBlobs) heads(ctx context.Context, prefix string, f func(key string, head *pb.BlobRecord) error) error {
	kvs, _, err := b.store.List(ctx, store.BlobHead(prefix))
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		rec := &pb.BlobRecord{}
		key := strings.TrimPrefix(kv.Key, store.BlobHead(""))
		if err := proto.Unmarshal(kv.Value, rec); err != nil {
			return fmt.Errorf("blob %s: its head cannot be read: %w", key, err)
		}
		if err := f(key, rec); err != nil {
			return err
		}
	}
	return nil
}

// tidy removes pieces whose head never came, and counts anew.
func (b *storeBlobs) tidy(ctx context.Context, before time.Time) error {
	kvs, _, err := b.store.List(ctx, store.BlobWriting("", ""))
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		rec := &pb.BlobRecord{}
		key, ok := store.SplitBlobWriting(kv.Key)
		if err := proto.Unmarshal(kv.Value, rec); err != nil || !ok || !asTime(rec.GetWritten()).Before(before) {
			continue
		}
		_, err := b.store.Commit(ctx, store.Txn{
			Guards:  []store.Guard{{Key: kv.Key, ModRevision: kv.ModRevision}},
			Deletes: append(chunkKeys(key, rec), kv.Key),
		})
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return b.count(ctx)
}
