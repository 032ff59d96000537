package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"paddock/controller/catalog"
	"paddock/controller/memstore"
	"paddock/controller/store"
	pb "paddock/proto/paddock/v1"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	must(t, err)
	return b
}

func put(t *testing.T, s store.Store, key string, value []byte) {
	t.Helper()
	_, err := s.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: key, Value: value}}})
	must(t, err)
}

// source is a service with one tenant, many records, code and keys, and what a life left that is over.
func source(t *testing.T, passphrase string) Source {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	dir := t.TempDir()
	blobs, err := catalog.OpenBlobs(filepath.Join(dir, "blobs"))
	must(t, err)
	t.Cleanup(func() { _ = blobs.Close() })
	put(t, s, store.Tenant("acme"), encode(t, &pb.TenantRecord{Id: "acme", WrappedKey: []byte("wrapped")}))
	for i := range 300 {
		put(t, s, store.Key(fmt.Sprintf("k%03d", i)), bytes.Repeat([]byte{byte(i)}, 10_000))
	}
	put(t, s, store.Version("acme", "f", 1), encode(t, &pb.VersionRecord{Number: 1, Hash: "aa"}))
	put(t, s, store.Version("acme", "g", 1), encode(t, &pb.VersionRecord{Number: 1, Hash: "aa"}))
	must(t, blobs.Write(t.Context(), "acme", "aa", []byte("sealed code")))
	put(t, s, store.Controller("c0ffee00"), []byte("here"))
	put(t, s, store.Assignment("c0ffee00", "acme", "node", "0"), []byte("bound"))
	kek := filepath.Join(dir, "kek")
	must(t, os.WriteFile(kek, []byte("the key that wraps"), 0o600))
	return Source{Store: s, Blobs: blobs, Files: map[string]string{"kek": kek}, Paddock: "test", Passphrase: []byte(passphrase)}
}

// target is where nothing is.
func target(t *testing.T) (Target, map[string]string) {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	blobs, err := catalog.OpenStoreBlobs(t.Context(), s, "")
	must(t, err)
	files := map[string]string{}
	return Target{Store: s, Blobs: blobs, Put: func(name string, data []byte) error { files[name] = string(data); return nil }}, files
}

func records(t *testing.T, s store.Store, prefix string) map[string]string {
	t.Helper()
	kvs, _, err := s.List(t.Context(), prefix)
	must(t, err)
	all := map[string]string{}
	for _, kv := range kvs {
		all[kv.Key] = string(kv.Value)
	}
	return all
}

// Everything comes back, in clear and encrypted, but what processes said of themselves.
func TestRoundTrip(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse battery"} {
		src := source(t, passphrase)
		path := filepath.Join(t.TempDir(), "backup")
		_, counts, err := Write(t.Context(), path, src)
		must(t, err)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		raw, err := os.ReadFile(path)
		must(t, err)
		if encrypted := !bytes.Contains(raw, []byte("the key that wraps")); encrypted != (passphrase != "") {
			t.Errorf("with passphrase %q encrypted: %v", passphrase, encrypted)
		}
		if _, again, err := Check(path, []byte(passphrase)); err != nil || *again != *counts || counts.Records != 303 || counts.Blobs != 1 {
			t.Errorf("wrote %+v, read %+v, %v", counts, again, err)
		}
		to, files := target(t)
		must(t, to.Empty(t.Context()))
		must(t, Restore(t.Context(), path, []byte(passphrase), to))
		want := records(t, src.Store, store.Root)
		delete(want, store.Controller("c0ffee00"))
		delete(want, store.Assignment("c0ffee00", "acme", "node", "0"))
		if got := records(t, to.Store, store.Root); !reflect.DeepEqual(got, want) {
			t.Errorf("%d records came back of %d", len(got), len(want))
		}
		if code, err := to.Blobs.Read(t.Context(), "acme", "aa"); err != nil || string(code) != "sealed code" {
			t.Errorf("code %q, %v", code, err)
		}
		if files["kek"] != "the key that wraps" {
			t.Errorf("files %v", files)
		}
		if err := to.Empty(t.Context()); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("a store with records is %v", err)
		}
		if _, _, err := Write(t.Context(), path, src); err == nil || !strings.Contains(err.Error(), "is there already") {
			t.Errorf("over another backup: %v", err)
		}
	}
}

// A file that is cut short anywhere, changed anywhere, foreign, of another format or under another passphrase is refused by name.
func TestBadFiles(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse battery"} {
		path := filepath.Join(t.TempDir(), "backup")
		_, _, err := Write(t.Context(), path, source(t, passphrase))
		must(t, err)
		whole, err := os.ReadFile(path)
		must(t, err)
		check := func(what string, content []byte, passphrase string, want error) {
			t.Helper()
			must(t, os.WriteFile(path, content, 0o600))
			if _, _, err := Check(path, []byte(passphrase)); err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		line := bytes.IndexByte(whole, '\n') + 1
		check("empty", nil, passphrase, ErrForeign)
		check("foreign", []byte("PK\x03\x04 something else altogether, long enough"), passphrase, ErrForeign)
		check("the line alone", whole[:line], passphrase, ErrDamaged)
		parts, flips := []int{8, 3, 2}, []int{line + 530, len(whole) / 2, len(whole) / 3}
		if passphrase != "" { // deriving the key takes its time, by design
			parts, flips = parts[1:2], flips[1:2]
		}
		for _, part := range parts {
			check(fmt.Sprintf("a %dth", part), whole[:len(whole)/part], passphrase, ErrDamaged)
		}
		check("without its last entry", whole[:len(whole)-3000], passphrase, ErrDamaged)
		for _, at := range flips {
			bent := bytes.Clone(whole)
			bent[at] ^= 1
			check(fmt.Sprintf("changed at %d", at), bent, passphrase, nil)
		}
		check("another format", bytes.Replace(whole, []byte(magic+" 1"), []byte(magic+" 9"), 1), passphrase, nil)
		if passphrase != "" {
			check("no passphrase", whole, "", ErrPassphrase)
			check("another passphrase", whole, "wrong horse battery", errUnopened)
		}
	}
}

// failingStore takes some transactions and then no more, until it is mended.
type failingStore struct {
	store.Store
	left int
}

func (s *failingStore) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if s.left--; s.left < 0 {
		return 0, store.ErrUnavailable
	}
	return s.Store.Commit(ctx, txn)
}

// What is broken off leaves nothing that a restore takes for something: neither where it can clean up itself nor where it was killed.
func TestBrokenOffRestore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backup")
	_, _, err := Write(t.Context(), path, source(t, ""))
	must(t, err)
	to, _ := target(t)
	put(t, to.Store, store.Controller("c1"), []byte("a controller that waits for routers"))

	real, put := to.Store, to.Put
	to.Put = func(string, []byte) error { return errors.New("disk full") }
	if err := Restore(t.Context(), path, nil, to); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("restored: %v", err)
	}
	if left := records(t, real, "/"); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	to.Put, to.Store = put, &failingStore{Store: real, left: 3} // as good as killed: it cannot clean up either
	if err := Restore(t.Context(), path, nil, to); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("restored: %v", err)
	}
	to.Store = real
	if n := len(records(t, real, store.Root)); n < 3 {
		t.Fatalf("%d records: nothing was written before the store failed", n)
	}
	must(t, to.Empty(t.Context()))
	must(t, Restore(t.Context(), path, nil, to))
	if got := records(t, real, store.Root); len(got) != 304 || got[restoring] != "" {
		t.Errorf("%d records came back", len(got))
	}
}

// A data key that is replaced while the backup is made: what was read does not belong together, and it begins again.
func TestDataKeyReplacedMeanwhile(t *testing.T) {
	src := source(t, "")
	moving := &movingStore{Store: src.Store, t: t, times: 1}
	src.Store = moving
	path := filepath.Join(t.TempDir(), "backup")
	_, counts, err := Write(t.Context(), path, src)
	must(t, err)
	if moving.times != 0 || counts.Records != 303 {
		t.Errorf("%d changes left, %+v", moving.times, counts)
	}
	moving.times = 100
	if _, _, err := Write(t.Context(), path+"2", src); !errors.Is(err, errMoved) {
		t.Errorf("always in motion: %v", err)
	}
	if left, err := filepath.Glob(path + "2*"); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// movingStore replaces the tenant's data key after each listing of everything.
type movingStore struct {
	store.Store
	t     *testing.T
	times int
}

func (s *movingStore) List(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	kvs, rev, err := s.Store.List(ctx, prefix)
	if prefix == store.Root && s.times > 0 {
		s.times--
		put(s.t, s.Store, store.Tenant("acme"), encode(s.t, &pb.TenantRecord{Id: "acme", WrappedKey: fmt.Append(nil, s.times, rev)}))
	}
	return kvs, rev, err
}
