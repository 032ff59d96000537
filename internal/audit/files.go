package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	filePrefix = "audit-"
	fileSuffix = ".jsonl"
	headName   = "head"
)

// fileName is the file whose first line is seq.
func fileName(seq int64) string { return fmt.Sprintf("%s%012d%s", filePrefix, seq, fileSuffix) }

// firstOf is the number of the first line that a file's name promises.
func firstOf(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, filePrefix)
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutSuffix(digits, fileSuffix); !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && n > 0 && fileName(n) == name
}

// files lists the log's files in dir, oldest first.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, ok := firstOf(e.Name()); ok && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		x, _ := firstOf(a)
		y, _ := firstOf(b)
		return int(min(1, max(-1, x-y)))
	})
	return names, nil
}

// file is what a Log writes to.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	// Reserve sees to it that n bytes from off can be written whatever else fills the disk.
	Reserve(off, n int64) error
	Close() error
}

type diskFile struct{ *os.File }

// Reserve allocates blocks beyond the end without moving it. A file system that cannot is not an error: then a full disk
// is met when the line is written.
func (f diskFile) Reserve(off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		}
		return err
	}
}

func (f diskFile) Sync() error { return unix.Fdatasync(int(f.Fd())) }

// openFile opens dir/name for a Log, which alone writes it; fresh: it must not be there yet.
func openFile(dir, name string, fresh bool) (file, error) {
	flags := os.O_RDWR | unix.O_NOFOLLOW
	if fresh {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(filepath.Join(dir, name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := syncDir(dir); err != nil {
			_ = f.Close()
			return nil, err
		}
	}
	return diskFile{f}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Mark names a line by its number and its hash: who has written one down elsewhere can tell a log that was rewritten or
// cut since.
type Mark struct {
	Seq  int64
	Hash string
}

func (m Mark) String() string { return fmt.Sprintf("%d:%s", m.Seq, m.Hash) }

// ParseMark reads what Mark.String wrote.
func ParseMark(s string) (Mark, error) {
	digits, hash, _ := strings.Cut(s, ":")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || !isHash(hash) {
		return Mark{}, fmt.Errorf("%.100q is no mark: want NUMBER:HASH, as `paddock audit verify` prints it", s)
	}
	return Mark{n, hash}, nil
}

// headLine is a mark as the head file holds it: always of the same size, so that it is written in place.
func headLine(m Mark) []byte { return fmt.Appendf(nil, "%020d:%s\n", m.Seq, m.Hash) }

// readHead returns what dir's head file says, a zero Mark if there is none.
func readHead(dir string) (Mark, error) {
	b, err := os.ReadFile(filepath.Join(dir, headName))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return Mark{}, nil
	}
	if err != nil {
		return Mark{}, err
	}
	m, err := ParseMark(strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		return Mark{}, fmt.Errorf("%s: %w", headName, err)
	}
	return m, nil
}
