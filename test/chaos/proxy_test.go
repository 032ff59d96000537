package chaos

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands between two processes: it carries TCP connections to target until a test holds, delays, cuts or refuses them.
// What is held is kept and arrives later, as it does after lost packets; nobody sees a reset. Safe for concurrent use.
type proxy struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu      sync.Mutex
	held    [2]bool       // by direction
	flows   chan struct{} // closed and replaced when something changes
	delay   time.Duration // of every chunk, each way
	refuses bool
	conns   map[net.Conn]struct{}
	closed  bool
}

// The directions, as the one sees them who connects.
const (
	forth = iota
	back
)

// newProxy listens at address for connections to target.
func newProxy(address, target string) (*proxy, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, flows: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.work.Go(p.accept)
	return p, nil
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.carry(c) })
	}
}

// carry serves one connection until either end closes.
func (p *proxy) carry(c net.Conn) {
	defer c.Close()
	if !p.note(c) {
		reset(c)
		return
	}
	defer p.forget(c)
	d, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		reset(c) // as if it had come from there
		return
	}
	defer d.Close()
	if !p.note(d) {
		return
	}
	defer p.forget(d)
	var both sync.WaitGroup
	both.Go(func() { p.copy(d, c, forth) })
	both.Go(func() { p.copy(c, d, back) })
	both.Wait()
}

// copy moves chunks one way. The end of one way ends the connection: nobody here closes half of one.
func (p *proxy) copy(to, from net.Conn, way int) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.wait(way, from) {
			return
		}
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			if errors.Is(err, io.EOF) {
				p.wait(way, from) // an end is held as well
			}
			return
		}
	}
}

// wait returns when a chunk may go on; false if the connection was cut.
func (p *proxy) wait(way int, c net.Conn) bool {
	for {
		p.mu.Lock()
		_, alive := p.conns[c]
		held, flows, delay := p.held[way], p.flows, p.delay
		p.mu.Unlock()
		switch {
		case !alive:
			return false
		case !held:
			time.Sleep(delay)
			return true
		}
		<-flows
	}
}

func (p *proxy) note(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses || p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// change makes a change and wakes whoever waits for one.
func (p *proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.flows)
	p.flows = make(chan struct{})
}

// hold stops what goes the ways that are named, both if none is.
func (p *proxy) hold(ways ...int) {
	if len(ways) == 0 {
		ways = []int{forth, back}
	}
	p.change(func() {
		for _, w := range ways {
			p.held[w] = true
		}
	})
}

// heal lets everything flow again.
func (p *proxy) heal() {
	p.change(func() { p.held, p.delay, p.refuses = [2]bool{}, 0, false })
}

// slow delays every chunk.
func (p *proxy) slow(d time.Duration) { p.change(func() { p.delay = d }) }

// cut resets all connections; with refuse new ones as well.
func (p *proxy) cut(refuse bool) {
	p.change(func() {
		p.refuses = refuse
		for c := range p.conns {
			reset(c)
			delete(p.conns, c)
		}
	})
}

func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// close ends everything and waits for it.
func (p *proxy) close() {
	p.listener.Close()
	p.change(func() { p.closed = true })
	p.heal()
	p.cut(true)
	p.work.Wait()
}

// What is held arrives later, in order; what is cut is reset; what is refused never gets through.
func TestProxy(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			work.Go(func() { _, _ = io.Copy(c, c); c.Close() })
		}
	})
	p, err := newProxy("127.0.0.1:0", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.close(); server.Close(); work.Wait() }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	say := func(c net.Conn, text string) {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(c net.Conn, want string, limit time.Duration) error {
		buf := make([]byte, len(want))
		_ = c.SetReadDeadline(time.Now().Add(limit))
		_, err := io.ReadFull(c, buf)
		if err == nil && string(buf) != want {
			t.Fatalf("heard %q, want %q", buf, want)
		}
		return err
	}
	const long, short = time.Minute, 50 * time.Millisecond
	c := dial()
	say(c, "one")
	if err := hear(c, "one", long); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][]int{{forth}, {back}, nil} {
		p.hold(way...)
		say(c, "two")
		if err := hear(c, "two", short); err == nil {
			t.Fatalf("what was held (%v) went through", way)
		}
		p.heal()
		if err := hear(c, "two", long); err != nil {
			t.Fatal(err)
		}
	}
	p.cut(true)
	if err := hear(c, "x", long); err == nil {
		t.Fatal("it was not cut")
	}
	if c, err := net.Dial("tcp", p.address()); err == nil { // the reset may come before it is told of a connection
		defer c.Close()
		if err := hear(c, "x", long); err == nil {
			t.Fatal("it was not refused")
		}
	}
	p.heal()
	p.slow(short)
	c = dial()
	began := time.Now()
	say(c, "slow")
	if err := hear(c, "slow", long); err != nil || time.Since(began) < 2*short {
		t.Fatalf("slow after %v, %v", time.Since(began), err)
	}
}
