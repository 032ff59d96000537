package router

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// The lane takes the routes whose answer goes out whole, and no other path that looks like them.
func TestPlainCallsAreRunAndInvoke(t *testing.T) {
	g := newRig(t, nil)
	whole := map[uintptr]bool{reflect.ValueOf(serveRun).Pointer(): true, reflect.ValueOf(serveInvoke).Pointer(): true,
		reflect.ValueOf(servePipeline).Pointer(): true}
	for _, path := range []string{
		"/v1/run", "/v1/functions/f/invoke", "/v1/functions/f@3/invoke", "/v1/functions/invoke/invoke",
		"/v1/functions/f/http/invoke", "/v1/functions/f/http", "/v1/functions/f/http/v1/run", "/v1/functions/invoke",
		"/v1/functions/f", "/v1/functions//invoke/", "/v1/functions/f/invoke/", "/v1/run/", "/v1/functions/a/b/invoke", "/v1/keys",
		"/v1/tenants/a/suspend", "/", "/metrics", "/v1/pipelines/p/invoke", "/v1/pipelines/p", "/v1/pipelines/p/publish",
		"/v1/pipelines/a/b/invoke", "/v1/pipelines//invoke/", "/v1/pipelines/invoke",
	} {
		for _, method := range []string{"POST", "GET", "PUT", "HEAD", "post"} {
			e, _, _ := g.router.tree.match(method, path)
			want := e != nil && whole[reflect.ValueOf(e.serve).Pointer()]
			if got := isPlainCall(method, path); got != want {
				t.Errorf("%s %s: plain %v, want %v", method, path, got, want)
			}
		}
	}
}

// One connection may begin with plain calls and go on with something else: the answers are the same either way.
func TestConnectionsThatAreHandedOn(t *testing.T) {
	g := newRig(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	head := "POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: a\r\nAuthorization: " + bearerOf("acme-invoke") + "\r\n"
	var plain http.Header
	for i, request := range []string{
		head + "Content-Length: 2\r\n\r\n{}",
		head + "Content-Length: 2\r\n\r\n{}",
		"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
		head + "Content-Length: 2\r\n\r\n{}",
		head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", // the last: what follows chunks is not trusted
	} {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%d: %d %s, %v", i, res.StatusCode, body, err)
		}
		names := func(h http.Header) string { return fmt.Sprint(len(h), h["Content-Type"], h["Content-Length"]) }
		switch {
		case i == 0:
			plain = res.Header
		case i != 2 && names(plain) != names(res.Header):
			t.Errorf("%d: header %q, of a plain call %q", i, res.Header, plain)
		}
	}
}
