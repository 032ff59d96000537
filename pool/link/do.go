package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// maxReloads is how often a call is sent again because the agent had forgotten its code.
const maxReloads = 2

// The reasons of CANCEL.
const (
	reasonDeadline = "deadline"
	reasonGone     = "gone"
)

// Do runs one call: it sends the code first if this connection has not sent it, then the call, passes what comes to sink and
// returns the Result (Container and Stages.Load and .Run are filled) or an *errs.Error. It returns when the answer is there,
// or at once when req.Deadline passes or ctx ends, having told the agent so; only a sink that blocks can hold it up.
//
// The error says whether the code may have started: no, until a byte of INVOKE was handed to write(2).
//
// settled, if not nil, is called exactly once, when the code has really ended, could never start, or the connection is over;
// before Do returns or at any time after, on any goroutine, under no lock. It must not block.
//
// Of a pipeline the Result says what became of its steps, also with an error; if its container was lost in a step that is
// known, it says where the pipeline can go on.
//
// Without a sink, an answer of an HTTP-shaped function is an error. A Request.Stream is read by a goroutine that ends with
// the Read in which Do's return finds it.
func (c *Conn) Do(ctx context.Context, req *call.Request, sink call.Sink, settled func()) (*call.Result, error) {
	x := exchanges.Get().(*exchange)
	x.req, x.sink, x.settled, x.began = req, sink, settled, time.Now()
	x.id, x.function, x.code, x.deadline = req.ID, req.Function, req.Code.Hash, req.Deadline
	x.limits = c.limitsOf(req)
	if x.deadline.IsZero() {
		x.deadline = x.began.Add(365 * 24 * time.Hour)
	}
	res, err := c.run(ctx, x)
	if x.piped != nil {
		res, err = c.endPipeline(x, res, err)
	}
	c.leave(x)
	if err != nil {
		return res, err
	}
	return res, nil
}

func (c *Conn) limitsOf(req *call.Request) invokeLimits {
	l := invokeLimits{maxOutput: c.o.MaxOutput, maxLog: c.o.MaxLog}
	if p := req.Policy; p != nil {
		if p.OutputBytes > 0 {
			l.maxOutput = p.OutputBytes
		}
		if p.LogBytes > 0 {
			l.maxLog = p.LogBytes
		}
	}
	return l
}

func (c *Conn) run(ctx context.Context, x *exchange) (*call.Result, *errs.Error) {
	req := x.req
	c.secrets.learn(req)
	x.input = inputOf(req)
	if err := c.fits(req); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		// A streamed input cannot be sent twice, so its code goes with it.
		again := try > 0 && (req.Pipeline == "" || try > 1) // a pipeline's agent says what it lacks
		if err := c.start(ctx, x, again || req.Stream != nil && req.Code.Source != nil); err != nil {
			return nil, err
		}
		if err := c.await(ctx, x); err != nil {
			return nil, err
		}
		if !x.notLoaded {
			return c.outcome(ctx, x)
		}
		if try == maxReloads || req.Stream != nil {
			return nil, &errs.Error{
				Kind: errs.Internal, Started: errs.StartedNo, Op: "link.Do", Err: errors.New("NOT_LOADED right after LOAD"),
				Message: "the sandbox did not keep the code it was sent; try again",
			}
		}
	}
}

// start sends LOAD if need be, and INVOKE.
func (c *Conn) start(ctx context.Context, x *exchange, reload bool) *errs.Error {
	now := time.Now()
	left := x.deadline.Sub(now)
	if left <= 0 {
		return timeoutError(x, errs.StartedNo)
	}
	if ctx.Err() != nil {
		return contextError(ctx, x, errs.StartedNo)
	}
	x.invoked = now
	x.head = appendInvokeHead(x.head[:0], x.req, max(left.Milliseconds(), 1), x.limits, invokeLimits{c.o.MaxOutput, c.o.MaxLog})
	if len(x.head) > MaxHostHead {
		return errs.New(errs.Invalid, "the call's headers, secrets and configuration together are %d bytes, more than the %d that fit",
			len(x.head), MaxHostHead)
	}
	c.mu.Lock()
	if err := c.admitLocked(x, reload); err != nil {
		c.mu.Unlock()
		return err
	}
	c.sendLocked(x, reload)
	fed := x.body.fed
	flush := c.w.startLocked()
	c.mu.Unlock()
	if x.req.Stream != nil {
		x.gone = make(chan struct{})
		go c.pump(x.req.Stream, x.stream, fed, x.gone)
	}
	if flush {
		c.flush()
	}
	return nil
}

// admitLocked refuses a call that cannot be sent now.
func (c *Conn) admitLocked(x *exchange, reload bool) *errs.Error {
	need := len(x.head) + min(len(x.input), MaxBody)
	missing := false
	codesOf(x.req, func(code *call.Code) bool {
		if _, known := c.codes[code.Hash]; !known || reload {
			need += len(code.Source)
			missing = missing || code.Source == nil
		}
		return true
	})
	switch queued := c.w.queuedLocked(); {
	case c.err != nil:
		return lostError(c.err, errs.StartedNo)
	case c.tenant == "" || x.req.Tenant != c.tenant:
		return &errs.Error{
			Kind: errs.Internal, Started: errs.StartedNo, Op: "link.Do",
			Err:     fmt.Errorf("a call of tenant %q on a connection of tenant %q", x.req.Tenant, c.tenant),
			Message: "the call was sent to a sandbox that is not this tenant's",
		}
	case missing:
		return errs.Wrap(errs.Internal, "link.Do", errors.New("code without its source"), "the code of this function is missing")
	case queued > 0 && queued+need > c.o.QueueBytes:
		return queueFullError()
	case c.next >= lastStream:
		c.taintLocked(TaintExhausted)
		return exhaustedError()
	}
	return nil
}

// sendLocked queues the frames of x on a new stream.
func (c *Conn) sendLocked(x *exchange, reload bool) {
	c.loadAllLocked(x, reload)
	x.reset(c.o.StreamWindow)
	x.piped = newPiped(x.req, x.invoked)
	x.stream = c.next
	c.next++
	body := x.input
	first := body[:min(len(body), MaxBody)]
	flags := FlagEnd
	switch {
	case x.req.Stream != nil:
		flags = 0
		x.body.fed = make(chan struct{}, 1)
	case len(first) < len(body):
		flags = 0
		x.body.data, x.body.end = body[len(first):], true
	}
	from := len(c.w.pending)
	c.w.pending = AppendFrame(c.w.pending, TypeInvoke, flags, x.stream, x.head, first)
	c.w.marks = append(c.w.marks, mark{x, from, len(c.w.pending)})
	c.w.offerLocked(x)
	c.table[x.stream] = x
	c.unsettled.Add(1)
}

// loadAllLocked queues LOAD of what the agent is not known to have.
func (c *Conn) loadAllLocked(x *exchange, reload bool) {
	var sent map[string]bool // by this call: steps may share their code
	loaded := false
	codesOf(x.req, func(code *call.Code) bool {
		if _, known := c.codes[code.Hash]; known && (!reload || sent[code.Hash]) {
			return true
		}
		c.loadLocked(code)
		loaded = true
		if reload && x.req.Pipeline != "" {
			if sent == nil {
				sent = map[string]bool{}
			}
			sent[code.Hash] = true
		}
		return true
	})
	if loaded {
		x.load += time.Since(x.invoked)
	}
}

// fits refuses a pipeline whose code the agent could not keep all at once.
func (c *Conn) fits(req *call.Request) *errs.Error {
	if req.Pipeline == "" {
		return nil
	}
	n, size := 0, int64(0)
	codesOf(req, func(code *call.Code) bool {
		n++
		size += int64(len(code.Source))
		return true
	})
	if n > c.o.CacheEntries || size > c.o.CacheBytes {
		return errs.New(errs.Invalid, "the code of pipeline %s is %d bytes in %d versions; a sandbox keeps %d bytes in %d",
			req.Pipeline, size, n, c.o.CacheBytes, c.o.CacheEntries)
	}
	return nil
}

// await passes on what comes until the answer is complete (nil) or the caller's time is over.
func (c *Conn) await(ctx context.Context, x *exchange) *errs.Error {
	left := time.Until(x.deadline)
	if x.timer == nil {
		x.timer = time.NewTimer(left)
	} else {
		x.timer.Reset(left)
	}
	defer x.timer.Stop()
	defer x.clock.stop()
	for {
		c.wind(x)
		select {
		case <-x.wake:
		case <-ctx.Done():
			return c.abandon(ctx, x, reasonGone)
		case <-x.timer.C:
			return c.abandon(ctx, x, reasonDeadline)
		case <-x.clock.c():
			if c.strike(x) {
				if c.abandon(ctx, x, reasonDeadline) == nil {
					return nil
				}
				return stepTimeout(&x.req.Steps[x.clock.step])
			}
			continue
		case <-x.clock.pong:
			x.clock.answered()
			continue
		}
		if final, err := c.deliver(ctx, x); final || err != nil {
			return err
		}
	}
}

// abandon gives the caller its time back: the code is told, not waited for. nil means that the answer was there after all.
func (c *Conn) abandon(ctx context.Context, x *exchange, reason string) *errs.Error {
	c.mu.Lock()
	if x.final() && (ctx.Err() == nil || !x.headSeen) {
		c.mu.Unlock()
		_, err := c.deliver(ctx, x)
		return err
	}
	started := c.giveUpLocked(x, reason)
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
	if reason == reasonDeadline {
		return timeoutError(x, started)
	}
	return contextError(ctx, x, started)
}

// giveUpLocked cancels x, or takes it back unsent, and says whether its code may have started.
func (c *Conn) giveUpLocked(x *exchange, reason string) errs.Started {
	if x.over {
		if x.lost != nil && !x.sent || x.notLoaded {
			return errs.StartedNo
		}
		return errs.StartedMaybe
	}
	if !x.sent {
		c.w.withdrawLocked(x)
		c.settleLocked(x)
		return errs.StartedNo
	}
	c.cancelLocked(x, reason)
	return errs.StartedMaybe
}

// cancelLocked tells the agent that nobody waits for x. Once is enough.
func (c *Conn) cancelLocked(x *exchange, reason string) {
	c.w.dropBodyLocked(x)
	if x.over || !x.cancelled.IsZero() {
		return
	}
	x.cancelled = c.now()
	x.excess = x.limits.maxOutput
	head := appendString([]byte(`{"reason":`), reason)
	c.w.pending = AppendFrame(c.w.pending, TypeCancel, 0, x.stream, append(head, '}'), nil)
	c.lingerLocked(x)
	if !x.answered {
		c.watchCancel(x.stream)
	}
}

// settleLocked takes x out of the table: its code has ended. If Do has returned, the settled function is the caller's to
// call after unlocking; else leave calls it.
func (c *Conn) settleLocked(x *exchange) (settled func()) {
	if x.over {
		return nil
	}
	x.over = true
	c.w.dropBodyLocked(x)
	c.past.add(x)
	if !x.cancelled.IsZero() && !x.bodyDone && c.err == nil {
		c.cutLocked(x)
	}
	delete(c.table, x.stream)
	c.unsettled.Add(-1)
	if x.lingers {
		x.lingers = false
		c.taint.lingering--
	}
	if !x.returned {
		return nil
	}
	settled = x.settled
	x.recycle()
	if settled == nil {
		return nil
	}
	return settled
}

// cutLocked leaves a body unread whose code has ended.
func (c *Conn) cutLocked(x *exchange) {
	c.past.cut(x.stream, c.now(), x.excess)
	if x.answered {
		c.restoreLocked(x)
	}
}

// restoreLocked gives a stream whose caller has gone the credit that it had at first: what had come and was not consumed is
// dropped, and the agent has to get rid of the rest.
func (c *Conn) restoreLocked(x *exchange) {
	if used := c.o.StreamWindow - x.credit; used > 0 {
		c.w.pending = AppendWindow(c.w.pending, x.stream, uint32(used))
		x.credit, x.ungranted = c.o.StreamWindow, 0
	}
}

// leave ends Do's use of x.
func (c *Conn) leave(x *exchange) {
	stopWatch(x)
	if x.gone != nil {
		close(x.gone)
		x.gone = nil
	}
	c.mu.Lock()
	if x.answered && x.ended && !x.over {
		c.settleLocked(x) // only its body was not at its end
	}
	if x.stream != 0 && !x.over {
		x.returned = true
		x.req, x.sink, x.response, x.logs, x.data, x.spare, x.value, x.input = nil, nil, nil, nil, nil, nil, nil, nil
		if x.piped != nil {
			x.piped.state, x.piped.part = nil, nil
		}
		c.lingerLocked(x)
		if !x.answered || !x.bodyDone {
			c.restoreLocked(x)
		}
		flush := c.w.startLocked()
		c.mu.Unlock()
		if flush {
			c.flush()
		}
		return
	}
	settled := x.settled
	flush := c.w.startLocked()
	c.mu.Unlock()
	x.recycle()
	if flush {
		c.flush()
	}
	if settled != nil {
		settled()
	}
}
