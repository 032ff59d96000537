package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// OOMWatch hears from the kernel while it happens that a group has run out of memory. Who removes groups as soon as they
// are empty, as Docker does, takes the counters away before others have read them; the kernel's log has only some of many
// ends. What was heard stays.
//
// On v1 the kernel rings once before it kills, and once more when the group is removed; when a group above runs out it
// rings, too. On v2 it rings after it has counted.
type OOMWatch struct {
	group Group
	bell  *os.File // v1: an eventfd; v2: inotify

	mu    sync.Mutex
	kills int64  // the counter, as it was read last
	rings uint64 // v1: those that no reading of the counter has explained
}

// How long a ring may be ahead of the counter, and how long the group's removal of its own ring.
const (
	oomCounted = 500 * time.Millisecond
	oomRemoved = 100 * time.Millisecond
	oomPause   = 5 * time.Millisecond
)

// WatchOOM begins to listen to a group that is there. Listen must be started, and Close must follow.
func (g Group) WatchOOM() (*OOMWatch, error) {
	open := g.bellV1
	if g.fs.v2 {
		open = g.bellV2
	}
	fd, err := open()
	if err != nil {
		return nil, fmt.Errorf("watch cgroup %s for want of memory: %w", g.path, err)
	}
	return &OOMWatch{group: g, bell: os.NewFile(uintptr(fd), "oom")}, nil
}

func (g Group) bellV1() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	counter, err := os.Open(filepath.Join(g.dir("memory"), "memory.oom_control"))
	if err == nil {
		err = errors.Join(write(g.dir("memory"), "cgroup.event_control", fmt.Sprintf("%d %d", fd, counter.Fd())), counter.Close())
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (g Group) bellV2() (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(g.dir(""), "memory.events"), unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Listen reads the counter whenever the kernel rings. It returns when the group is gone, or after Close.
func (w *OOMWatch) Listen() {
	raw, err := w.bell.SyscallConn()
	if err != nil {
		return // closed
	}
	for {
		heard := raw.Read(func(fd uintptr) bool { return w.hear(int(fd)) })
		if heard != nil || !w.explain() {
			return
		}
	}
}

// hear takes the rings there are and says whether there were any. They are counted in the same moment for Kills.
func (w *OOMWatch) hear(fd int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	var buf [4096]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return err != unix.EAGAIN && err != unix.EINTR
	}
	if !w.group.fs.v2 && n >= 8 {
		w.rings += binary.NativeEndian.Uint64(buf[:])
	}
	return true
}

// explain reads the counter until it has caught up with the rings, and says whether the group is there still.
func (w *OOMWatch) explain() bool {
	for began := time.Now(); ; time.Sleep(oomPause) {
		more, there := w.count()
		switch {
		case !there:
			return false
		case more || w.group.fs.v2 || time.Since(began) > oomCounted:
			w.mu.Lock()
			w.rings = 0 // if nothing was counted, it was a group above that rang
			w.mu.Unlock()
			return true
		}
	}
}

// count reads the counter. more says that it has grown.
func (w *OOMWatch) count() (more, there bool) {
	dir, file := w.group.dir("memory"), "memory.oom_control"
	if w.group.fs.v2 {
		file = "memory.events"
	}
	n, err := readKey(dir, file, "oom_kill")
	if err != nil {
		return false, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	more = n > w.kills
	w.kills = max(w.kills, n)
	return more, true
}

// Kills returns how many processes of the group the kernel has killed for want of memory, as far as it was heard: at least 1
// if any. It may wait a moment for the last ring of a group that is just gone.
func (w *OOMWatch) Kills() int64 {
	raw, err := w.bell.SyscallConn()
	for began := time.Now(); ; time.Sleep(oomPause) {
		_, there := w.count()
		if err == nil {
			err = raw.Control(func(fd uintptr) { w.hear(int(fd)) })
		}
		w.mu.Lock()
		kills, rings := w.kills, w.rings
		w.mu.Unlock()
		switch {
		case kills > 0 || there:
			return kills
		case rings > 1: // it rang before the removal
			return 1
		case rings == 0 || err != nil || time.Since(began) > oomRemoved:
			return 0
		}
	}
}

// Close ends Listen. What was heard stays known.
func (w *OOMWatch) Close() error { return w.bell.Close() }
