package link

import (
	"errors"
	"io"
	"sync"
)

var pumpBuffers = sync.Pool{New: func() any { b := make([]byte, 2*MaxBody); return &b }}

// pump sends a streamed input as the agent gives credit for it. It ends with the input, with the call (gone is closed), or
// with the Read that it is in then. An input that fails cancels the call.
func (c *Conn) pump(r io.Reader, s StreamID, fed chan struct{}, gone <-chan struct{}) {
	buf := pumpBuffers.Get().(*[]byte)
	defer pumpBuffers.Put(buf)
	for {
		n, err := r.Read(*buf)
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			c.inputFailed(s, err)
			return
		}
		if n == 0 && !end {
			continue
		}
		if !c.feed(s, fed, (*buf)[:n], end) {
			return
		}
		select {
		case <-fed:
		case <-gone:
			c.unfeed(s, fed)
			return
		}
		if end {
			return
		}
	}
}

// feed offers p, which stays the writer's until fed says that it was taken.
func (c *Conn) feed(s StreamID, fed chan struct{}, p []byte, end bool) bool {
	c.mu.Lock()
	x := c.table[s]
	if x == nil || x.body.fed != fed {
		c.mu.Unlock()
		return false
	}
	x.body.data, x.body.end = p, end
	c.w.offerLocked(x)
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
	return true
}

// unfeed makes sure that the writer does not read the buffer any more.
func (c *Conn) unfeed(s StreamID, fed chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.table[s]; x != nil && x.body.fed == fed {
		c.w.dropBodyLocked(x)
	}
}

func (c *Conn) inputFailed(s StreamID, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.table[s]; x != nil && !x.returned {
		x.inputErr = err
		x.wakeUp()
	}
}
