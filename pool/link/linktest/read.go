package linktest

import (
	"context"
	"encoding/json"
	"errors"

	"paddock/pool/link"
)

const readBuffer = 1 << 20

// read serves the connection; it owns the buffer and the order of frames.
func (a *Agent) read(welcomed chan struct{}) {
	buf := make([]byte, readBuffer)
	have := 0
	for {
		n, err := a.conn.Read(buf[have:])
		if !a.waitStuck() {
			return
		}
		have += n
		at := 0
		for {
			f, size, derr := link.Decode(buf[at:have], link.Host)
			if derr != nil {
				a.fail(derr)
				return
			}
			if size == 0 {
				break
			}
			at += size
			if derr := a.dispatch(&f, welcomed); derr != nil {
				a.fail(derr)
				return
			}
		}
		a.flushInline()
		have = copy(buf, buf[at:have])
		if err != nil {
			a.fail(err)
			return
		}
	}
}

// waitStuck returns when the event loop turns, and says false if the connection has ended meanwhile.
func (a *Agent) waitStuck() bool {
	a.mu.Lock()
	ch := a.stuck
	a.mu.Unlock()
	if ch == nil {
		return true
	}
	select {
	case <-ch:
		a.mu.Lock()
		if a.stuck == ch {
			a.stuck = nil
		}
		a.mu.Unlock()
		return true
	case <-a.done:
		return false
	}
}

func (a *Agent) flushInline() {
	if len(a.out) > 0 {
		a.send(a.out)
		a.out = a.out[:0]
	}
}

func (a *Agent) dispatch(f *link.Frame, welcomed chan struct{}) error {
	switch f.Type {
	case link.TypeWelcome:
		if err := json.Unmarshal(f.Head, &a.welcome); err != nil {
			return err
		}
		a.log = a.welcome.LogWindow
		close(welcomed)
	case link.TypeLoad:
		return a.load(f)
	case link.TypeInvoke:
		return a.invoke(f)
	case link.TypeData:
		a.data(f)
	case link.TypeWindow:
		a.window(f)
	case link.TypeCancel:
		a.cancel(f)
	case link.TypePing:
		a.send(link.AppendPlain(nil, link.TypePong, 0, 0, f.Body))
	}
	return nil
}

func (a *Agent) load(f *link.Frame) error {
	l := &load{source: append([]byte(nil), f.Body...)}
	if err := json.Unmarshal(f.Head, &l.head); err != nil {
		return err
	}
	if f.End() {
		a.loaded(f.Stream, l)
		return nil
	}
	a.mu.Lock()
	a.loading[f.Stream] = l
	a.mu.Unlock()
	return nil
}

func (a *Agent) loaded(s link.StreamID, l *load) {
	var failed *Thrown
	if a.o.Load != nil {
		failed = a.o.Load(a, l.head, l.source)
	}
	a.mu.Lock()
	a.code[l.head.Hash] = loaded{source: l.source, failed: failed}
	delete(a.loading, s)
	a.mu.Unlock()
	head := link.CodeHead{Hash: l.head.Hash}
	t := link.TypeLoaded
	if failed != nil {
		t, head.Error = link.TypeLoadFailed, &failed.ErrorHead
	}
	a.send(link.AppendFrame(nil, t, 0, s, mustJSON(head), nil))
}

// Forget drops all code, as the agent's LRU may.
func (a *Agent) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.code)
}

func (a *Agent) invoke(f *link.Frame) error {
	c := &Call{Agent: a, stream: f.Stream, credit: a.welcome.StreamWindow, ended: f.End()}
	c.body = append(c.body, f.Body...)
	if err := json.Unmarshal(f.Head, &c.InvokeHead); err != nil {
		return err
	}
	a.mu.Lock()
	code, ok := a.code[c.Code]
	if c.Pipeline != "" {
		code, ok = loaded{}, a.hasStepsLocked(c)
	}
	if !ok {
		a.mu.Unlock()
		a.notLoaded(c)
		return nil
	}
	c.Source = code.source
	ctx, cancel := context.Context(context.Background()), context.CancelFunc(func() {})
	if !a.o.Inline {
		ctx, cancel = context.WithCancel(ctx)
	}
	c.cancel = cancel
	a.calls[f.Stream] = c
	a.mu.Unlock()
	if code.failed != nil {
		c.finish(link.ResultHead{Outcome: "load_error", Error: &code.failed.ErrorHead}, nil, true)
		return nil
	}
	if a.o.Inline {
		a.run(ctx, c)
		return nil
	}
	a.wg.Go(func() { a.run(ctx, c) })
	return nil
}

// hasStepsLocked says whether all code of a pipeline's steps is here, and names what is missing.
func (a *Agent) hasStepsLocked(c *Call) bool {
	c.missing = nil
	for _, s := range c.Steps {
		for _, hash := range []string{s.Code, s.Fallback} {
			if _, ok := a.code[hash]; !ok && hash != "" {
				c.missing = append(c.missing, hash)
			}
		}
	}
	return len(c.missing) == 0
}

func (a *Agent) notLoaded(c *Call) {
	head := link.CodeHead{Hash: c.Code}
	if len(c.missing) > 0 {
		head.Hash, head.Missing = c.missing[0], c.missing
	}
	a.send(link.AppendFrame(nil, link.TypeNotLoaded, 0, c.stream, mustJSON(head), nil))
}

func (a *Agent) run(ctx context.Context, c *Call) {
	value, err := a.o.Handler(ctx, c)
	var thrown *Thrown
	switch {
	case errors.Is(err, ErrSilent):
		a.mu.Lock()
		delete(a.calls, c.stream)
		a.mu.Unlock()
	case errors.Is(err, ErrNotLoaded):
		a.mu.Lock()
		delete(a.code, c.Code)
		delete(a.calls, c.stream)
		a.mu.Unlock()
		a.notLoaded(c)
	case errors.As(err, &thrown):
		c.finish(link.ResultHead{Outcome: "error", Error: &thrown.ErrorHead}, nil, true)
	case err != nil:
		c.finish(link.ResultHead{Outcome: "error", Error: &link.ErrorHead{Name: "Error", Message: err.Error()}}, nil, true)
	default:
		if value == nil && !c.headSent() {
			value = []byte("null")
		}
		c.finish(link.ResultHead{}, value, true)
	}
	c.cancel()
}

func (a *Agent) data(f *link.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.loading[f.Stream]; l != nil {
		l.source = append(l.source, f.Body...)
		if f.End() {
			a.mu.Unlock()
			a.loaded(f.Stream, l)
			a.mu.Lock()
		}
		return
	}
	if c := a.calls[f.Stream]; c != nil {
		c.body = append(c.body, f.Body...)
		c.ended = c.ended || f.End()
		c.ungranted += uint32(len(f.Body))
		a.changed.Broadcast()
	}
}

func (a *Agent) window(f *link.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.Stream == 0 {
		a.log += int64(f.Window())
	} else if c := a.calls[f.Stream]; c != nil {
		c.credit += int64(f.Window())
	}
	a.changed.Broadcast()
}

func (a *Agent) cancel(f *link.Frame) {
	a.mu.Lock()
	c := a.calls[f.Stream]
	a.mu.Unlock()
	if c == nil || a.o.Deaf {
		return
	}
	c.finish(link.ResultHead{Outcome: "cancelled"}, nil, false)
	c.cancel()
}
