package node

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sum computes the digest of the image that stands in rootfs from its files, all of which it reads. Only an image as a build makes it has
// one: all files are root's, and none carries capabilities.
func Sum(ctx context.Context, rootfs string) (string, error) {
	t := tree{}
	err := filepath.WalkDir(rootfs, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		n, err := nodeOf(path)
		if err != nil {
			return err
		}
		if path == rootfs {
			if n.mode != fs.ModeDir|0o755 {
				return fmt.Errorf("%s has the mode %v, want %v", path, n.mode, fs.ModeDir|0o755)
			}
			return nil
		}
		name, err := filepath.Rel(rootfs, path)
		t[name] = n
		return err
	})
	return t.digest(), err
}

// nodeOf is a file as a build would have put it into a tree.
func nodeOf(path string) (node, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return node{}, err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || owner.Uid != 0 || owner.Gid != 0 {
		return node{}, fmt.Errorf("%s belongs to another user or group than root", path)
	}
	if n, err := unix.Lgetxattr(path, "security.capability", nil); n > 0 && err == nil {
		return node{}, fmt.Errorf("%s carries capabilities", path)
	}
	n := node{mode: info.Mode()}
	switch {
	case n.mode.Type() == fs.ModeSymlink:
		n.link, err = os.Readlink(path)
	case n.mode.IsRegular():
		n.sum, n.size, err = sumFile(path)
	}
	return n, err
}
