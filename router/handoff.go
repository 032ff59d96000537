package router

import (
	"net"
	"net/http"
	"strings"
	"sync"

	"paddock/router/lane"
)

// newLane makes the short way for plain calls. It comes to the same handler as everything else over HTTP.
func (r *Router) newLane() *lane.Server {
	return lane.New(lane.Options{
		Handler: r, Takes: isPlainCall, HandOn: r.handedOn.give, Idle: idleTimeout, Write: answerTimeout, Logger: r.log,
		Base: r.calls,
	})
}

// isPlainCall says whether a request is for a route whose answer goes out whole: run, and invoke of functions and pipelines. What
// it says only decides who reads the request, not who may make it.
func isPlainCall(method, path string) bool {
	if method != http.MethodPost {
		return false
	}
	if path == "/v1/run" {
		return true
	}
	name, ok := strings.CutPrefix(path, "/v1/functions/")
	if !ok {
		if name, ok = strings.CutPrefix(path, "/v1/pipelines/"); !ok {
			return false
		}
	}
	name, ok = strings.CutSuffix(name, "/invoke")
	return ok && !strings.Contains(name, "/")
}

// handoff is a listener of connections that somebody else has accepted. Safe for concurrent use.
type handoff struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newHandoff() *handoff { return &handoff{conns: make(chan net.Conn), done: make(chan struct{})} }

// give waits until the connection is accepted; it closes it when there is nobody any more.
func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener. Nobody dials it.
func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }
