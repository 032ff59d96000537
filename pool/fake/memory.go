package fake

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/link"
)

// What the connection in memory does as package link does it.
const (
	cancelGrace = 250 * time.Millisecond
)

var (
	errEOF    = errors.New("fake: the agent is gone")
	errBreach = errors.New("fake: breach")
	errClosed = errors.New("fake: closed")
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

// conn is a pool.Conn without bytes.
type conn struct {
	c       *Container
	o       pool.LinkOptions
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
	tainted chan struct{}
	seized  chan struct{} // the pool has been told that it is stuck

	mu      sync.Mutex
	err     error
	stuck   bool // the loop stands still
	reason  string
	running int // programs
	tenant  tenant.ID
}

func (n *conn) Done() <-chan struct{}    { return n.done }
func (n *conn) Tainted() <-chan struct{} { return n.tainted }
func (n *conn) Stuck() <-chan struct{}   { return n.seized }

func (n *conn) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func (n *conn) Breached() bool { return n.Err() == errBreach }

func (n *conn) Close() error {
	n.end(errClosed)
	return nil
}

func (n *conn) Ping(ctx context.Context) error {
	if !n.isStuck() {
		return n.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return n.Err()
	}
}

func (n *conn) Bind(t tenant.ID, _ *tenant.Policy) {
	n.c.e.mu.Lock()
	defer n.c.e.mu.Unlock()
	if n.c.tenant != "" && n.c.tenant != t || n.tenant != "" {
		n.c.e.violateLocked("container %s of tenant %s is bound to %s", n.c.spec.ID, n.c.tenant, t)
	}
	n.c.tenant, n.tenant = t, t
}

func (n *conn) end(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return
	}
	n.err = err
	n.cancel()
	close(n.done)
}

func (n *conn) taint(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := n.reason == ""
	if reason == "stuck" && n.reason != reason {
		close(n.seized)
	}
	if first || reason == "stuck" {
		n.reason = reason
	}
	if first {
		close(n.tainted)
	}
}

func (n *conn) isStuck() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stuck
}

// begin records the start of a call, unless the connection is over.
func (n *conn) begin(req *call.Request) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.running++
		n.c.e.began(n.c, req.ID, req.Tenant)
		n.c.e.bound(n, req.Tenant)
	}
	return n.err
}

func (n *conn) ended() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running--
}

// busy says whether a program of this connection runs.
func (n *conn) busy() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err == nil && n.running > 0
}

// bound records a call that came before the container was its tenant's.
func (e *Engine) bound(n *conn, t tenant.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.tenant != t {
		e.violateLocked("a call of %s began in container %s, bound to %q", t, n.c.spec.ID, n.tenant)
	}
}

// Do implements pool.Conn.
func (n *conn) Do(ctx context.Context, req *call.Request, sink call.Sink, settled func()) (*call.Result, error) {
	if err := n.begin(req); err != nil {
		settled()
		return nil, &errs.Error{Kind: errs.SandboxLost, Cause: "crashed", Started: errs.StartedNo, Err: err}
	}
	type outcome struct {
		value []byte
		err   error
	}
	answers := make(chan outcome, 1)
	began := time.Now()
	running, stop := context.WithCancel(n.ctx)
	unhook := context.AfterFunc(ctx, stop)
	s := &memoryStage{n: n, req: req, sink: sink}
	defer s.leave()
	var piped *progress
	if req.Pipeline != "" {
		piped = newProgress(req)
	}
	once := sync.OnceFunc(func() {
		n.ended()
		settled()
	})
	gone := context.AfterFunc(n.ctx, once)
	go func() {
		defer once()
		defer gone()
		defer unhook()
		defer stop()
		var value []byte
		var err error
		if piped != nil {
			value, err = n.c.runSteps(running, s, piped)
		} else {
			value, err = n.c.run(running, s, string(req.Code.Source))
		}
		op, arg, goesOn := afterwards(req)
		if goesOn && (op == "spin" || op == "stall") {
			n.stick(true)
		}
		if !goesOn {
			once() // RESULT and SETTLED in one
		}
		answers <- outcome{value, err}
		switch {
		case op == "spin":
			<-n.ctx.Done()
		case op == "crash":
			n.c.end(pool.Exit{Code: 1, Known: true})
		case goesOn:
			d, _ := time.ParseDuration(arg)
			n.c.pause(d)
			if op == "stall" {
				n.stick(false)
			}
		}
	}()
	var expired <-chan time.Time
	if !req.Deadline.IsZero() {
		t := time.NewTimer(time.Until(req.Deadline))
		defer t.Stop()
		expired = t.C
	}
	var res *call.Result
	var err error
	select {
	case a := <-answers:
		if piped != nil && a.err != nil && n.Err() == nil && running.Err() == nil {
			return piped.result(nil, a.err, false)
		}
		res, err = n.answer(s, a.value, a.err, began)
	case <-n.done:
		err = n.lost()
	case <-expired:
		stop()
		n.watchCancel()
		n.watchUnsettled()
		err = errs.New(errs.Timeout, "the deadline passed")
	case <-ctx.Done():
		n.watchCancel()
		err = errs.New(errs.Cancelled, "the caller went away")
	}
	if piped == nil {
		return res, err
	}
	var value []byte
	if err == nil {
		value = res.Value
	}
	return piped.result(value, err, n.Err() == errEOF)
}

// Load implements pool.Loader.
func (n *conn) Load(ctx context.Context, code call.Code) error {
	done := make(chan *link.ErrorHead, 1)
	go func() { done <- n.c.compile(&memoryStage{n: n, req: &call.Request{}}, string(code.Source)) }()
	select {
	case h := <-done:
		switch {
		case n.Err() != nil:
			return n.lostUnstarted()
		case h == nil:
			return nil
		}
		return &errs.Error{
			Kind: errs.LoadError, Started: errs.StartedNo, Message: "the code does not compile; the error says where",
			Thrown: &errs.Thrown{Name: h.Name, Message: h.Message, Line: h.Line, Column: h.Column, Excerpt: h.Excerpt},
		}
	case <-n.done:
		return n.lostUnstarted()
	case <-ctx.Done():
		return &errs.Error{Kind: errs.Timeout, Started: errs.StartedNo, Message: "the code was not loaded in time"}
	}
}

func (n *conn) lostUnstarted() error {
	return &errs.Error{Kind: errs.SandboxLost, Cause: "crashed", Started: errs.StartedNo, Message: "the connection ended", Err: n.Err()}
}

func (n *conn) answer(s *memoryStage, value []byte, err error, began time.Time) (*call.Result, error) {
	var t thrown
	switch {
	case n.Err() != nil:
		return nil, n.lost()
	case errors.As(err, &t):
		return nil, &errs.Error{Kind: errs.UserError, Message: string(t), Thrown: &errs.Thrown{Name: "Error", Message: string(t)}}
	case err != nil:
		return nil, errs.New(errs.Cancelled, "the caller went away")
	}
	return &call.Result{Value: value, Streamed: s.headed, Stages: call.Stages{Run: time.Since(began)}}, nil
}

func (n *conn) lost() error {
	return &errs.Error{Kind: errs.SandboxLost, Cause: "crashed", Message: "the connection ended", Err: n.Err()}
}

// watchCancel taints the connection as package link does: at once if the loop stands still.
func (n *conn) watchCancel() {
	time.AfterFunc(cancelGrace, func() {
		if n.isStuck() {
			n.taint("stuck")
		}
	})
}

// maxUnsettled programs may run on at a time.
const maxUnsettled = 64

// watchUnsettled taints the connection when too many programs run.
func (n *conn) watchUnsettled() {
	n.mu.Lock()
	many := n.running > maxUnsettled
	n.mu.Unlock()
	if many {
		n.taint("unsettled")
	}
}

type memoryStage struct {
	n   *conn
	req *call.Request

	mu     sync.Mutex
	sink   call.Sink // nil once Do has returned: then nobody may touch it
	over   bool
	headed bool
}

// leave takes the sink away from a program that runs on.
func (s *memoryStage) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink, s.over = nil, true
}

func (s *memoryStage) gone() <-chan struct{}      { return s.n.done }
func (s *memoryStage) body() []byte               { return s.req.Body }
func (s *memoryStage) secrets() map[string]string { return s.req.Secrets }

func (s *memoryStage) head(int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return context.Canceled
	case s.sink == nil:
		return thrown("the answer is a stream and nobody reads it")
	}
	s.headed = true
	return s.sink.Head(http.StatusOK, nil)
}

func (s *memoryStage) data(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	return s.sink.Data(p)
}

func (s *memoryStage) log(text string) {
	line := call.LogLine{
		Call: s.req.ID, Tenant: s.req.Tenant, Container: s.n.o.Container, Level: "info", Time: time.Now(), Text: text,
	}
	if s.n.o.OnLog != nil {
		s.n.o.OnLog(line)
	}
}

func (s *memoryStage) stick() { s.n.stick(true) }

func (n *conn) stick(stuck bool) {
	n.mu.Lock()
	n.stuck = stuck
	n.mu.Unlock()
}

// afterwards is what goes on after the answer of a call, or of one of a pipeline's steps.
func afterwards(req *call.Request) (op, arg string, ok bool) {
	sources := [][]byte{req.Code.Source}
	for i := range req.Steps {
		sources = append(sources, req.Steps[i].Code.Source)
	}
	for _, source := range sources {
		if _, rest, found := strings.Cut(string(source), "then "); found {
			op, arg, _ = strings.Cut(rest, " ")
			return op, arg, true
		}
	}
	return "", "", false
}

func (s *memoryStage) breach() { s.n.end(errBreach) }
