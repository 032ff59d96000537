package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"paddock/runtimes"
)

// Shelf is a directory of images as they come and go while a service serves: built there, or copied from another machine's. Nothing
// but an image's files says what it is, so each is read once before it is given out. Safe for concurrent use.
type Shelf struct {
	dir string

	mu   sync.Mutex
	read map[string]verdict // by digest
}

// verdict is what was found when an image's files were read.
type verdict struct {
	image runtimes.Image
	err   error
	of    place
	at    time.Time
}

// place is which directory an image was read in: another one under its name is another copy.
type place struct {
	dev, ino uint64
	changed  syscall.Timespec
}

// readAgain is after how long an image that was refused is read again: it may have been in the middle of being copied.
const readAgain = 30 * time.Second

// NewShelf returns the shelf of dir. What is in it is read by the first Look.
func NewShelf(dir string) *Shelf { return &Shelf{dir: dir, read: map[string]verdict{}} }

// Look returns the images whose files make their digests, and why the others cannot be used, by digest. Reading an image that is new
// takes a good part of a second; otherwise Look is cheap.
func (s *Shelf) Look(ctx context.Context) (usable []runtimes.Image, refused map[string]error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	refused = map[string]error{}
	there := map[string]bool{}
	for _, e := range entries {
		digest := e.Name()
		if !e.IsDir() || len(digest) != digestLength {
			continue
		}
		there[digest] = true
		v := s.judge(ctx, digest)
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if v.err != nil {
			refused[digest] = v.err
			continue
		}
		usable = append(usable, v.image)
	}
	for digest := range s.read {
		if !there[digest] {
			delete(s.read, digest)
		}
	}
	return usable, refused, nil
}

// judge reads an image, unless it has been.
func (s *Shelf) judge(ctx context.Context, digest string) verdict {
	of, err := placeOf(filepath.Join(s.dir, digest, "rootfs"))
	if v, ok := s.read[digest]; ok && err == nil && v.of == of && (v.err == nil || time.Since(v.at) < readAgain) {
		return v
	}
	v := verdict{of: of, err: err, at: time.Now()}
	if err == nil {
		v.image, v.err = verify(ctx, s.dir, digest)
	}
	if ctx.Err() == nil {
		s.read[digest] = v
	}
	return v
}

// verify reads an image whose files must make its digest.
func verify(ctx context.Context, dir, digest string) (runtimes.Image, error) {
	sum, err := Sum(ctx, filepath.Join(dir, digest, "rootfs"))
	if err != nil {
		return runtimes.Image{}, err
	}
	if sum != digest {
		return runtimes.Image{}, fmt.Errorf("its files make %.12s: it is not whole yet, or it was changed; copy it again, as root, with owners and modes", sum)
	}
	return read(dir, digest)
}

func placeOf(path string) (place, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return place{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return place{}, errors.New("it has no directory rootfs")
	}
	return place{dev: uint64(st.Dev), ino: st.Ino, changed: st.Ctim}, nil
}
