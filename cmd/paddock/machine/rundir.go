package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DefaultRunBase is where services keep what lives only while the machine is up.
const DefaultRunBase = "/run/paddock"

// runDirBytes bounds the tmpfs of a run directory: latches, sockets, bundles and the raw output of sandboxes.
const runDirBytes = 256 << 20

// RunDir is one controller's directory for sockets, latches and bundles, always on a tmpfs so that a full disk stops
// nobody from being bound. It outlives the process if containers are left for the next start.
type RunDir struct {
	Path string
	// Found says that a former process left it: there may be containers to adopt.
	Found   bool
	mounted bool // a tmpfs of its own is mounted there
}

// OpenRunDir makes base/id with a tmpfs below it, or finds the one that a former process left.
func OpenRunDir(base, id string) (*RunDir, error) {
	d := &RunDir{Path: filepath.Join(base, id)}
	if err := os.MkdirAll(base, 0o711); err != nil {
		return nil, fmt.Errorf("run directory: %w", Explain(err))
	}
	if err := os.Chmod(base, 0o711); err != nil {
		return nil, fmt.Errorf("run directory: %w", Explain(err))
	}
	if err := os.Mkdir(d.Path, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("run directory: %w", Explain(err))
	}
	if err := d.ensureTmpfs(); err != nil {
		return nil, err
	}
	for dir, mode := range map[string]os.FileMode{d.Path: 0o711, d.Containers(): 0o711, d.Secret(): 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("run directory: %w", Explain(err))
		}
		if err := os.Chmod(dir, mode); err != nil {
			return nil, fmt.Errorf("run directory: %w", Explain(err))
		}
	}
	return d, nil
}

// Containers is what sandboxes see a part of.
func (d *RunDir) Containers() string { return filepath.Join(d.Path, "c") }

// Secret is root-only: latches, the keeper's socket, bundles.
func (d *RunDir) Secret() string { return filepath.Join(d.Path, "s") }

// StoreSocket is where the embedded store serves root on this machine, of the run directory at path.
func StoreSocket(path string) string { return filepath.Join((&RunDir{Path: path}).Secret(), "etcd") }

// ensureTmpfs mounts a tmpfs of our own unless one is there. Its own even where /run is a tmpfs: its size is bounded, and
// it can be removed whole.
func (d *RunDir) ensureTmpfs() error {
	mounted, err := isMountPoint(d.Path)
	if err != nil {
		return fmt.Errorf("run directory %s: %w", d.Path, err)
	}
	if mounted {
		d.mounted, d.Found = true, true
		return nil
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	options := fmt.Sprintf("mode=0711,size=%d", runDirBytes)
	if err := unix.Mount("paddock", d.Path, "tmpfs", flags, options); err != nil {
		return fmt.Errorf("run directory %s: mount tmpfs: %w", d.Path, Explain(err))
	}
	d.mounted = true
	return nil
}

// isMountPoint says whether a file system begins at path.
func isMountPoint(path string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(path, &here); err != nil {
		return false, err
	}
	if err := unix.Lstat(filepath.Dir(path), &above); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// RemoveRunDir removes the run directory of a process that will not come back. What is none is left alone.
func RemoveRunDir(path string) error {
	mounted, err := isMountPoint(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !mounted {
		return nil
	}
	if err != nil {
		return fmt.Errorf("run directory %s: %w", path, err)
	}
	return (&RunDir{Path: path, mounted: true}).Remove()
}

// Remove unmounts and removes all of it. For a stop that leaves no containers.
func (d *RunDir) Remove() error {
	if d.mounted {
		if err := unix.Unmount(d.Path, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			// Something still holds a file there: let it go with the last holder rather than stay for ever.
			if err := unix.Unmount(d.Path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
				return fmt.Errorf("run directory %s: unmount: %w", d.Path, err)
			}
		}
		d.mounted = false
	}
	if err := os.Remove(d.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("run directory: %w", err)
	}
	_ = os.Remove(filepath.Dir(d.Path)) // only when it was the last one
	return nil
}
