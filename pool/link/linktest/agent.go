package linktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"paddock/pool/link"
)

// Handler answers one call. It runs in a goroutine of its own, unless Options.Inline. A value is the RESULT; nil stands for
// null. An error that is a *Thrown is reported as the code's own, ErrNotLoaded as NOT_LOADED, any other but ErrSilent as a thrown Error.
// SETTLED follows when the handler returns. ctx ends on CANCEL, which the agent answers by itself at once, and when the
// connection is gone.
type Handler func(ctx context.Context, c *Call) ([]byte, error)

// Thrown is an error that the pretended code threw.
type Thrown struct{ link.ErrorHead }

func (t *Thrown) Error() string { return t.Name + ": " + t.Message }

// ErrNotLoaded makes the agent answer NOT_LOADED, as if it had forgotten the code.
var ErrNotLoaded = errors.New("linktest: not loaded")

// ErrSilent says that the handler has forged all that there is to send.
var ErrSilent = errors.New("linktest: silent")

// Options say how the agent behaves.
type Options struct {
	Handler Handler    // default: Echo
	Hello   link.Hello // zero: protocol 1, node, v24.0.0
	// Load, if set, is asked about every LOAD; an error becomes LOAD_FAILED and later calls of that code load_error.
	Load func(a *Agent, h link.LoadHead, source []byte) *Thrown
	// Inline runs handlers on the reading goroutine and answers a whole batch with one write, as node does. Handlers must not
	// wait for anything then.
	Inline bool
	// Deaf makes the agent ignore CANCEL, as code that holds the event loop does; it answers PING all the same.
	Deaf bool
	// Reconnect dials again after a lost connection until ctx ends.
	Reconnect bool
}

// Echo answers with the input.
func Echo(_ context.Context, c *Call) ([]byte, error) { return c.Body(), nil }

// Hang never ends, not even after CANCEL (which the agent answers); it returns when the connection is gone.
func Hang(_ context.Context, c *Call) ([]byte, error) {
	<-c.Agent.Done()
	return nil, nil
}

// Serve dials path and serves until ctx ends or the connection is lost (with Reconnect: until ctx ends).
func Serve(ctx context.Context, path string, o Options) error {
	for reconnects := 0; ; reconnects++ {
		o.Hello.Reconnects = reconnects
		a, err := Dial(ctx, path, o)
		if err == nil {
			stop := context.AfterFunc(ctx, a.Close)
			<-a.Done()
			stop()
			err = a.Err()
		}
		if ctx.Err() != nil || !o.Reconnect {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Agent is one connected agent. Safe for concurrent use.
type Agent struct {
	o       Options
	conn    net.Conn
	welcome link.Welcome
	done    chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	err     error
	stuck   chan struct{} // not nil: the event loop is stuck until it closes
	code    map[string]loaded
	loading map[link.StreamID]*load
	calls   map[link.StreamID]*Call
	log     int64      // credit
	changed *sync.Cond // credit, bodies, closing

	wmu sync.Mutex
	out []byte
}

type loaded struct {
	source []byte
	failed *Thrown
}

type load struct {
	head   link.LoadHead
	source []byte
}

// Dial connects, says HELLO, waits for WELCOME and serves in the background until Close or the end of the connection.
func Dial(ctx context.Context, path string, o Options) (*Agent, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if o.Handler == nil {
		o.Handler = Echo
	}
	reconnects := o.Hello.Reconnects
	if o.Hello.Protocol == 0 {
		o.Hello = link.Hello{Protocol: link.Protocol, Runtime: "node", Version: "v24.0.0", Agent: "fake", Reconnects: reconnects}
	}
	a := &Agent{
		o: o, conn: conn, done: make(chan struct{}), code: map[string]loaded{}, loading: map[link.StreamID]*load{},
		calls: map[link.StreamID]*Call{},
	}
	a.changed = sync.NewCond(&a.mu)
	a.send(link.AppendFrame(nil, link.TypeHello, 0, 0, mustJSON(o.Hello), nil))
	welcomed := make(chan struct{})
	a.wg.Go(func() { a.read(welcomed) })
	select {
	case <-welcomed:
		return a, nil
	case <-a.done:
		a.wg.Wait()
		return nil, fmt.Errorf("linktest: no WELCOME: %w", a.Err())
	case <-ctx.Done():
		a.Close()
		return nil, ctx.Err()
	}
}

// Done is closed when the connection is over; Err then says why.
func (a *Agent) Done() <-chan struct{} { return a.done }

// Err is nil while the connection lives.
func (a *Agent) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Welcome is what the host said.
func (a *Agent) Welcome() link.Welcome { return a.welcome }

// Close ends the connection and waits for the handlers, whose contexts end.
func (a *Agent) Close() {
	a.fail(net.ErrClosed)
	a.wg.Wait()
}

// Stick makes the event loop stand still, as `while(1){}` does: nothing is read or answered until unstick is called or the
// connection is closed. What was under way in handlers goes on.
func (a *Agent) Stick() (unstick func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ch := make(chan struct{})
	a.stuck = ch
	return sync.OnceFunc(func() { close(ch) })
}

// Raw sends bytes as they are: garbage, forged frames.
func (a *Agent) Raw(p []byte) { a.send(p) }

// Log writes a line outside any call, whatever the credit, and takes the credit for it.
func (a *Agent) Log(level, text string) { a.sendLog(0, level, text) }

// LogFormer sends a line of a call of a former connection.
func (a *Agent) LogFormer(level, text string) {
	head := mustJSON(link.LogHead{Level: level, T: float64(time.Now().UnixMilli()), Former: true})
	a.sendLogFrame(link.AppendFrame(nil, link.TypeLog, 0, 0, head, []byte(text)))
}

func (a *Agent) sendLog(s link.StreamID, level, text string) {
	a.sendLogFrame(logFrame(s, level, text))
}

func (a *Agent) sendLogFrame(frame []byte) {
	a.mu.Lock()
	a.log -= int64(len(frame) - 10)
	a.mu.Unlock()
	a.send(frame)
}

// LogCredit waits until the host allows at least so many bytes of logs, and returns how many.
func (a *Agent) LogCredit(least int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.log < least && a.err == nil {
		a.changed.Wait()
	}
	return a.log
}

func (a *Agent) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return
	}
	a.err = err
	close(a.done)
	a.conn.Close()
	for _, c := range a.calls {
		c.cancel()
	}
	a.changed.Broadcast()
}

// send writes p, or leaves it to the batch that is being read (Inline).
func (a *Agent) send(p []byte) {
	a.wmu.Lock()
	defer a.wmu.Unlock()
	if _, err := a.conn.Write(p); err != nil {
		go a.fail(err)
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func logFrame(s link.StreamID, level, text string) []byte {
	head := mustJSON(link.LogHead{Level: level, T: float64(time.Now().UnixMilli())})
	return link.AppendFrame(nil, link.TypeLog, 0, s, head, []byte(text))
}
