package router

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
)

func TestSlowBodyIsCutOff(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Timeout = 50 * time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: 10\r\n\r\n1",
		bearerOf("acme-invoke"))
	_ = c.SetReadDeadline(time.Now().Add(testenv.Patience(20 * time.Second)))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != 408 || !strings.Contains(string(b), "too slowly") {
		t.Errorf("%d %s", res.StatusCode, b)
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

func TestUnwantedBodyIsNotWaitedFor(t *testing.T) {
	g := newRig(t, nil)
	g.router.discardFor = 30 * time.Millisecond
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n1")
	_ = c.SetReadDeadline(time.Now().Add(testenv.Patience(20 * time.Second)))
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != 401 {
		t.Errorf("%d", res.StatusCode)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is still open: %v", err)
	}
}

// TestContentLengthIsKept: whatever a function says of its length, the caller's connection stays in step.
func TestContentLengthIsKept(t *testing.T) {
	g := newRig(t, nil)
	for _, body := range []string{"123", "1234567"} { // 5 were announced
		g.node.do = func(_ context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
			if err := sink.Head(200, []call.Header{{Name: "Content-Length", Value: "5"}}); err != nil {
				return nil, err
			}
			if err := sink.Data([]byte(body)); err != nil {
				return nil, errs.New(errs.Cancelled, "%v", err)
			}
			return okResult(nil), nil
		}
		req, _ := http.NewRequest("GET", g.url+"/v1/functions/echo/http/", nil)
		req.Header.Set("Authorization", bearerOf("acme-invoke"))
		res, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); err == nil || len(b) > 5 {
			t.Errorf("%q: got %q, %v", body, b, err)
		}
		_ = res.Body.Close()
	}
	g.node.do = nil
	if a := g.do("POST", "/v1/functions/echo/invoke", "1"); a.status != 200 || a.body != "1" {
		t.Errorf("the next call: %d %q", a.status, a.body)
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

func TestBodilessAnswers(t *testing.T) {
	g := newRig(t, nil)
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		status := 204
		if req.HTTP != nil && req.HTTP.Method == "HEAD" {
			status = 200
		}
		if err := sink.Head(status, nil); err != nil {
			return nil, err
		}
		return okResult(nil), sink.Data([]byte("not to be seen"))
	}
	if a := g.do("HEAD", "/v1/functions/echo/http/", ""); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
	for _, path := range []string{"/v1/functions/echo/http/", "/v1/functions/echo/invoke"} {
		if a := g.do("POST", path, "1"); a.status != 204 || a.body != "" {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
	g.idle()
}

// TestUnreadStreamLeavesTheConnectionInStep: a function that does not want its body must not turn the rest of it into the
// next request.
func TestUnreadStreamLeavesTheConnectionInStep(t *testing.T) {
	g := newRig(t, nil)
	g.router.discardFor = 50 * time.Millisecond
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		if req.Via == call.ViaHTTP {
			_ = sink.Head(200, nil)
			return okResult(nil), sink.Data([]byte("done"))
		}
		return okResult([]byte(`"next"`)), nil
	}
	smuggled := "POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: x\r\nAuthorization: " + bearerOf("acme-invoke") +
		"\r\nContent-Length: 1\r\n\r\n1"
	for _, framing := range []string{
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", smallStream+len(smuggled)+10, strings.Repeat("x", smallStream)),
		"Transfer-Encoding: chunked\r\n\r\n10000\r\n" + strings.Repeat("x", 64<<10) + "\r\nffff\r\n",
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(testenv.Patience(20 * time.Second)))
		fmt.Fprintf(c, "POST /v1/functions/echo/http/ HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n%s", bearerOf("acme-invoke"), framing)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "done" || err != nil || !res.Close {
			t.Errorf("%q %v, close %v", b, err, res.Close)
		}
		before := g.node.calls.Load()
		_, _ = io.WriteString(c, smuggled)
		if b, _ := io.ReadAll(r); len(b) != 0 || g.node.calls.Load() != before {
			t.Errorf("the body's rest was answered: %q", b)
		}
		_ = c.Close()
	}
	for range 20 { // small bodies keep the connection
		if a := g.do("POST", "/v1/functions/echo/http/", "ignored"); a.status != 200 || a.header.Get("Connection") != "" {
			t.Fatalf("%d %v", a.status, a.header)
		}
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}
