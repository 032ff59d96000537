package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	smallRead = 8 << 10   // an idle connection's buffer: there are thousands of them
	bigRead   = 256 << 10 // a busy one's; more than the largest frame of an agent
)

var bigReads = sync.Pool{New: func() any { b := make([]byte, bigRead); return &b }}

// readLoop is the one reader. rest are bytes that came with the greeting.
func (c *Conn) readLoop(rest []byte) {
	r := reader{small: make([]byte, smallRead)}
	r.buf = r.small
	r.have = copy(r.buf, rest)
	defer r.shrink()
	for {
		if err := c.dispatchAll(&r); err != nil {
			c.fail(err)
			return
		}
		if !c.rest(r.pace.pause(time.Now)) {
			return
		}
		r.resize(c.unsettled.Load() > 0)
		n, err := c.nc.Read(r.buf[r.have:])
		r.have += n
		c.reads.Add(1)
		if err != nil && n == 0 {
			c.fail(lossOf(err))
			return
		}
	}
}

// rest waits so long, and says whether the connection is still there.
func (c *Conn) rest(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}

func lossOf(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("link: the agent closed the connection")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("link: the agent no longer reads") // set by writeFailed
	}
	return fmt.Errorf("link: %w", err)
}

// reader holds the read buffer: a small one while nothing runs, a big one from a pool when there is more to read.
type reader struct {
	small, buf []byte
	pooled     *[]byte
	have       int
	pace       pace
}

func (r *reader) resize(busy bool) {
	switch {
	case r.have == len(r.buf) && r.pooled == nil:
		r.pooled = bigReads.Get().(*[]byte)
		copy(*r.pooled, r.buf[:r.have])
		r.buf = *r.pooled
	case r.have == 0 && r.pooled != nil && !busy:
		r.shrink()
	}
}

func (r *reader) shrink() {
	if r.pooled != nil {
		bigReads.Put(r.pooled)
		r.pooled, r.buf = nil, r.small
	}
}

// dispatchAll handles every whole frame in the buffer and moves the rest to its front.
func (c *Conn) dispatchAll(r *reader) error {
	at := 0
	for {
		f, n, err := Decode(r.buf[at:r.have], Agent)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		at += n
		r.pace.charge(&f)
		if err := c.dispatch(&f); err != nil {
			return err
		}
	}
	r.have = copy(r.buf, r.buf[at:r.have])
	c.mu.Lock()
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
	return nil
}

func (c *Conn) dispatch(f *Frame) error {
	switch f.Type {
	case TypeResult:
		return c.onResult(f)
	case TypeData:
		return c.onData(f)
	case TypeLog:
		return c.onLog(f)
	case TypeSettled:
		return c.onSettled(f)
	case TypeHead:
		return c.onHead(f)
	case TypeStep:
		return c.onStep(f)
	case TypeWindow:
		return c.onWindow(f)
	case TypeLoaded, TypeLoadFailed:
		return c.onLoaded(f)
	case TypeNotLoaded:
		return c.onNotLoaded(f)
	case TypePong:
		return c.onPong(f)
	case TypeHello:
		return breach("a second HELLO")
	}
	return breach("%v, which nobody asked for", f.Type)
}
