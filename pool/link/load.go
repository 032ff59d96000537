package link

import (
	"context"
	"errors"
	"fmt"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// loading is a LOAD without an answer.
type loading struct {
	hash string
	over chan struct{} // closed when it is answered; err is valid from then on
	err  *errs.Error
}

// Load gives the agent code ahead of its first call and returns when it is compiled; nothing of it runs. Code that this
// connection has sent already costs nothing. The connection must be bound. The error is an *errs.Error: load_error as the
// first call would get it, limited when the queue is full, sandbox_lost, or timeout or cancelled when ctx ends, while the code
// may arrive all the same.
func (c *Conn) Load(ctx context.Context, code call.Code) error {
	c.mu.Lock()
	l, refusal := c.startLoadLocked(&code)
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
	switch {
	case refusal != nil:
		return refusal
	case l == nil:
		return nil
	}
	select {
	case <-l.over:
	case <-c.done:
		return lostError(c.Err(), errs.StartedNo)
	case <-ctx.Done():
		kind := errs.Cancelled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			kind = errs.Timeout
		}
		e := errs.Wrap(kind, "link.Load", context.Cause(ctx), "the code was not loaded in time")
		e.Started = errs.StartedNo
		return e
	}
	if l.err != nil {
		return l.err
	}
	return nil
}

// startLoadLocked sends the code unless it was sent. A nil loading without an error means that the agent has it.
func (c *Conn) startLoadLocked(code *call.Code) (*loading, *errs.Error) {
	queued := c.w.queuedLocked()
	_, known := c.codes[code.Hash]
	switch {
	case c.err != nil:
		return nil, lostError(c.err, errs.StartedNo)
	case c.tenant == "":
		return nil, errs.Wrap(errs.Internal, "link.Load", errors.New("code for a connection without a tenant"),
			"the code was sent to a sandbox that is not this tenant's")
	case known:
		for _, l := range c.loads {
			if l.hash == code.Hash {
				return l, nil
			}
		}
		return nil, nil
	case code.Source == nil:
		return nil, errs.Wrap(errs.Internal, "link.Load", fmt.Errorf("code %s without its source", code.Hash),
			"the code of this function is missing")
	case queued > 0 && queued+len(code.Source) > c.o.QueueBytes:
		return nil, queueFullError()
	case c.next >= lastStream:
		c.taintLocked(TaintExhausted)
		return nil, exhaustedError()
	}
	return c.loadLocked(code), nil
}

// loadLocked queues LOAD, whole, ahead of what comes after it. The agent takes it without credit.
func (c *Conn) loadLocked(code *call.Code) *loading {
	const most = 1024 // the agent keeps fewer; sending code again does no harm
	if len(c.codes) >= most {
		clear(c.codes)
	}
	if len(c.loads) >= most {
		c.taintLocked(TaintUnsettled) // an agent that answers calls and no LOAD
	}
	c.codes[code.Hash] = struct{}{}
	s := c.next
	c.next++
	l := &loading{hash: code.Hash, over: make(chan struct{})}
	c.loads[s] = l
	rest := code.Source
	first := rest[:min(len(rest), MaxBody)]
	rest = rest[len(first):]
	flags := FlagEnd
	if len(rest) > 0 {
		flags = 0
	}
	c.w.pending = AppendFrame(c.w.pending, TypeLoad, flags, s, appendLoadHead(nil, code), first)
	for len(rest) > 0 {
		part := rest[:min(len(rest), MaxBody)]
		if rest = rest[len(part):]; len(rest) == 0 {
			flags = FlagEnd
		}
		c.w.pending = AppendPlain(c.w.pending, TypeData, flags, s, part)
	}
	return l
}

func (c *Conn) onLoaded(f *Frame) error {
	var h CodeHead
	if err := parseHead(f.Type, f.Head, &h); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.loads[f.Stream]
	if !ok || l.hash != h.Hash {
		return breach("%v on stream %d without a LOAD of it", f.Type, f.Stream)
	}
	delete(c.loads, f.Stream)
	if f.Type == TypeLoadFailed {
		delete(c.codes, l.hash) // the INVOKE that follows is told load_error; the next one tries again
		l.err = loadError(h.Error)
	}
	close(l.over)
	return nil
}
