package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// layer is a directory of finished files in the cache, root's, world-readable and never changed again, with what is in it. Images
// hold hard links to its files.
type layer struct {
	dir   string
	Files []layerFile
}

type layerFile struct {
	Path string
	Dir  bool        `json:",omitempty"`
	Mode fs.FileMode `json:",omitempty"`
	Size int64       `json:",omitempty"`
	Sum  string      `json:",omitempty"`
}

// cached returns the layer called name, making it first with fill, which gets an empty directory to put files in. One builder
// fills, others wait.
func cached(ctx context.Context, o Options, name string, fill func(dir string) error) (layer, error) {
	final := filepath.Join(o.CacheDir, name)
	if l, err := openLayer(final); err == nil {
		return l, nil
	}
	if err := makeDir(o.CacheDir, 0o755); err != nil {
		return layer{}, err
	}
	unlock, err := lockFile(ctx, filepath.Join(o.CacheDir, ".lock"))
	if err != nil {
		return layer{}, err
	}
	defer unlock()
	if l, err := openLayer(final); err == nil {
		return l, nil
	}
	if err := sweepStaging(o.CacheDir); err != nil {
		return layer{}, err
	}
	staging, err := os.MkdirTemp(o.CacheDir, stagingPrefix)
	if err != nil {
		return layer{}, err
	}
	defer os.RemoveAll(staging)
	if err := fillLayer(staging, fill); err != nil {
		return layer{}, err
	}
	if err := os.RemoveAll(final); err != nil { // damaged, or openLayer would have found it
		return layer{}, err
	}
	if err := os.Rename(staging, final); err != nil {
		return layer{}, err
	}
	return openLayer(final)
}

func fillLayer(staging string, fill func(dir string) error) error {
	files := filepath.Join(staging, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		return err
	}
	if err := fill(files); err != nil {
		return err
	}
	list, err := seal(files)
	if err != nil {
		return err
	}
	text, err := json.Marshal(layer{Files: list})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(staging, "list.json"), text, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return err
	}
	return syncFS(staging)
}

// seal gives every file below dir its final owner, mode and time and lists it. Links and special files are no part of a layer.
func seal(dir string) ([]layerFile, error) {
	var list []layerFile
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			list = append(list, layerFile{Path: rel, Dir: true})
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither file nor directory", rel)
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		sum, size, err := sumFile(path)
		if err != nil {
			return err
		}
		list = append(list, layerFile{Path: rel, Mode: mode, Size: size, Sum: sum})
		return finish(path, mode)
	})
	return list, err
}

// openLayer reads a layer's list and looks whether its files are still there in full.
func openLayer(path string) (layer, error) {
	text, err := os.ReadFile(filepath.Join(path, "list.json"))
	if err != nil {
		return layer{}, err
	}
	l := layer{dir: filepath.Join(path, "files")}
	if err := json.Unmarshal(text, &l); err != nil {
		return layer{}, err
	}
	for _, f := range l.Files {
		if !inside(f.Path) {
			return layer{}, fmt.Errorf("%q leaves the layer", f.Path)
		}
		info, err := os.Lstat(filepath.Join(l.dir, f.Path))
		if err != nil {
			return layer{}, err
		}
		if !f.Dir && (info.Size() != f.Size || info.Mode() != f.Mode) {
			return layer{}, fmt.Errorf("%s differs from what was stored", f.Path)
		}
	}
	return l, nil
}

// needSpace refuses to begin what would fill the disk of dir.
func needSpace(dir string, bytes int64, what string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := int64(st.Bavail) * st.Bsize; free < bytes {
		return fmt.Errorf("the disk of %s has %d MiB left, %d are needed for %s: %w", dir, free>>20, bytes>>20, what, unix.ENOSPC)
	}
	return nil
}

// lockPoll is how often a builder that waits for another looks again; flock itself cannot be cancelled.
const lockPoll = 50 * time.Millisecond

// lockFile takes an exclusive flock on path. The kernel gives it back if the process dies.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for another builder that holds %s: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// makeDir makes a directory and its parents; the last one gets exactly mode if it is new.
func makeDir(path string, mode fs.FileMode) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// syncFS makes what was written durable before a rename makes it visible.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
