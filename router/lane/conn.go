package lane

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	firstBuffer = 4 << 10
	restWait    = time.Second           // for the rest of a request that came in parts; then a real server waits on
	slack       = 10 * time.Second      // by which deadlines of idle connections are late, so that few calls move them
	watchAfter  = 10 * time.Millisecond // of a request, before anybody looks whether its caller is still there
)

// conn is one connection while the lane has it. serve's goroutine owns all but what mu guards.
type conn struct {
	srv    *Server
	nc     net.Conn
	ctx    context.Context // of its requests: ends when the caller is gone
	cancel context.CancelFunc
	small  []byte
	buf    []byte // small, or a larger one while a request needs it
	have   int    // bytes of buf that have come
	req    request
	res    response
	reads  time.Time // the read deadline that is set
	writes time.Time // and the write deadline
	second int64     // that date is for
	date   []byte

	mu      sync.Mutex
	busy    bool
	began   time.Time   // of the request, while busy
	timer   *time.Timer // looks at busy
	armed   bool
	watched chan struct{} // closed when nobody reads ahead any more; nil if nobody does
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{srv: s, nc: nc, small: make([]byte, firstBuffer)}
	c.buf = c.small
	c.ctx, c.cancel = context.WithCancel(s.o.Base)
	c.req.base = new(http.Request).WithContext(c.ctx)
	c.req.base.RemoteAddr = nc.RemoteAddr().String()
	c.res.c = c
	return c
}

// serve answers requests until the connection ends or turns out to be somebody else's.
func (c *conn) serve() {
	defer c.srv.gone(c)
	defer c.stop()
	for c.idle() {
		switch c.next() {
		case plain:
			if !c.answer() {
				c.nc.Close()
				return
			}
		case unusual:
			c.handOn()
			return
		default:
			c.nc.Close()
			return
		}
	}
	c.nc.Close()
}

// idle waits for nothing; it says whether another request may come.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	if c.srv.closing.Load() {
		return false
	}
	now := time.Now()
	if until := now.Add(c.srv.o.Idle); c.reads.Before(until) {
		c.setRead(until.Add(slack))
	}
	return true
}

func (c *conn) setRead(t time.Time) {
	c.reads = t
	_ = c.nc.SetReadDeadline(t)
}

// stop lets go of what the connection holds besides its socket.
func (c *conn) stop() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// hurry ends a connection that waits for its next request.
func (c *conn) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.busy {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// next reads until it is clear what has come. incomplete means that nothing more will.
func (c *conn) next() verdict {
	patient := false // the caller sends in parts, and was given time for the rest
	for {
		if c.have > 0 {
			if v := c.req.read(c.buf[:c.have], c.srv.o.Takes); v != incomplete {
				return v
			}
			c.makeRoom()
			if !patient {
				patient = true
				c.setRead(time.Now().Add(restWait))
			}
		}
		n, err := c.nc.Read(c.buf[c.have:])
		c.have += n
		if err != nil && n == 0 {
			if c.have > 0 && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)) {
				return unusual // half of a request: who has only ended his own side hears of it
			}
			return incomplete
		}
	}
}

// makeRoom sees to it that the buffer holds a whole plain request and the beginning of another one.
func (c *conn) makeRoom() {
	if c.have < len(c.buf) || len(c.buf) > maxRequest {
		return
	}
	all := make([]byte, maxRequest+firstBuffer)
	copy(all, c.buf[:c.have])
	c.buf = all
}

// handOn gives the connection away, as if nobody had read from it.
func (c *conn) handOn() {
	_ = c.nc.SetDeadline(time.Time{})
	c.srv.o.HandOn(&readAgain{Conn: c.nc, first: c.buf[:c.have]})
}

// answer serves the request in the buffer and says whether another one may follow.
func (c *conn) answer() bool {
	now := time.Now()
	if until := now.Add(c.srv.o.Write); c.writes.Before(until) {
		c.writes = until.Add(c.srv.o.Write)
		_ = c.nc.SetWriteDeadline(c.writes)
	}
	c.begin(now)
	c.res.reset()
	fine := c.handle() && c.res.finish()
	return c.end() && fine
}

// handle calls the handler. A panic cuts the connection, as it does elsewhere.
func (c *conn) handle() (fine bool) {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler {
			c.srv.o.Logger.Error("panic", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	c.srv.o.Handler.ServeHTTP(&c.res, &c.req.http)
	return true
}

// begin notes that a request is being served.
func (c *conn) begin(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.began = true, now
	if c.armed {
		return // from an earlier request: it will see this one
	}
	c.armed = true
	if c.timer == nil {
		c.timer = time.AfterFunc(watchAfter, c.look)
		return
	}
	c.timer.Reset(watchAfter)
}

// look begins to watch over the caller of a request that takes its time. Most requests are over before.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
	if !c.busy || c.watched != nil {
		return
	}
	if age := time.Since(c.began); age < watchAfter {
		c.armed = true
		c.timer.Reset(watchAfter - age)
		return
	}
	c.watched = make(chan struct{})
	go c.watch(c.watched)
}

// watch reads ahead until something comes or the request is over. What comes is the next request's; an end means that the
// caller is gone.
func (c *conn) watch(done chan<- struct{}) {
	defer close(done)
	_ = c.nc.SetReadDeadline(time.Time{})
	if !c.isBusy() {
		return // the request has ended meanwhile, and its goroutine waits for this one
	}
	if c.makeRoom(); c.have == len(c.buf) {
		return // a caller that sends on and on is there
	}
	var ahead [1]byte
	n, err := c.nc.Read(ahead[:])
	switch {
	case n == 1: // serve's goroutine does not touch the buffer before this one has ended
		c.buf[c.have] = ahead[0]
		c.have++
	case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		c.cancel()
	}
}

func (c *conn) isBusy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// end takes the request off the buffer and says whether its caller is still there.
func (c *conn) end() bool {
	c.mu.Lock()
	c.busy = false
	watched := c.watched
	c.watched = nil
	c.mu.Unlock()
	if watched != nil {
		c.setRead(time.Unix(1, 0))
		<-watched
	}
	used := c.req.head + c.req.length
	from := c.buf
	if c.have-used <= len(c.small) {
		c.buf = c.small
	}
	c.have = copy(c.buf, from[used:c.have])
	return c.ctx.Err() == nil
}

func (c *conn) appendDate(b []byte) []byte {
	now := time.Now()
	if s := now.Unix(); s != c.second {
		c.second, c.date = s, now.UTC().AppendFormat(c.date[:0], http.TimeFormat)
	}
	return append(b, c.date...)
}

// readAgain is a connection that begins with what was read from it already.
type readAgain struct {
	net.Conn
	first []byte
}

// Read gives the first bytes again, then those that follow.
func (r *readAgain) Read(p []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.first)
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}
