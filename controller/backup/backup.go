package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// left out of a backup: what processes said of themselves.
var left = []string{store.ControllersPrefix, store.AssignmentsPrefix, store.ElectionPrefix}

// attempts is how often a backup begins again because a data key was replaced meanwhile.
const attempts = 3

// Source is what a backup is made of.
type Source struct {
	Store      store.Store
	Blobs      *catalog.Blobs
	Files      map[string]string // what a file is called in the backup, and where it is
	Paddock    string            // this version
	Passphrase []byte            // none: the backup is in clear
}

// errMoved says that what was read does not belong together.
var errMoved = errors.New("data keys are being replaced: try again in a minute")

// Write makes a backup at path, mode 0600, whole or not at all; a file that is there is not replaced.
func Write(ctx context.Context, path string, src Source) (*Manifest, *Counts, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, nil, fmt.Errorf("%s is there already: name another file", path)
	}
	part := path + ".partial"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(part) // gone already if all went well
	defer f.Close()
	if err := f.Chmod(0o600); err != nil {
		return nil, nil, err
	}
	m, c, err := src.writeTo(ctx, f)
	for n := 1; errors.Is(err, errMoved) && n < attempts; n++ {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, nil, err
		}
		if err := f.Truncate(0); err != nil {
			return nil, nil, err
		}
		m, c, err = src.writeTo(ctx, f)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(f.Sync(), os.Link(part, path)); err != nil {
		return nil, nil, err
	}
	return m, c, nil
}

// writeTo writes the records first, at one revision; then the code that they refer to, which never changes but for the key that it is
// under; then the keys: those that the records need are still there for an hour after a rotation.
func (s *Source) writeTo(ctx context.Context, w io.Writer) (*Manifest, *Counts, error) {
	a, err := newArchive(w, s.Passphrase)
	if err != nil {
		return nil, nil, err
	}
	kvs, rev, err := s.Store.List(ctx, store.Root)
	if err != nil {
		return nil, nil, err
	}
	kvs = slices.DeleteFunc(kvs, func(kv store.KV) bool {
		return slices.ContainsFunc(left, func(p string) bool { return strings.HasPrefix(kv.Key, p) })
	})
	if len(kvs) == 0 {
		return nil, nil, errors.New("the store holds nothing of Paddock's: is it the right one?")
	}
	m := &Manifest{Format: formatVersion, Made: time.Now().UTC(), Paddock: s.Paddock, Revision: rev}
	if err := a.addJSON(entryManifest, m); err != nil {
		return nil, nil, err
	}
	if err := a.add(entryRecords, encodeRecords(kvs)); err != nil {
		return nil, nil, err
	}
	a.counts.Records = len(kvs)
	if err := s.addBlobs(ctx, a, kvs); err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.Files)) {
		data, err := os.ReadFile(s.Files[name])
		if err != nil {
			return nil, nil, err
		}
		if err := a.add(filesPrefix+name, data); err != nil {
			return nil, nil, err
		}
		a.counts.Files++
	}
	if err := s.sameKeys(ctx, kvs); err != nil {
		return nil, nil, err
	}
	return m, &a.counts, a.finish()
}

// addBlobs adds the code of all versions in kvs.
func (s *Source) addBlobs(ctx context.Context, a *archive, kvs []store.KV) error {
	seen := map[string]bool{}
	for _, kv := range kvs {
		kind, parts := store.SplitKey(kv.Key)
		if kind != store.KindVersion {
			continue
		}
		var rec pb.VersionRecord
		if err := proto.Unmarshal(kv.Value, &rec); err != nil {
			return fmt.Errorf("version %s cannot be read: %w", kv.Key, err)
		}
		name := parts[0] + "/" + rec.GetHash()
		if seen[name] {
			continue
		}
		seen[name] = true
		data, err := s.Blobs.Read(ctx, tenant.ID(parts[0]), rec.GetHash())
		if errors.Is(err, catalog.ErrNoBlob) {
			if _, gone := s.Store.Get(ctx, kv.Key); errors.Is(gone, store.ErrNotFound) {
				continue // deleted meanwhile
			}
		}
		if err != nil {
			return fmt.Errorf("the code of version %s: %w", kv.Key, err)
		}
		if err := a.add(blobsPrefix+name, data); err != nil {
			return err
		}
		a.counts.Blobs++
		a.counts.Bytes += int64(len(data))
	}
	return nil
}

// sameKeys says errMoved if a tenant's data key is another than in kvs: code that was read after that is under it.
func (s *Source) sameKeys(ctx context.Context, kvs []store.KV) error {
	now, _, err := s.Store.List(ctx, store.TenantsPrefix)
	if err != nil {
		return err
	}
	keys := map[string][]byte{}
	for _, kv := range now {
		if keys[kv.Key], err = wrappedKey(kv.Value); err != nil {
			return fmt.Errorf("%s cannot be read: %w", kv.Key, err)
		}
	}
	for _, kv := range kvs {
		current, there := keys[kv.Key]
		if kind, _ := store.SplitKey(kv.Key); kind != store.KindTenant || !there {
			continue
		}
		then, err := wrappedKey(kv.Value)
		if err != nil {
			return fmt.Errorf("%s cannot be read: %w", kv.Key, err)
		}
		if !bytes.Equal(then, current) {
			return errMoved
		}
	}
	return nil
}

func wrappedKey(record []byte) ([]byte, error) {
	var rec pb.TenantRecord
	err := proto.Unmarshal(record, &rec)
	return rec.GetWrappedKey(), err
}

func encodeRecords(kvs []store.KV) []byte {
	var b []byte
	for _, kv := range kvs {
		b = binary.AppendUvarint(b, uint64(len(kv.Key)))
		b = append(b, kv.Key...)
		b = binary.AppendUvarint(b, uint64(len(kv.Value)))
		b = append(b, kv.Value...)
	}
	return b
}
