package cgroup

import (
	"strings"

	"golang.org/x/sys/unix"
)

const (
	kernelLog   = "/dev/kmsg"
	recordBytes = 8 << 10 // the kernel's own bound
	mostRecords = 1 << 17 // of one look; the ring holds fewer

	forkRefused = "fork rejected by pids controller in "
	oomKill     = "oom-kill:constraint="
	oomGroup    = ",task_memcg="
	oomTask     = ",task=" // what follows is the victim's own name
)

// Logged returns what the kernel's log says of the group's limits: that a fork was refused in it (the first is written
// there), that a process of it was killed for want of memory (a few a second are, over all groups). Unlike the counters the
// log outlives the group; PidsRefused and OOMKills are 1 then, for at least 1, and nothing else is set. Nothing is also
// what a log says that cannot be read (without CAP_SYSLOG, say) or has been overwritten since. It takes some milliseconds.
func (g Group) Logged() Usage {
	var u Usage
	fd, err := unix.Open(kernelLog, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return u
	}
	defer unix.Close(fd)
	record := make([]byte, recordBytes)
	for range mostRecords {
		n, err := unix.Read(fd, record) // one record each
		switch {
		case err == unix.EPIPE || err == unix.EINTR: // overwritten meanwhile: the next one is read next
		case err != nil || n <= 0:
			return u // EAGAIN: that was the last
		default:
			u.note(string(record[:n]), g.path)
		}
	}
	return u
}

// note takes in a record, "priority,number,time,flags;text\n" and more lines. Its paths are those below the hierarchy's root,
// of which ours is the end.
func (u *Usage) note(record, path string) {
	_, text, _ := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	if _, where, ok := strings.Cut(text, forkRefused); ok && strings.HasSuffix(where, path) {
		u.PidsRefused = 1
	}
	if !strings.HasPrefix(text, oomKill) {
		return
	}
	_, where, _ := strings.Cut(text, oomGroup)
	where, _, ok := strings.Cut(where, oomTask)
	if ok && strings.HasSuffix(where, path) {
		u.OOMKills = 1
	}
}
