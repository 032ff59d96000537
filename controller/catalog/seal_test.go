package catalog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"paddock/internal/errs"
	"paddock/internal/identity"
)

// TestNothingInClear: a planted text is found in no file of the store nor of the blobs, nor are keys' secrets or the keys
// that could open them.
func TestNothingInClear(t *testing.T) {
	s, etcdDir := etcd(t)
	w := newWorld(t, s)
	canary := "canary-7f3a9c-" + strings.Repeat("do not find me ", 4)
	w.tenant("acme", nil)
	d := w.deploy("acme", "f", "module.exports = () => '"+canary+"'")
	_, token, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	must(t, err)
	_, secret, _ := w.keyring.Parse(token)
	pepper, err := os.ReadFile(filepath.Join(w.dir, "pepper"))
	must(t, err)
	kek, err := os.ReadFile(filepath.Join(w.dir, "kek"))
	must(t, err)
	src, err := w.view.Source(t.Context(), "acme", d.Version.Hash)
	if err != nil || !bytes.Contains(src, []byte(canary)) {
		t.Fatalf("%q, %v", src, err)
	}
	must(t, s.Close()) // all of it is on disk now
	needles := map[string][]byte{
		"code": []byte("do not find me"), "secret": []byte(secret), "pepper": pepper,
		"key-encryption key": kek[len(kek)-40 : len(kek)-12],
	}
	files, seenHash := 0, false
	for _, dir := range []string{etcdDir, filepath.Join(w.dir, "blobs")} {
		must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			seenHash = seenHash || bytes.Contains(b, []byte(d.Version.Hash))
			for what, needle := range needles {
				if bytes.Contains(b, needle) {
					t.Errorf("%s stands in clear in %s", what, path)
				}
			}
			return nil
		}))
	}
	if files < 3 || !seenHash {
		t.Errorf("looked into %d files without finding what must be there (%v)", files, seenHash)
	}
}

// TestCiphertextsAreBound: a blob opens only as the tenant's and name's that it was sealed for.
func TestCiphertextsAreBound(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("evil", nil)
	mine := w.deploy("acme", "f", "mine")
	other := w.deploy("acme", "g", "other")
	evil := w.deploy("evil", "f", "mine")
	path := func(t, hash string) string { return filepath.Join(w.dir, "blobs", t, hash) }
	read := func(p string) []byte {
		b, err := os.ReadFile(p)
		must(t, err)
		return b
	}
	mineBlob, otherBlob, evilBlob := read(path("acme", mine.Version.Hash)), read(path("acme", other.Version.Hash)),
		read(path("evil", evil.Version.Hash))
	if bytes.Equal(mineBlob, evilBlob) {
		t.Error("two tenants' ciphertexts of the same code are equal")
	}
	flipped := bytes.Clone(mineBlob)
	flipped[len(flipped)/2] ^= 1
	for name, b := range map[string][]byte{
		"another's of the same tenant": otherBlob, "another tenant's": evilBlob, "flipped": flipped,
		"cut": mineBlob[:len(mineBlob)-1], "empty": nil, "clear": []byte("mine"),
	} {
		must(t, os.WriteFile(path("acme", mine.Version.Hash), b, 0o600))
		fresh := openWorld(t, w.store, w.dir) // nothing cached
		_, err := fresh.view.Source(t.Context(), "acme", mine.Version.Hash)
		wantKind(t, err, errs.Internal)
		if strings.Contains(errs.From(err).Message, w.dir) {
			t.Errorf("%s: the caller is told a path", name)
		}
	}
	// Deploying it again mends it.
	w.deploy("acme", "f", "mine")
	fresh := openWorld(t, w.store, w.dir)
	if src, err := fresh.view.Source(t.Context(), "acme", mine.Version.Hash); err != nil || string(src) != "mine" {
		t.Errorf("%q, %v", src, err)
	}
	must(t, os.Remove(path("acme", mine.Version.Hash)))
	_, err := openWorld(t, w.store, w.dir).view.Source(t.Context(), "acme", mine.Version.Hash)
	wantKind(t, err, errs.NotFound)
	_, err = w.view.Source(t.Context(), "nobody", mine.Version.Hash)
	wantKind(t, err, errs.NotFound)
}

// TestShredded: a copy of a deleted tenant's blob opens for nobody, not even for a new tenant of that name.
func TestShredded(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	d := w.deploy("acme", "f", "shred me")
	path := filepath.Join(w.dir, "blobs", "acme", d.Version.Hash)
	copied, err := os.ReadFile(path)
	must(t, err)
	_, err = w.service.DeleteTenant(t.Context(), "acme")
	must(t, err)
	w.tenant("acme", nil)
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, copied, 0o600))
	_, err = w.view.Source(t.Context(), "acme", d.Version.Hash)
	wantKind(t, err, errs.Internal)
}

// TestOtherKEK: with another key-encryption key the error says so, to the operator.
func TestOtherKEK(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	d := w.deploy("acme", "f", "x")
	must(t, os.Remove(filepath.Join(w.dir, "kek")))
	_, err := openWorld(t, w.store, w.dir).view.Source(t.Context(), "acme", d.Version.Hash)
	wantKind(t, err, errs.Internal)
	if !strings.Contains(err.Error(), "key-encryption key does not open it") {
		t.Errorf("%v", err)
	}
}

// TestDiskFull: a deployment for which there is no room is refused with what is wrong, and leaves nothing half made.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	w := openWorld(t, mem(t), dir)
	w.tenant("acme", nil)
	w.deploy("acme", "f", "small")
	big := bytes.Repeat([]byte("x"), 512<<10)
	_, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "f", Source: big})
	wantKind(t, err, errs.NoCapacity, "disk")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if v, ok := w.view.Function("acme", "f", 0); !ok || v.Number != 1 {
		t.Errorf("%+v", v)
	}
	files, err := os.ReadDir(filepath.Join(dir, "blobs", "acme"))
	if err != nil || len(files) != 1 {
		t.Errorf("left: %v, %v", files, err)
	}
	w.deploy("acme", "f", "small again")
}

// TestKEKContext: what is wrapped for one use does not unwrap for another.
func TestKEKContext(t *testing.T) {
	kek, err := LoadKEK(filepath.Join(t.TempDir(), "kek"))
	must(t, err)
	wrapped, err := kek.Wrap(context.Background(), []byte("key"), []byte("a"))
	must(t, err)
	if _, err := kek.Unwrap(context.Background(), wrapped, []byte("b")); err == nil {
		t.Error("unwrapped under another context")
	}
	if key, err := kek.Unwrap(context.Background(), wrapped, []byte("a")); err != nil || string(key) != "key" {
		t.Errorf("%q, %v", key, err)
	}
}
