package fake

import (
	"context"
	"errors"
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/link"
)

var (
	errEOF    = errors.New("fake: the agent is gone")
	errBreach = errors.New("fake: breach")
	errClosed = errors.New("fake: closed")
)

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
	over := make(chan struct{})
	once := sync.OnceFunc(func() {
		close(over)
		n.ended()
		settled()
	})
	defer n.watchSettled(over, req.Deadline)
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
