// Package machine is what a Paddock service needs of its machine before it starts: a data directory of its own, locked; a
// run directory on a tmpfs; the runtime program; a record by which clients on the same machine find it. It makes no
// container and serves nothing.
package machine

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DataDir is a data directory that this process holds. The lock falls when the process ends, however it ends; the keeper
// watches the same file to learn that.
type DataDir struct {
	Path string
	ID   string // the controller's id, 8 hex digits, made at first use and kept
	lock *os.File
}

// ErrInUse says that another process holds the data directory.
var ErrInUse = errors.New("in use by another paddock")

// Restoring is there while a backup is being put into the directory: what is beside it is half of something.
func (d *DataDir) Restoring() string { return filepath.Join(d.Path, ".restoring") }

// IDFile holds the id.
func (d *DataDir) IDFile() string { return filepath.Join(d.Path, "id") }

// ReadID reads the id of a data directory that another process may hold.
func ReadID(path string) (string, error) {
	b, err := os.ReadFile((&DataDir{Path: path}).IDFile())
	if id := strings.TrimSpace(string(b)); err == nil && !idForm.MatchString(id) {
		return "", fmt.Errorf("data directory %s: its id %.20q is none", path, id)
	}
	return strings.TrimSpace(string(b)), err
}

// Images is where runtime images live, readable by all: sandboxes run from it under their own user ids.
func (d *DataDir) Images() string { return filepath.Join(d.Path, "images") }

// Private is the root-only part: store, code, keys, caches.
func (d *DataDir) Private() string { return filepath.Join(d.Path, "private") }

// LockFile is the file whose lock says that the service is alive.
func (d *DataDir) LockFile() string { return filepath.Join(d.Path, "lock") }

// Audit holds the record of who did what; only root may read it.
func (d *DataDir) Audit() string { return filepath.Join(d.Path, "audit") }

// DrainFile stands for as long as an operator has the controller drained.
func (d *DataDir) DrainFile() string { return filepath.Join(d.Path, "draining") }

// OperatorKey is the file with the operator's key.
func (d *DataDir) OperatorKey() string { return filepath.Join(d.Path, "operator.key") }

var idForm = regexp.MustCompile(`^[0-9a-f]{8}$`)

// OpenDataDir makes the directory if it does not exist, locks it and reads its id. Held by another process it returns an
// error that names that process.
func OpenDataDir(path string) (*DataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d := &DataDir{Path: path}
	if err := d.makeDirs(); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, Explain(err))
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if d.ID, err = d.readID(); err != nil {
		d.Close()
		return nil, fmt.Errorf("data directory %s: %w", path, Explain(err))
	}
	return d, nil
}

// makeDirs makes what sandboxes must be able to walk through 0711 and the rest root-only. Parents of the directory are not
// touched.
func (d *DataDir) makeDirs() error {
	if err := os.MkdirAll(d.Path, 0o755); err != nil {
		return err
	}
	for dir, mode := range map[string]os.FileMode{d.Path: 0o711, d.Images(): 0o711, d.Private(): 0o700} {
		if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	return passable(d.Path)
}

// passable says whether every directory above path lets everybody walk through: sandboxes run from below it, each under a
// user id of its own.
func passable(path string) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if st.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("sandboxes must be able to pass through %s: chmod o+x it, or name a data directory elsewhere", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (d *DataDir) takeLock() error {
	f, err := os.OpenFile(d.LockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock of the data directory: %w", Explain(err))
	}
	if err := flockPatiently(f); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("data directory %s is %w (pid %s): stop it, or give another --data-dir",
				d.Path, ErrInUse, readPID(f))
		}
		return fmt.Errorf("lock %s: %w", d.LockFile(), err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("lock %s: %w", d.LockFile(), Explain(err))
	}
	d.lock = f
	return nil
}

// flockPatiently takes the lock, trying for a moment: clients and keepers touch it for an instant to see whether it is held.
func flockPatiently(f *os.File) error {
	for try := 0; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || try == 10 {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func readPID(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return pid
	}
	return "unknown"
}

// readID returns the id, made on first use. A file that was cut short by a full disk is made again: nothing can have run
// under an id that never was whole.
func (d *DataDir) readID() (string, error) {
	file := d.IDFile()
	b, err := os.ReadFile(file)
	if id := strings.TrimSpace(string(b)); err == nil && idForm.MatchString(id) {
		return id, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var raw [4]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", err
	}
	id := hex.EncodeToString(raw[:])
	return id, WriteFile(file, []byte(id+"\n"), 0o600)
}

// Close gives the directory up. Idempotent.
func (d *DataDir) Close() error {
	if d.lock == nil {
		return nil
	}
	err := d.lock.Close()
	d.lock = nil
	return err
}

// WriteFile writes a file whole or not at all: under another name first, then renamed.
func WriteFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Explain adds the remedy to the errors that every new machine meets.
func Explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: the disk is full; make room, or name a directory on another one", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: run as root, or name a directory that this user may write", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: name a directory on a disk that can be written", err)
	}
	return err
}
