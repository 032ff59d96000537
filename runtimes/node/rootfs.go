// Package node makes the node runtime's image: one read-only, content-addressed root file system with a pinned Node,
// the glibc that it needs, CA certificates, time zones, the agent and the curated modules. Node and modules come from
// the npm registry by way of the npm client and are checked against hashes pinned in this source. It makes no container,
// talks to no image registry and never changes an image once it is published.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"paddock/runtimes"
)

// Options say where images and downloads live.
type Options struct {
	// Dir holds the images, Dir/<digest>/rootfs. It is made if missing; its ancestors must be passable (o+x) for a container's
	// mapped root.
	Dir string
	// CacheDir keeps downloads (Node, modules) between builds, best on Dir's file system: files are then linked, not
	// copied. It may be shared by several builders; deleting it costs the next build a download.
	CacheDir string
	// Progress is told what is going on, one short line at a time, by the building goroutine. May be nil.
	Progress func(string)
	// CAFile is a PEM file of private certificate authorities. If set, Node trusts the host's bundle and these instead of the
	// bundle compiled into it.
	CAFile string
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// Build returns the image of the current agent, making what is missing. It needs root and, unless everything is cached, npm and
// the network. Several may run at once, in any processes: one builds, the others wait for it. An unchanged image takes
// milliseconds, a changed agent about a second.
func Build(ctx context.Context, o Options) (runtimes.Image, error) {
	image, err := build(ctx, o)
	if err != nil {
		return runtimes.Image{}, fmt.Errorf("node runtime image: %w", err)
	}
	return image, nil
}

func build(ctx context.Context, o Options) (runtimes.Image, error) {
	if os.Geteuid() != 0 {
		return runtimes.Image{}, errors.New("its files belong to root: run as root")
	}
	if o.Dir == "" || o.CacheDir == "" {
		return runtimes.Image{}, errors.New("Options.Dir and Options.CacheDir must be set")
	}
	t, err := compose(ctx, o)
	if err != nil {
		return runtimes.Image{}, err
	}
	digest := t.digest()
	rootfs := filepath.Join(o.Dir, digest, "rootfs")
	if t.check(rootfs) != nil {
		o.progress("writing image %s", digest[:12])
		if err := publish(ctx, o.Dir, digest, t); err != nil {
			return runtimes.Image{}, err
		}
	}
	o.progress("image %s is ready", digest[:12])
	return describe(digest, rootfs, o.CAFile != ""), nil
}

// compose gathers every file of the image, downloading into the cache what is not there, and writes nothing else.
func compose(ctx context.Context, o Options) (tree, error) {
	dist, ok := dists[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no Node is pinned for %s: use an amd64 or arm64 machine", runtime.GOARCH)
	}
	t := tree{}
	t.addSkeleton()
	t.addAgent()
	t.addCommand(o.CAFile != "")
	nodeLayer, err := nodeDist(ctx, o, dist)
	if err != nil {
		return nil, err
	}
	t.merge("paddock/bin", nodeLayer)
	modules, err := moduleLayer(ctx, o)
	if err != nil {
		return nil, err
	}
	t.merge("paddock/node_modules", modules)
	if err := t.addLibraries(ctx, filepath.Join(nodeLayer.dir, "node")); err != nil {
		return nil, err
	}
	if err := t.addCertificates(o.CAFile); err != nil {
		return nil, err
	}
	return t, t.addZones("/usr/share/zoneinfo")
}

// publish materialises t beside its place and renames it there, so that an image is whole or absent. A damaged one of the same
// digest makes way; containers that still use it keep its open files.
func publish(ctx context.Context, dir, digest string, t tree) error {
	if err := makeDir(dir, 0o711); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	final := filepath.Join(dir, digest)
	if t.check(filepath.Join(final, "rootfs")) == nil {
		return nil // another builder was first
	}
	if err := sweepStaging(dir); err != nil {
		return err
	}
	staging, err := os.MkdirTemp(dir, stagingPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(staging)
	if err := os.Chmod(staging, 0o711); err != nil {
		return err
	}
	if err := t.write(ctx, filepath.Join(staging, "rootfs")); err != nil {
		return err
	}
	if _, err := os.Lstat(final); err == nil {
		if err := os.Rename(final, filepath.Join(staging, "damaged")); err != nil {
			return err
		}
	}
	if err := os.Rename(staging, final); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(final, "damaged")); err != nil {
		return err
	}
	return syncDir(dir)
}

// stagingPrefix starts the name of an image that is being written. Under the lock, any there is was left by a dead builder.
const stagingPrefix = ".new-"

func sweepStaging(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, stagingPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// Prune removes the images in dir whose digests are not in keep and that nobody keeps. The caller knows which are in use.
func Prune(ctx context.Context, dir string, keep ...string) error {
	unlock, err := lockFile(ctx, filepath.Join(dir, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	kept := make(map[string]bool, len(keep))
	for _, digest := range keep {
		kept[digest] = true
	}
	for _, e := range entries {
		if !e.IsDir() || len(e.Name()) != digestLength || kept[e.Name()] {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), keptMark)); err == nil {
			continue
		}
		// Renamed first: a removal that is cut short leaves no image that looks whole.
		doomed := filepath.Join(dir, stagingPrefix+e.Name())
		if err := os.Rename(filepath.Join(dir, e.Name()), doomed); err != nil {
			return err
		}
		if err := os.RemoveAll(doomed); err != nil {
			return err
		}
	}
	return nil
}

// epoch is the time stamp of every file: equal trees are equal to the second.
var epoch = time.Unix(1_700_000_000, 0)

func describe(digest, rootfs string, privateCA bool) runtimes.Image {
	argv, env := command(privateCA)
	return runtimes.Image{
		Runtime: "node", Version: "v" + nodeVersion, Digest: digest, Rootfs: rootfs,
		Argv: argv, Env: env, HeapPercent: heapPercent,
	}
}

func clip(text []byte, n int) string {
	s := strings.TrimSpace(string(text))
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
