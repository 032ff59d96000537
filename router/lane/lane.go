// Package lane is the short way for the request that nearly every call is: a POST over HTTP/1.1 in the clear, with plain
// header fields and a body of stated length, 64 KiB in all at most. Such requests it reads and answers itself, by one read
// and one write. A connection that brings anything else, or anything merely unusual, is handed on, with every byte that was
// read of it, to a real HTTP server, and stays there. The lane streams nothing, upgrades nothing, decodes nothing and
// forgives nothing: what it takes, every reader of HTTP reads alike.
package lane

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a Server. All fields must be set.
type Options struct {
	// Handler answers what is taken. Its request and response are gone when it has returned. The response goes out then,
	// unless a part of it is large; it cannot be flushed, hijacked or streamed. The request's context ends when the caller
	// goes away, which is noticed 10 ms after the request's arrival at the earliest.
	Handler http.Handler
	// Takes says whether a request with this method and path (no query, no escapes) may be served here.
	Takes func(method, path string) bool
	// HandOn gets connections that bring something else, to keep or to close.
	HandOn func(net.Conn)
	// Idle is how long a connection may wait for its next request, Write how long an answer may take to be taken off.
	Idle, Write time.Duration
	// Base is what the contexts of requests come from.
	Base   context.Context
	Logger *slog.Logger
}

// Server serves plain requests on the connections that it is given. Make one with New; it serves until Shutdown or Close.
// Safe for concurrent use.
type Server struct {
	o       Options
	closing atomic.Bool

	mu        sync.Mutex
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
	empty     chan struct{} // closed when closing and no connection is left
}

// ErrClosed is what Serve returns after Shutdown or Close.
var ErrClosed = errors.New("lane: closed")

// New makes a Server.
func New(o Options) *Server {
	return &Server{o: o, conns: map[*conn]struct{}{}, listeners: map[net.Listener]struct{}{}, empty: make(chan struct{})}
}

// Serve takes connections from l until the server is closed, or l fails. It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.track(l) {
		return ErrClosed
	}
	defer s.forget(l)
	var wait time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			wait = 0
			s.begin(nc)
			continue
		}
		if s.closing.Load() {
			return ErrClosed
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second) // out of descriptors, most likely
		s.o.Logger.Warn("a connection could not be accepted", "err", err, "wait", wait)
		time.Sleep(wait)
	}
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) forget(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) begin(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	closing := s.closing.Load()
	if !closing {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if closing {
		nc.Close()
		return
	}
	go c.serve()
}

// gone is told by a connection that it needs the server no more.
func (s *Server) gone(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.closeIfEmptyLocked()
}

func (s *Server) closeIfEmptyLocked() {
	if !s.closing.Load() || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

// refuse takes no more connections and returns those that there are.
func (s *Server) refuse() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.closeIfEmptyLocked()
	return all
}

// Shutdown takes no more connections, closes idle ones and waits for the others to have given their answer; if ctx ends
// before, it returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	for _, c := range s.refuse() {
		c.hurry()
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close cuts every connection. Handlers may still run when it returns.
func (s *Server) Close() error {
	for _, c := range s.refuse() {
		c.nc.Close()
	}
	return nil
}
