package lane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rig is a server with one connection to it, both in memory.
type rig struct {
	t      *testing.T
	server *Server
	client net.Conn
	read   *bufio.Reader
	handed chan net.Conn
}

func newRig(t *testing.T, handler http.HandlerFunc) *rig {
	r := &rig{t: t, handed: make(chan net.Conn, 1)}
	r.server = New(Options{
		Handler: handler, Takes: func(_, path string) bool { return path != "/other" }, HandOn: func(c net.Conn) { r.handed <- c },
		Idle: time.Minute, Write: time.Minute, Base: t.Context(), Logger: slog.New(slog.DiscardHandler),
	})
	ours, theirs := net.Pipe()
	r.client, r.read = ours, bufio.NewReader(ours)
	r.server.begin(theirs)
	t.Cleanup(func() {
		r.server.Close()
		ours.Close()
	})
	return r
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func (r *rig) send(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.client, text); err != nil {
		r.t.Error(err) // not Fatal: some send from a goroutine of their own
	}
}

// answer reads one answer and its body.
func (r *rig) answer() (*http.Response, string) {
	r.t.Helper()
	res, err := http.ReadResponse(r.read, &http.Request{Method: http.MethodPost})
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(body)
}

// closed waits for the end of the connection.
func (r *rig) closed() {
	r.t.Helper()
	if b, err := io.ReadAll(r.read); len(b) > 0 || err != nil {
		r.t.Errorf("in place of the end came %q, %v", b, err)
	}
}

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	text := fmt.Sprintf("%s %s %q", r.URL.Path, b, r.Header["X"])
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(text))}
	io.WriteString(w, text)
}

func TestAnswersOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		for i := range 3 {
			r.send(post("/a", fmt.Sprint("body", i)))
			res, body := r.answer()
			if want := fmt.Sprintf("/a body%d []", i); res.StatusCode != 200 || body != want || res.Close {
				t.Errorf("%d: %d %q, close %v", i, res.StatusCode, body, res.Close)
			}
			if _, err := http.ParseTime(res.Header.Get("Date")); err != nil {
				t.Error(err)
			}
			time.Sleep(59 * time.Second) // not idle for too long, at any time
		}
	})
}

func TestRequestsInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		text := post("/a", "body")
		for n := 1; n < len(text); n++ {
			r.send(text[:n])
			time.Sleep(restWait / 2)
			r.send(text[n:])
			if _, body := r.answer(); body != "/a body []" {
				t.Errorf("in parts of %d and %d bytes: %q", n, len(text)-n, body)
			}
		}
	})
}

func TestRequestsBackToBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		large := strings.Repeat("x", 60<<10)
		go r.send(post("/a", "1") + post("/b", large) + post("/c", "3") + post("/d", "4")[:20])
		for _, want := range []string{"/a 1 []", "/b " + large + " []", "/c 3 []"} {
			if _, body := r.answer(); body != want {
				t.Errorf("%.40q, want %.40q", body, want)
			}
		}
		r.send(post("/d", "4")[20:])
		if _, body := r.answer(); body != "/d 4 []" {
			t.Errorf("the last, in parts: %q", body)
		}
	})
}

// What is not plain comes out on the other side as it was sent, and the lane has no more to do with it.
func TestHandsOnTheUnusual(t *testing.T) {
	for name, text := range unusuals() {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, echo)
			r.send(post("/a", "first"))
			r.answer()
			go r.client.Write([]byte(text + "and more"))
			c := <-r.handed
			defer c.Close()
			got := make([]byte, len(text)+len("and more"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != text+"and more" {
				t.Errorf("%s: %.80q, %v", name, got, err)
			}
			ended(t, r.server)
		})
	}
}

func TestHandsOnOtherPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		go r.send(post("/other", "x"))
		c := <-r.handed
		defer c.Close()
		time.Sleep(time.Hour) // no deadline is left on it
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil || req.URL.Path != "/other" {
			t.Fatal(req, err)
		}
	})
}

// A caller who does not go on is a real server's to wait for.
func TestHandsOnTheSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		text := post("/a", "body")
		r.send(text[:len(text)-1])
		began := time.Now()
		c := <-r.handed
		defer c.Close()
		if took := time.Since(began); took != restWait {
			t.Errorf("after %s", took)
		}
		go r.send(text[len(text)-1:])
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(req.Body); string(b) != "body" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
}

func TestIdleConnectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		r.send(post("/a", ""))
		r.answer()
		began := time.Now()
		r.closed()
		if took := time.Since(began); took < time.Minute || took > time.Minute+slack {
			t.Errorf("after %s", took)
		}
	})
}

// ended checks that the server has no connection left.
func ended(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// waiting answers when it is told to, or says that its caller is gone.
func waiting(release <-chan struct{}, gone chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
			io.WriteString(w, "done")
		case <-r.Context().Done():
			gone <- r.Context().Err()
		}
	}
}

func TestCallersThatGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan error, 1)
		r := newRig(t, waiting(nil, gone))
		r.send(post("/a", ""))
		time.Sleep(time.Second)
		if len(gone) > 0 {
			t.Fatal("gone before it went")
		}
		r.client.Close()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		ended(t, r.server)
	})
}

// Being watched over changes nothing for a caller who stays, whether it is silent or sends on.
func TestSlowRequests(t *testing.T) {
	for _, next := range []int{0, 1, 2, 30} { // bytes of the next request that come early
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			r := newRig(t, waiting(release, make(chan error, 1)))
			text := post("/a", "body")
			r.send(text)
			for range 3 {
				time.Sleep(5 * watchAfter)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					io.WriteString(r.client, text[:next])
				}()
				time.Sleep(watchAfter)
				release <- struct{}{}
				if _, body := r.answer(); body != "done" {
					t.Errorf("%d bytes early: %q", next, body)
				}
				<-sent
				r.send(text[next:])
			}
			go func() { release <- struct{}{} }()
			r.answer()
		})
	}
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t, waiting(release, make(chan error, 1)))
		r.send(post("/a", ""))
		over := make(chan error, 1)
		go func() { over <- r.server.Shutdown(context.Background()) }()
		time.Sleep(time.Minute)
		if len(over) > 0 {
			t.Fatal("did not wait for the request")
		}
		close(release)
		if res, body := r.answer(); body != "done" || !res.Close {
			t.Errorf("%q, close %v", body, res.Close)
		}
		r.closed()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

func TestShutdownOfAnIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		r.send(post("/a", ""))
		r.answer()
		synctest.Wait()
		began := time.Now()
		ended(t, r.server)
		r.closed()
		if time.Since(began) > 0 {
			t.Errorf("took %s", time.Since(began))
		}
		late, theirs := net.Pipe()
		r.server.begin(theirs)
		if _, err := late.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection after the end: %v", err)
		}
	})
}

func TestShutdownGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan error, 1)
		r := newRig(t, waiting(nil, gone))
		r.send(post("/a", ""))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		r.server.Close()
		if err := <-gone; err == nil {
			t.Error("the request was not cut")
		}
	})
}

func TestPanicsCutTheConnection(t *testing.T) {
	for _, v := range []any{http.ErrAbortHandler, "oops"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "half")
				panic(v)
			})
			r.send(post("/a", ""))
			r.closed()
		})
	}
}

func TestServe(t *testing.T) {
	s := New(Options{Handler: http.HandlerFunc(echo), Takes: anything, HandOn: func(c net.Conn) { c.Close() },
		Idle: time.Minute, Write: time.Minute, Base: t.Context(), Logger: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	for _, size := range []int{0, 10, 5 << 10, 60 << 10, 70 << 10} {
		res, err := http.Post("http://"+l.Addr().String()+"/a", "text/plain", bytes.NewReader(bytes.Repeat([]byte("x"), size)))
		if size > maxRequest {
			if err == nil {
				t.Errorf("%d bytes were taken", size)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); len(b) != len("/a  []")+size || err != nil {
			t.Errorf("%d bytes: %d came back, %v", size, len(b), err)
		}
		res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := s.Serve(l); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestHandsOnHalfOfARequest(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("served") })
	const half = "POST /v1/run HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"
	r.send(half)
	r.client.Close() // a pipe has no sides to end by themselves
	select {
	case c := <-r.handed:
		if b, err := io.ReadAll(c); string(b) != half || err != nil {
			t.Errorf("%q %v", b, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not handed on")
	}
}
