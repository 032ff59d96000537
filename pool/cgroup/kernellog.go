package cgroup

import (
	"strings"

	"golang.org/x/sys/unix"
)

const (
	kernelLog   = "/dev/kmsg"
	refusal     = "fork rejected by pids controller in "
	recordBytes = 8 << 10 // the kernel's own bound
	mostRecords = 1 << 17 // of one look; the ring holds fewer
)

// ForkRefused asks the kernel's log whether a fork was ever refused in the group: the kernel writes the first one there.
// Unlike the counter it outlives the group. False also when the log cannot be read (without CAP_SYSLOG, say) or has been
// overwritten since. It takes some milliseconds.
func (g Group) ForkRefused() bool {
	fd, err := unix.Open(kernelLog, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	record := make([]byte, recordBytes)
	for range mostRecords {
		n, err := unix.Read(fd, record) // one record each
		switch {
		case err == unix.EPIPE || err == unix.EINTR: // overwritten meanwhile: the next one is read next
		case err != nil || n <= 0:
			return false // EAGAIN: that was the last
		case refusedIn(string(record[:n]), g.path):
			return true
		}
	}
	return false
}

// refusedIn says whether a record, "priority,number,time,flags;text\n" and more lines, tells of a refused fork in a group.
// Its path is that below the hierarchy's root, of which ours is the end.
func refusedIn(record, path string) bool {
	_, text, _ := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	_, where, ok := strings.Cut(text, refusal)
	return ok && strings.HasSuffix(where, path)
}
