package oci

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	lru "github.com/hashicorp/golang-lru/v2"

	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/pool/oci/keeper"
)

// What the keeper said of a container before it forgot it may arrive when nothing of the container is left.
func TestLateWordsOfTheKeeper(t *testing.T) {
	groups, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	forgotten, err := lru.New[pool.ContainerID, struct{}](8)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	e := &Engine{
		Options: Options{StateDir: dir, ControllerID: testenv.ControllerID(t)}, groups: groups, forgotten: forgotten,
		runtime: runtimeBinary{root: filepath.Join(dir, "r")}, log: slog.New(slog.DiscardHandler),
		known: map[pool.ContainerID]*container{}, statuses: map[pool.ContainerID]keeper.Status{},
	}
	for _, dir := range []string{e.bundles(), e.runtime.root} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.Repeat("a", 32)
	listed := func() int {
		t.Helper()
		all, err := e.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	e.see(keeper.Status{ID: id, PID: 1})
	if n := listed(); n != 1 {
		t.Fatalf("%d containers, want the one that the keeper knows", n)
	}
	e.forget(pool.ContainerID(id))
	e.see(keeper.Status{ID: id, Exited: true})
	if n := listed(); n != 0 {
		t.Errorf("%d containers after the only one was destroyed", n)
	}
}
