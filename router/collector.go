package router

import (
	"errors"
	"sync"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// collector is the sink of a call whose answer goes out whole: it keeps an HTTP-shaped answer up to a limit, and log
// lines if they are wanted. After close it takes nothing more, so that a late writer cannot touch what is being sent.
type collector struct {
	limit    int64
	wantLogs bool
	revision int64 // of a pipeline, for its answer
	maxLogs  int64
	came     chan struct{} // told of new lines, if somebody sends them on; cap 1

	mu      sync.Mutex
	closed  bool
	headed  bool
	refused *errs.Error // why this collector ended the call
	status  int
	headers []call.Header
	body    []byte
	logs    []call.LogLine
	logged  int64
}

var errSinkClosed = errors.New("the answer has already been given")

// Head implements call.Sink.
func (c *collector) Head(status int, headers []call.Header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || c.headed:
		return errSinkClosed
	case !validStatus(status):
		c.refused = badStatus(status)
		return c.refused
	}
	c.headed, c.status, c.headers = true, status, headers
	return nil
}

// Data implements call.Sink.
func (c *collector) Data(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || !c.headed:
		return errSinkClosed
	case int64(len(c.body)+len(p)) > c.limit:
		c.refused = errs.New(errs.OutputTooLarge, "the answer is more than %d bytes, the most that is collected: stream it by "+
			"/v1/functions/NAME/http/", c.limit)
		return c.refused
	}
	c.body = append(c.body, p...)
	return nil
}

// Log implements call.Sink.
func (c *collector) Log(l call.LogLine) {
	if !c.wantLogs {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.logged+int64(len(l.Text)) > c.maxLogs {
		return
	}
	c.logged += int64(len(l.Text))
	c.logs = append(c.logs, l)
	select {
	case c.came <- struct{}{}:
	default:
	}
}

// takeLogs returns the lines that have come since the last time.
func (c *collector) takeLogs() []call.LogLine {
	c.mu.Lock()
	defer c.mu.Unlock()
	logs := c.logs
	c.logs = nil
	return logs
}

// close ends collecting and returns the call's error: the collector's own reason, if it was the one who ended the call.
func (c *collector) close(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.refused != nil {
		return c.refused
	}
	return err
}

// untouched says that nothing of an answer has come.
func (c *collector) untouched() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.headed && c.refused == nil
}

func badStatus(status int) *errs.Error {
	return errs.New(errs.UserError, "the function answered with status %d: use 200 to 599", status)
}
