package link

import (
	"encoding/binary"
	"runtime"
	"syscall"
	"time"
)

const (
	dataPerBatch  = 256 << 10 // of bodies in one write, so that CANCEL and INVOKE never wait for long
	callerBatches = 4         // how many writes a caller makes for others before a goroutine takes over
	keepOut       = 64 << 10  // larger write buffers are let go
)

// writer is the sending half. A batch is all frames that have gathered, then bodies in turn. flushing says that somebody, a
// caller or the drain goroutine, owns out and the socket; frames that come meanwhile go with the next batch. Guarded by
// Conn.mu, except out, which belongs to the owner of flushing.
type writer struct {
	pending  []byte
	marks    []mark      // INVOKEs in pending
	bodies   []*exchange // that have body bytes and credit to send, in turn
	flushing bool
	unsent   int // bytes of out that the socket has not taken yet

	out   []byte
	write func(fd uintptr) bool
	n     int
	err   error
}

// mark says where in pending an INVOKE lies.
type mark struct {
	x        *exchange
	from, to int
}

func appendPing(dst []byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(dst, TypePing, 0, 0, 8), id)
}

// startLocked says whether the caller must call Conn.flush after unlocking.
func (w *writer) startLocked() bool {
	if w.flushing || len(w.pending) == 0 && len(w.bodies) == 0 {
		return false
	}
	w.flushing = true
	return true
}

// queuedLocked is how many bytes of frames wait for the socket.
func (w *writer) queuedLocked() int { return len(w.pending) + w.unsent }

// takeLocked moves what has gathered into out, and says whether there was anything; if not, nobody is flushing any more.
func (w *writer) takeLocked() bool {
	w.out, w.pending = w.pending, w.out[:0]
	for i := range w.marks {
		w.marks[i].x.sent = true
		w.marks[i].x = nil
	}
	w.marks = w.marks[:0]
	for sent := 0; sent < dataPerBatch && len(w.bodies) > 0; {
		x := w.bodies[0]
		w.bodies = w.bodies[1:]
		sent += w.takeBody(x)
	}
	w.unsent = len(w.out)
	w.flushing = len(w.out) > 0
	return w.flushing
}

// takeBody appends one DATA frame of x's body to out and puts x back in line if it can go on.
func (w *writer) takeBody(x *exchange) int {
	b := &x.body
	b.queued = false
	n := min(len(b.data), MaxBody, int(min(b.credit, MaxBody)))
	flags := uint8(0)
	if b.end && n == len(b.data) {
		flags = FlagEnd
	}
	w.out = AppendPlain(w.out, TypeData, flags, x.stream, b.data[:n])
	b.data = b.data[n:]
	b.credit -= int64(n)
	if len(b.data) == 0 {
		b.data = nil
		if b.fed != nil {
			select {
			case b.fed <- struct{}{}:
			default:
			}
		}
		if b.end {
			b.end, b.fed = false, nil
		}
		return n
	}
	w.offerLocked(x)
	return n
}

// offerLocked puts x in line if it has something to send and credit for it.
func (w *writer) offerLocked(x *exchange) {
	b := &x.body
	if b.queued || len(b.data) == 0 && !b.end || len(b.data) > 0 && b.credit <= 0 {
		return
	}
	b.queued = true
	w.bodies = append(w.bodies, x)
}

// dropBodyLocked takes back what of x's body was not sent. It says whether the agent still waits for some.
func (w *writer) dropBodyLocked(x *exchange) (incomplete bool) {
	incomplete = len(x.body.data) > 0 || x.body.end || x.body.fed != nil
	if x.body.queued {
		for i, y := range w.bodies {
			if y == x {
				w.bodies = append(w.bodies[:i:i], w.bodies[i+1:]...)
				break
			}
		}
	}
	x.body = outBody{}
	return incomplete
}

// withdrawLocked takes x's INVOKE out of pending, which it must not have left yet.
func (w *writer) withdrawLocked(x *exchange) {
	for i, m := range w.marks {
		if m.x != x {
			continue
		}
		w.pending = append(w.pending[:m.from], w.pending[m.to:]...)
		w.marks = append(w.marks[:i], w.marks[i+1:]...)
		for j := i; j < len(w.marks); j++ {
			w.marks[j].from -= m.to - m.from
			w.marks[j].to -= m.to - m.from
		}
		return
	}
}

func (w *writer) clear() { w.pending, w.marks, w.bodies = nil, nil, nil }

// flush writes until nothing is left or the socket is full; then a goroutine goes on. The caller has set flushing. It never
// waits for the peer.
func (c *Conn) flush() {
	if c.unsettled.Load() > 1 {
		runtime.Gosched() // callers that were woken together add their frames first: one write instead of many
	}
	for range callerBatches {
		if !c.take() {
			return
		}
		if !c.writeNow() {
			break
		}
	}
	c.handOver()
}

func (c *Conn) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.w.flushing = false
		return false
	}
	return c.w.takeLocked()
}

// writeNow makes one write(2) and says whether it took everything. What is left stays at the front of out.
func (c *Conn) writeNow() bool {
	w := &c.w
	if err := c.raw.Write(w.write); err != nil {
		w.n, w.err = 0, err
	}
	if w.err != nil {
		return false
	}
	left := copy(w.out, w.out[w.n:])
	w.out = w.out[:left]
	if left == 0 && cap(w.out) > keepOut {
		w.out = nil
	}
	return left == 0
}

// writeOnce is called with the descriptor; it always answers true, so that a full socket does not park the caller.
func (c *Conn) writeOnce(fd uintptr) bool {
	w := &c.w
	for {
		w.n, w.err = syscall.Write(int(fd), w.out)
		switch w.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			w.n, w.err = 0, nil
		}
		w.n = max(w.n, 0)
		return true
	}
}

// handOver lets a goroutine drain what is left, waiting for the peer where it must.
func (c *Conn) handOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.w.flushing = false
		return
	}
	c.w.unsent = len(c.w.out)
	c.wg.Go(c.drain) // under the mutex with err unset: Close has not begun to wait
}

// drain owns flushing until everything is written or the connection is over.
func (c *Conn) drain() {
	for {
		if c.w.err == nil && len(c.w.out) > 0 {
			_, c.w.err = c.nc.Write(c.w.out)
			c.w.out = c.w.out[:0]
		}
		if c.w.err != nil {
			c.writeFailed()
			return
		}
		if !c.take() {
			return
		}
	}
}

// writeFailed leaves the end of the connection to the reader: what the agent sent before it died still counts.
func (c *Conn) writeFailed() {
	const linger = 250 * time.Millisecond
	c.nc.SetReadDeadline(time.Now().Add(linger))
}
