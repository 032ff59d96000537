package link_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

// pair connects a Conn and a fake agent, and checks at the end that no goroutine of either remains.
func pair(t testing.TB, lo link.Options, ao linktest.Options) (*link.Conn, *linktest.Agent) {
	t.Helper()
	before := runtime.NumGoroutine()
	dir := shortDir(t)
	ln, err := link.Listen(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	type dialed struct {
		a   *linktest.Agent
		err error
	}
	ch := make(chan dialed, 1)
	go func() {
		a, err := linktest.Dial(context.Background(), filepath.Join(dir, link.SocketName), ao)
		ch <- dialed{a, err}
	}()
	if lo.Container == "" {
		lo.Container = "c0ffee"
	}
	c, err := ln.Accept(context.Background(), lo)
	if err != nil {
		t.Fatal(err)
	}
	d := <-ch
	if d.err != nil {
		t.Fatal(d.err)
	}
	c.Bind("acme", nil)
	t.Cleanup(func() {
		c.Close()
		d.a.Close()
		testenv.AwaitGoroutines(t, before)
	})
	return c, d.a
}

// shortDir is a directory whose sockets fit into a socket address.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func codeOf(source string) call.Code {
	sum := sha256.Sum256([]byte(source))
	return call.Code{Hash: hex.EncodeToString(sum[:]), Kind: call.KindAuto, Name: "f.js", Source: []byte(source)}
}

func request(body string) *call.Request {
	p := tenant.DefaultPolicy()
	return &call.Request{
		ID: "0123456789abcdef0123456789abcdef", Tenant: "acme", Policy: &p, Runtime: "node", Function: "f", Code: codeOf("x => x"),
		Body: []byte(body), Deadline: time.Now().Add(time.Minute),
	}
}

// recorder is a Sink that keeps everything; gate, if set, is received from before each Data.
type recorder struct {
	mu      sync.Mutex
	status  int
	headers []call.Header
	data    []byte
	logs    []call.LogLine
	gate    chan struct{}
	fail    error
	inside  chan struct{} // closed at the first Data
	once    sync.Once
}

func (r *recorder) Head(status int, h []call.Header) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.headers = status, h
	return nil
}

func (r *recorder) Data(p []byte) error {
	if r.inside != nil {
		r.once.Do(func() { close(r.inside) })
	}
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = append(r.data, p...)
	return r.fail
}

func (r *recorder) Log(l call.LogLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, l)
}

func wantKind(t testing.TB, err error, k errs.Kind, started errs.Started) *errs.Error {
	t.Helper()
	var e *errs.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want kind %s", err, err, k)
	}
	if e.Kind != k || e.WhetherStarted() != started {
		t.Fatalf("%s, started %s (%v); want %s, started %s", e.Kind, e.WhetherStarted(), e, k, started)
	}
	if e.Message == "" || strings.Contains(e.Message, "link.") {
		t.Errorf("message for the caller: %q", e.Message)
	}
	return e
}

func equalJSON(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func onLogLength(ch chan int) func(call.LogLine) {
	return func(l call.LogLine) { ch <- len(l.Text) }
}
