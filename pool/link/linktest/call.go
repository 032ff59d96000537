package linktest

import (
	"context"
	"errors"
	"io"
	"sync"

	"paddock/pool/link"
)

// ErrGone is what a Call's methods return when the connection is over or the call was answered.
var ErrGone = errors.New("linktest: the call is over")

// Call is one INVOKE. Its methods are safe for concurrent use.
type Call struct {
	link.InvokeHead
	Source []byte
	Agent  *Agent

	stream link.StreamID
	cancel context.CancelFunc

	order sync.Mutex // of DATA before RESULT

	// Guarded by Agent.mu.
	body      []byte
	ended     bool
	ungranted uint32 // body bytes read and not yet granted
	credit    int64
	head      bool
	answered  bool
	settled   bool
	missing   []string // code of a pipeline's steps
}

// Stream is the stream's number, for forging.
func (c *Call) Stream() link.StreamID { return c.stream }

// Body waits for the whole input, granting credit as it comes, and returns it; what came if the connection is lost.
func (c *Call) Body() []byte {
	var all []byte
	for {
		p, err := c.next()
		all = append(all, p...)
		if err != nil {
			return all
		}
	}
}

// Read reads the input as it comes.
func (c *Call) Read(p []byte) (int, error) {
	a := c.Agent
	a.mu.Lock()
	if len(c.body) > 0 {
		n := copy(p, c.body)
		c.body = c.body[n:]
		grant := c.takeGrantLocked()
		a.mu.Unlock()
		c.grant(grant)
		return n, nil
	}
	a.mu.Unlock()
	b, err := c.next()
	n := copy(p, b)
	if n < len(b) {
		a.mu.Lock()
		c.body = append(append([]byte(nil), b[n:]...), c.body...)
		a.mu.Unlock()
		err = nil
	}
	return n, err
}

// next returns the bytes that came since the last one, and io.EOF with or after the last of them.
func (c *Call) next() ([]byte, error) {
	a := c.Agent
	a.mu.Lock()
	for len(c.body) == 0 && !c.ended && a.err == nil {
		a.changed.Wait()
	}
	p := c.body
	c.body = nil
	var err error
	if c.ended || a.err != nil {
		err = io.EOF
	}
	grant := c.takeGrantLocked()
	a.mu.Unlock()
	c.grant(grant)
	return p, err
}

func (c *Call) takeGrantLocked() uint32 {
	g := c.ungranted
	c.ungranted = 0
	return g
}

func (c *Call) grant(n uint32) {
	if n > 0 {
		c.Agent.send(link.AppendWindow(nil, c.stream, n))
	}
}

// Log writes a line of this call, whatever the credit.
func (c *Call) Log(level, text string) { c.Agent.sendLog(c.stream, level, text) }

// Head sends the response's head.
func (c *Call) Head(status int, headers ...[2]string) error {
	a := c.Agent
	if headers == nil {
		headers = [][2]string{}
	}
	frame := link.AppendFrame(nil, link.TypeHead, 0, c.stream, mustJSON(link.ResponseHead{Status: status, Headers: headers}), nil)
	a.mu.Lock()
	gone := c.answered || a.err != nil
	c.head = true
	c.credit -= int64(len(frame) - 10)
	a.mu.Unlock()
	if gone {
		return ErrGone
	}
	a.send(frame)
	return nil
}

func (c *Call) headSent() bool {
	c.Agent.mu.Lock()
	defer c.Agent.mu.Unlock()
	return c.head
}

// Data sends a part of the response's body, waiting for credit.
func (c *Call) Data(p []byte) error {
	for {
		n, err := c.take(len(p), false)
		if err != nil {
			return err
		}
		if err := c.sendPart(p[:n]); err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

func (c *Call) sendPart(p []byte) error {
	c.order.Lock()
	defer c.order.Unlock()
	c.Agent.mu.Lock()
	gone := c.answered
	c.Agent.mu.Unlock()
	if gone {
		return ErrGone
	}
	c.Agent.send(link.AppendPlain(nil, link.TypeData, 0, c.stream, p))
	return nil
}

// rest sends what of a value did not fit into RESULT's frame.
func (c *Call) rest(p []byte) {
	for len(p) > 0 {
		n, err := c.take(len(p), true)
		if err != nil {
			return
		}
		flags := uint8(0)
		if n == len(p) {
			flags = link.FlagEnd
		}
		c.Agent.send(link.AppendPlain(nil, link.TypeData, flags, c.stream, p[:n]))
		p = p[n:]
	}
}

// take waits for credit and takes at most want bytes of it. Only the rest of a value may still go after the RESULT.
func (c *Call) take(want int, afterResult bool) (int, error) {
	a := c.Agent
	a.mu.Lock()
	defer a.mu.Unlock()
	for want > 0 && c.credit <= 0 && a.err == nil && (afterResult || !c.answered) {
		a.changed.Wait()
	}
	if a.err != nil || c.answered && !afterResult {
		return 0, ErrGone
	}
	n := min(want, link.MaxBody, int(max(c.credit, 0)))
	c.credit -= int64(n)
	return n, nil
}

// Answer sends RESULT ok before the handler returns: the code goes on, unsettled.
func (c *Call) Answer(value []byte) { c.finish(link.ResultHead{}, value, false) }

// Forge sends any frame on this call's stream.
func (c *Call) Forge(t link.Type, flags uint8, head, body []byte) {
	if t.HasHead() {
		c.Agent.send(link.AppendFrame(nil, t, flags, c.stream, head, body))
		return
	}
	c.Agent.send(link.AppendPlain(nil, t, flags, c.stream, body))
}

// finish answers unless answered, and settles when the code has ended.
func (c *Call) finish(head link.ResultHead, value []byte, ended bool) {
	a := c.Agent
	c.order.Lock()
	a.mu.Lock()
	first := !c.answered
	c.answered = true
	settle := ended && !c.settled
	c.settled = c.settled || ended
	if ended {
		delete(a.calls, c.stream)
	}
	a.mu.Unlock()
	var rest []byte
	switch {
	case first:
		rest = c.result(head, value, settle)
	case settle:
		a.send(link.AppendPlain(nil, link.TypeSettled, 0, c.stream, nil))
	}
	a.changed.Broadcast()
	c.order.Unlock()
	if len(rest) > 0 {
		c.rest(rest)
		a.mu.Lock()
		delete(a.calls, c.stream)
		a.mu.Unlock()
	}
}

var emptyResult = []byte("{}")

// result sends RESULT and returns what of value did not fit.
func (c *Call) result(head link.ResultHead, value []byte, settle bool) (rest []byte) {
	flags := uint8(0)
	if settle {
		flags = link.FlagSettled
	}
	first := value[:min(len(value), link.MaxBody)]
	if len(first) == len(value) {
		flags |= link.FlagEnd
	}
	h := emptyResult
	if head.Outcome != "" || head.Error != nil {
		h = mustJSON(head)
	}
	a := c.Agent
	if a.o.Inline && len(first) == len(value) {
		a.out = link.AppendFrame(a.out, link.TypeResult, flags, c.stream, h, first)
		return nil
	}
	frame := link.AppendFrame(nil, link.TypeResult, flags, c.stream, h, first)
	a.mu.Lock()
	c.credit -= int64(len(frame) - 10)
	if len(first) < len(value) {
		a.calls[c.stream] = c // WINDOW still matters
	}
	a.mu.Unlock()
	a.send(frame)
	return value[len(first):]
}
