package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"paddock/internal/tenant"
)

// ErrClosed is Err after Close.
var ErrClosed = errors.New("link: closed by the host")

// Conn is the connection to one container's agent. Safe for concurrent use. It ends by Close, by the peer, or by a breach;
// then Done is closed, every call has failed and every settled function was called.
//
// One goroutine reads; it never waits for a caller or for the socket to take bytes. Callers write: whoever finds nobody
// writing takes all that has gathered and writes it at once (write.go). One mutex guards the state; no system call and no
// callback happens under it.
type Conn struct {
	o         Options
	nc        *net.UnixConn
	raw       syscall.RawConn
	hello     Hello
	done      chan struct{}
	tainted   chan struct{}
	stuck     chan struct{}
	wg        sync.WaitGroup
	unsettled atomic.Int64  // == len(table); read without the mutex
	reads     atomic.Uint64 // that brought something
	secrets   secrets
	now       func() time.Time

	mu     sync.Mutex
	err    error
	tenant tenant.ID
	next   StreamID
	table  map[StreamID]*exchange // every call whose code may still run
	loads  map[StreamID]*loading
	codes  map[string]struct{} // hashes sent and not known to be forgotten
	pings  map[uint64]chan struct{}
	pinged uint64
	past   past // finished streams: late logs, late frames
	taint  taint
	w      writer
	logs   logCredit
	stats  Stats
}

// Stats counts what is not an error.
type Stats struct {
	LateFrames    int64 // for streams that the host had closed
	LogsDropped   int64 // lines beyond a call's limit that an honest agent would not have sent
	BadHeaders    int64 // response headers that no HTTP peer may see
	LoadsRepeated int64 // NOT_LOADED answers
}

func newConn(nc *net.UnixConn, o Options, h Hello, rest []byte) (*Conn, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{
		o: o, nc: nc, raw: raw, hello: h, done: make(chan struct{}), tainted: make(chan struct{}), stuck: make(chan struct{}), now: time.Now, next: 1,
		table: map[StreamID]*exchange{}, loads: map[StreamID]*loading{}, codes: map[string]struct{}{},
		pings: map[uint64]chan struct{}{},
	}
	c.logs.credit = o.LogWindow
	c.secrets.blind = o.Adopted
	c.w.write = c.writeOnce
	c.wg.Go(func() { c.readLoop(rest) })
	return c, nil
}

// Hello is what the agent said of itself. It proves nothing.
func (c *Conn) Hello() Hello { return c.hello }

// Bind names the tenant whose code will run, once, before the first Do: without it, and for any other tenant's call, Do
// refuses. Log lines carry it. A second tenant is a fault of the caller that ends the connection.
func (c *Conn) Bind(t tenant.ID, _ *tenant.Policy) {
	c.mu.Lock()
	first := c.tenant
	if first == "" {
		c.tenant = t
	}
	c.mu.Unlock()
	if first != "" && first != t {
		c.fail(fmt.Errorf("link: bound to tenant %s, now to %s", first, t))
	}
}

// Running is how many calls' code may still be running.
func (c *Conn) Running() int { return int(c.unsettled.Load()) }

// Done is closed when the connection is over.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil while the connection lives; errors.Is(Err(), ErrBreach) tells a breach from a loss, ErrClosed an own Close.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stats returns the counters.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Close ends the connection; calls in flight fail. It returns when nothing of it runs any more, save a goroutine that is
// inside a Request.Stream's Read. Idempotent. Not to be called from OnLog or a settled function.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	c.wg.Wait()
	return nil
}

// fail ends the connection for a reason; the first reason stays. It calls the settled functions of calls that nobody waits
// for any more, so it must not be called under the mutex.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	var settled []func()
	for _, x := range c.table {
		x.lost = err
		x.wakeUp()
		if f := c.settleLocked(x); f != nil {
			settled = append(settled, f)
		}
	}
	c.w.clear()
	c.logs.stop()
	c.taint.stop()
	close(c.done)
	c.mu.Unlock()
	c.nc.Close()
	if errors.Is(err, ErrBreach) {
		c.o.Logger.Warn("a container broke the link protocol", "container", c.o.Container, "why", err.Error())
	}
	for _, f := range settled {
		f()
	}
}

// Ping asks whether the agent's event loop turns. An error says only that no answer came in time: the loop may be busy.
func (c *Conn) Ping(ctx context.Context) error {
	pong, err := c.ping()
	if err != nil {
		return err
	}
	select {
	case <-pong:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ping sends PING and returns a channel that closes with its PONG.
func (c *Conn) ping() (<-chan struct{}, error) {
	const outstanding = 64
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	if len(c.pings) >= outstanding {
		c.mu.Unlock()
		return nil, fmt.Errorf("link: %d pings without an answer", outstanding)
	}
	c.pinged++
	id, pong := c.pinged, make(chan struct{})
	c.pings[id] = pong
	c.w.pending = appendPing(c.w.pending, id)
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
	return pong, nil
}
