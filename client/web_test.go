package client

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// site serves one handler and returns a client of it.
func site(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return clientOf(t, srv.Listener.Addr().String())
}

// once sends one request to the function f.
func once(t *testing.T, c *Client, method, path string, body io.Reader, o WebOptions) (*http.Response, error) {
	t.Helper()
	w := c.Web("f@2")
	req, err := w.Request(t.Context(), method, path, body, o)
	if err != nil {
		t.Fatal(err)
	}
	return w.Do(req)
}

func TestWebRequest(t *testing.T) {
	c := site(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Got", strings.Join([]string{r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Paddock-Tenant"),
			r.Header.Get("Paddock-Timeout"), r.Header.Get("Paddock-Fresh"), r.Header.Get("Paddock-Min-Revision"), string(body)}, " "))
		w.WriteHeader(http.StatusTeapot)
	})
	res, err := once(t, c, "PUT", "/a%2Fb?x=1", strings.NewReader("hi"), WebOptions{Timeout: 3 * time.Second, Fresh: true, MinRevision: 7})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := res.Header.Get("X-Got"); got != "PUT /v1/functions/f@2/http/a%2Fb?x=1 Bearer k acme 3s true 7 hi" || res.StatusCode != 418 {
		t.Errorf("%d %s", res.StatusCode, got)
	}
	for _, method := range []string{"GET", "HEAD", "POST"} { // without a body
		res, err := once(t, c, method, "", nil, WebOptions{})
		if err != nil {
			t.Fatal(method, err)
		}
		res.Body.Close()
		if got := strings.TrimSpace(res.Header.Get("X-Got")); got != method+" /v1/functions/f@2/http/ Bearer k acme" {
			t.Errorf("%q", got)
		}
	}
}

// Answers are read as they are written: the handler waits for what the reader does with the first part.
func TestWebStreams(t *testing.T) {
	c := site(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		buf := make([]byte, 16)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	})
	in, out := io.Pipe()
	go func() { _, _ = out.Write([]byte("one")) }()
	res, err := once(t, c, "POST", "", in, WebOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 3)
	for _, word := range []string{"one", "two"} {
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != word {
			t.Fatalf("%q %v", buf, err)
		}
		if word == "one" {
			go func() { _, _ = out.Write([]byte("two")); out.Close() }()
		}
	}
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
}

func TestWebFailures(t *testing.T) {
	c := site(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Paddock-Error", "user_error")
		w.Header().Set("Paddock-Started", "maybe")
		w.Header().Set("Paddock-Call-Id", "c9")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"detail":"it threw","started":"yes","fault":"tenant","thrown":{"name":"TypeError","message":"x","line":3}}`)
	})
	_, err := once(t, c, "GET", "/", nil, WebOptions{})
	var e *Error
	if !errors.As(err, &e) || e.Kind != UserError || e.Started != StartedYes || e.CallID != "c9" || e.Fault != "tenant" ||
		e.Thrown.GetName() != "TypeError" || e.Thrown.GetLine() != 3 {
		t.Errorf("%+v", err)
	}
	if _, err := once(t, c, "HEAD", "/", nil, WebOptions{}); !errors.As(err, &e) || e.Kind != UserError || e.Started != StartedMaybe {
		t.Errorf("without a document: %+v", err)
	}
}

func TestWebBodiesThatBreakOff(t *testing.T) {
	c := site(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Paddock-Call-Id", "c3")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	res, err := once(t, c, "GET", "/", nil, WebOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var e *Error
	if b, err := io.ReadAll(res.Body); string(b) != "half" || !errors.As(err, &e) || e.Kind != SandboxLost || e.Started != StartedYes ||
		e.CallID != "c3" {
		t.Errorf("%q %+v", b, err)
	}
}

func TestWebRepeatsOnlyWhatItCanSendAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		body  io.Reader
		times int32
	}{
		{"no body", nil, 3},
		{"a body that can be read again", strings.NewReader("whole"), 3},
		{"a stream", io.MultiReader(strings.NewReader("whole")), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var times atomic.Int32
			client := site(t, func(w http.ResponseWriter, r *http.Request) {
				if b, _ := io.ReadAll(r.Body); c.body != nil && string(b) != "whole" {
					t.Errorf("time %d: body %q", times.Load(), b)
				}
				times.Add(1)
				w.Header().Set("Paddock-Error", "no_capacity")
				w.Header().Set("Paddock-Started", "no")
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			_, err := once(t, client, "POST", "/", c.body, WebOptions{})
			if KindOf(err) != NoCapacity || times.Load() != c.times {
				t.Errorf("%v after %d times", err, times.Load())
			}
		})
	}
}

// A GET whose connection ends unanswered may have run. net/http would send it again by itself.
func TestWebSendsNothingTwice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var requests atomic.Int32
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			return // the connection is kept, and has been used when the next request breaks it
		}
		panic(http.ErrAbortHandler)
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	c := clientOf(t, l.Addr().String())
	res, err := once(t, c, "GET", "/", nil, WebOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	var e *Error
	if _, err := once(t, c, "GET", "/", nil, WebOptions{}); !errors.As(err, &e) || e.Kind != Internal || e.Started != StartedMaybe {
		t.Errorf("%+v", err)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// The key goes to the service and nowhere else.
func TestWebKeepsTheKey(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	c := site(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	res, err := once(t, c, "GET", "/", nil, WebOptions{})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusFound || elsewhere.Load() != 0 {
		t.Errorf("%d, %d requests elsewhere", res.StatusCode, elsewhere.Load())
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", other.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Web("f").Do(req); KindOf(err) != Invalid || elsewhere.Load() != 0 {
		t.Errorf("a request for another service: %v, %d requests", err, elsewhere.Load())
	}
}
