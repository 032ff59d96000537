package docker

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a handle on one process that stays right when its pid is used again.
type process struct{ fd *os.File }

// openProcess opens the process of a pid that was true a moment ago. check looks at /proc/<pid> after that and says whether
// it is the process meant: if it is, the handle is the right one.
func openProcess(pid int, check func() error) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &process{fd: os.NewFile(uintptr(fd), "pidfd")}
	if err := check(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// wait returns nil when the process has ended, and an error when close was called first.
func (p *process) wait() error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		if err != nil && err != unix.EINTR {
			pollErr = err
		}
		return n > 0 || pollErr != nil
	})
	return errors.Join(err, pollErr)
}

// ended says whether wait would return at once.
func (p *process) ended() bool {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return true // closed, after its end
	}
	over := true
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		over = err == nil && n > 0
	})
	return err != nil || over
}

// stop makes wait return.
func (p *process) stop() { _ = p.fd.SetReadDeadline(time.Unix(1, 0)) }

func (p *process) close() { _ = p.fd.Close() }

// signal sends sig; a process that has ended is no error.
func (p *process) signal(sig unix.Signal) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(sent, unix.ESRCH) {
		sent = nil
	}
	return errors.Join(err, sent)
}

// cgroupOf returns the path of the control group that a process is in: of the memory hierarchy on v1.
func cgroupOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	unified := ""
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			if c == "memory" {
				return parts[2], nil
			}
		}
		if parts[0] == "0" {
			unified = parts[2]
		}
	}
	if unified == "" {
		return "", fmt.Errorf("process %d is in no control group", pid)
	}
	return unified, nil
}
