package link

import (
	"net"
	"time"
)

// Queued is how many bytes of frames wait for the socket.
func (c *Conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.w.queuedLocked()
}

// Later makes the connection believe that so much more time has passed.
func (c *Conn) Later(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = func() time.Time { return time.Now().Add(d) }
}

// Exhaust leaves a connection hardly any stream numbers.
func (c *Conn) Exhaust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = lastStream - 2
}

// NewConn makes a connection whose greeting is over.
func NewConn(nc *net.UnixConn, o Options) (*Conn, error) {
	return newConn(nc, o.withDefaults(), Hello{Protocol: Protocol}, nil)
}
