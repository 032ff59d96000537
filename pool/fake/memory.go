package fake

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"paddock/pool"
)

// links are the listeners in memory, by directory.
type links struct {
	mu sync.Mutex
	at map[string]*listener
}

// Listen is a pool.Config.Listen for an engine with Options.InMemory.
func (e *Engine) Listen(dir string, _, _ uint32) (pool.Listener, error) {
	l := &listener{from: &e.links, dir: filepath.Clean(dir), agents: make(chan *Container), closed: make(chan struct{})}
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	e.links.at[l.dir] = l
	return l, nil
}

type listener struct {
	from   *links
	dir    string
	agents chan *Container
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.from.mu.Lock()
		if l.from.at[l.dir] == l {
			delete(l.from.at, l.dir)
		}
		l.from.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *listener) Accept(ctx context.Context, o pool.LinkOptions) (pool.Conn, error) {
	defer l.Close()
	select {
	case c := <-l.agents:
		n := &conn{c: c, o: o, done: make(chan struct{}), tainted: make(chan struct{}), seized: make(chan struct{})}
		n.ctx, n.cancel = context.WithCancel(c.ctx)
		if !c.joined(n) {
			return nil, errEOF
		}
		return n, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, errClosed
	}
}

func (c *Container) joined(n *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	c.inner = n
	return true
}

// serveInMemory connects to whoever listens at the container's directory, again and again.
func (c *Container) serveInMemory() {
	dir := filepath.Clean(c.spec.LinkDir)
	for {
		c.e.links.mu.Lock()
		l := c.e.links.at[dir]
		c.e.links.mu.Unlock()
		if l == nil {
			if !c.pause(5 * time.Millisecond) {
				return
			}
			continue
		}
		select {
		case l.agents <- c:
		case <-l.closed:
			if !c.pause(5 * time.Millisecond) {
				return
			}
			continue
		case <-c.ctx.Done():
			return
		}
		if !c.stayConnected() {
			return
		}
	}
}

// stayConnected waits for the end of the connection and says whether the container lives on.
func (c *Container) stayConnected() bool {
	for {
		c.mu.Lock()
		n := c.inner
		c.mu.Unlock()
		if n != nil {
			select {
			case <-n.done:
				c.mu.Lock()
				if c.inner == n {
					c.inner = nil
				}
				c.mu.Unlock()
				return c.ctx.Err() == nil
			case <-c.ctx.Done():
				return false
			}
		}
		if !c.pause(time.Millisecond) {
			return false
		}
	}
}

func (c *Container) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}
