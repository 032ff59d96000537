package hostile

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watchFiles has the kernel say who opens or reads anything in the container's /tmp, which is all that its code can write to.
// Nobody but its own processes may: whoever follows a tenant's link has already lost.
func watchFiles(at *attempt) error {
	pids, err := at.host.group.Procs()
	if err != nil || len(pids) == 0 {
		return fmt.Errorf("its processes are %v, %v", pids, err)
	}
	notify, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fanotify_init: %w", err)
	}
	tmp := fmt.Sprintf("/proc/%d/root/tmp", pids[0])
	if err := unix.FanotifyMark(notify, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN|unix.FAN_ACCESS|unix.FAN_ONDIR, unix.AT_FDCWD, tmp); err != nil {
		unix.Close(notify)
		return fmt.Errorf("fanotify_mark %s: %w", tmp, err)
	}
	stop := make(chan struct{})
	at.seen = make(chan []string, 1)
	at.stopWatch = sync.OnceFunc(func() { close(stop) })
	go func() {
		defer unix.Close(notify)
		found, events := []string(nil), 0
		for {
			n, who := at.strangers(notify)
			events += n
			found = append(found, who...)
			select {
			case <-stop:
				if events == 0 {
					found = append(found, "nothing was seen to be opened at all")
				}
				at.seen <- found
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return nil
}

// strangers reads the events there are and says which are of processes outside of the container.
func (at *attempt) strangers(notify int) (events int, found []string) {
	const head = 24 // struct fanotify_event_metadata
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(notify, buf)
		if err != nil || n < head {
			return events, found
		}
		for b := buf[:n]; len(b) >= head; b = b[binary.NativeEndian.Uint32(b):] {
			fd, pid := int32(binary.NativeEndian.Uint32(b[16:])), int32(binary.NativeEndian.Uint32(b[20:]))
			path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if fd >= 0 {
				unix.Close(int(fd))
			}
			events++
			group, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "cgroup"))
			if err == nil && !at.host.names(group) {
				name, _ := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "comm"))
				found = append(found, fmt.Sprintf("process %d (%s) opened %s", pid, name, path))
			}
		}
	}
}

// nobodyOpened wants the watch to have seen the container's own processes only.
func nobodyOpened(at *attempt) []string {
	time.Sleep(50 * time.Millisecond)
	at.stopWatch()
	return <-at.seen
}
