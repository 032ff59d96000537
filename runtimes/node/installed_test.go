package node_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"paddock/internal/testenv"
	"paddock/runtimes/node"
)

// What is read from an image on disk is what its build has returned; a kept one outlives Prune.
func TestInstalled(t *testing.T) {
	o := node.Options{Dir: filepath.Join(t.TempDir(), "images"), CacheDir: filepath.Join(testenv.CacheDir, "downloads")}
	testenv.NodeImage(t) // root, npm
	want, err := node.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	shelf := node.NewShelf(o.Dir)
	all, refused, err := shelf.Look(t.Context())
	if err != nil || len(refused) > 0 || len(all) != 1 || !reflect.DeepEqual(all[0], want) {
		t.Fatalf("%+v, %v, %v, want %+v", all, refused, err, want)
	}
	if err := node.Keep(o.Dir, want.Digest); err != nil {
		t.Fatal(err)
	}
	if err := node.Prune(t.Context(), o.Dir); err != nil {
		t.Fatal(err)
	}
	if all, _, err := shelf.Look(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("after Prune: %v, %v", all, err)
	}
}

// An image is given out if its files make its digest. What is put right in another directory is taken at once.
func TestTamperedImageIsRefused(t *testing.T) {
	testenv.NeedRoot(t)
	dir := filepath.Join(t.TempDir(), "images")
	build := func() string {
		rootfs := filepath.Join(dir, "new", "rootfs")
		if err := os.MkdirAll(filepath.Join(rootfs, "paddock"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(rootfs, "paddock", "command"), []byte("A=b\n\n/node agent\nheap 95%\nnode v1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		digest, err := node.Sum(t.Context(), rootfs)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Dir(rootfs), filepath.Join(dir, digest)); err != nil {
			t.Fatal(err)
		}
		return digest
	}
	digest := build()
	if err := os.WriteFile(filepath.Join(dir, digest, "rootfs", "paddock", "command"), []byte("A=b\n\n/node other\nheap 95%\nnode v1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	shelf := node.NewShelf(dir)
	all, refused, err := shelf.Look(t.Context())
	if err != nil || len(all) != 0 || refused[digest] == nil || !strings.Contains(refused[digest].Error(), "it was changed") {
		t.Fatalf("tampered: %v, %v, %v", all, refused, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, digest)); err != nil {
		t.Fatal(err)
	}
	build()
	all, refused, err = shelf.Look(t.Context())
	if err != nil || len(refused) != 0 || len(all) != 1 || all[0].Digest != digest {
		t.Errorf("put right: %v, %v, %v", all, refused, err)
	}
}
