package keeper

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// OutputBytes is how much raw output of a container is kept.
const OutputBytes = 64 << 10

// readPause follows each full read, so that a container that floods its output costs the host no more than a few MiB/s
// of copying; the container waits.
const readPause = 20 * time.Millisecond

// output drains a container's FIFO into a bounded ring. The FIFO is opened for reading and writing on both sides: neither
// the reader's death nor its return is an event for the writer.
type output struct {
	file *os.File // non-blocking
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	ring ring
}

// openOutput makes the FIFO, unless it is there, and starts to drain it. Close ends that.
func openOutput(path string) (*output, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make output FIFO: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open output FIFO: %w", err)
	}
	o := &output{file: f, stop: make(chan struct{}), done: make(chan struct{})}
	go o.run()
	return o, nil
}

func (o *output) run() {
	defer close(o.done)
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4<<10)
	for {
		full := false
		// reading and keeping are one step under the lock, so that drain never sees a gap
		err := raw.Read(func(fd uintptr) bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			n, err := unix.Read(int(fd), buf)
			if n > 0 {
				o.ring.add(buf[:n])
			}
			full = n == len(buf)
			return err != unix.EAGAIN
		})
		if err != nil { // closed
			return
		}
		if full && len(buf) < OutputBytes {
			buf = make([]byte, OutputBytes)
		} else if full && !o.pause() {
			return
		}
	}
}

func (o *output) pause() bool {
	t := time.NewTimer(readPause)
	defer t.Stop()
	select {
	case <-o.stop:
		return false
	case <-t.C:
		return true
	}
}

// drain reads what is in the FIFO now; called when its writers are dead, so that their last words are not lost.
func (o *output) drain() {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4<<10)
	_ = raw.Control(func(fd uintptr) { // an error: closed, nothing to read
		o.mu.Lock()
		defer o.mu.Unlock()
		for total := 0; total <= 1<<20; { // a FIFO holds 64 KiB to 1 MiB; a writer that lives must not keep us here
			n, err := unix.Read(int(fd), buf)
			if n <= 0 || err != nil {
				return
			}
			o.ring.add(buf[:n])
			total += n
		}
	})
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ring.bytes()
}

func (o *output) close() {
	close(o.stop)
	o.file.Close()
	<-o.done
}

// ring keeps the last OutputBytes that were added. The zero value is ready.
type ring struct{ buf []byte }

func (r *ring) add(p []byte) {
	if len(p) >= OutputBytes {
		p = p[len(p)-OutputBytes:]
		r.buf = r.buf[:0]
	}
	if over := len(r.buf) + len(p) - 2*OutputBytes; over > 0 {
		// move once per OutputBytes, not once per write
		keep := r.buf[len(r.buf)-(OutputBytes-len(p)):]
		r.buf = append(r.buf[:0], keep...)
	}
	r.buf = append(r.buf, p...)
}

func (r *ring) bytes() []byte {
	b := r.buf
	if len(b) > OutputBytes {
		b = b[len(b)-OutputBytes:]
	}
	return append([]byte(nil), b...)
}
