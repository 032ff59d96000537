package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// loadOrCreate returns the bytes of a file that only its owner can read; if there is none, it writes what create returns.
// Of two processes that do so at once one writes and both return the same.
func loadOrCreate(path string, create func() ([]byte, error)) ([]byte, error) {
	b, err := readSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	fresh, err := create()
	if err != nil {
		return nil, err
	}
	if err := writeSecret(path, fresh, false); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readSecret(path)
}

// readSecret refuses a file that others may read: what it holds has to be taken as known.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others can read it; chmod 600, and replace what it holds",
			path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}

// writeSecret puts b at path, whole or not at all, synced to disk, mode 0600. Without replace an existing file is
// fs.ErrExist.
func writeSecret(path string, b []byte, replace bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	place := os.Link
	if replace {
		place = os.Rename
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
