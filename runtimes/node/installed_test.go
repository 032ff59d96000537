package node_test

import (
	"os"
	"path/filepath"
	"reflect"
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
	all, err := node.Installed(o.Dir)
	if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], want) {
		t.Fatalf("%+v, %v, want %+v", all, err, want)
	}
	if err := node.Keep(o.Dir, want.Digest); err != nil {
		t.Fatal(err)
	}
	if err := node.Prune(t.Context(), o.Dir); err != nil {
		t.Fatal(err)
	}
	if all, err := node.Installed(o.Dir); err != nil || len(all) != 1 {
		t.Errorf("after Prune: %v, %v", all, err)
	}
	if err := os.WriteFile(filepath.Join(want.Rootfs, "paddock", "command"), []byte("?"), 0o644); err != nil {
		t.Fatal(err)
	}
	if all, err := node.Installed(o.Dir); err == nil || len(all) != 0 {
		t.Errorf("a torn image is listed: %v, %v", all, err)
	}
}
