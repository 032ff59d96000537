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

	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

func TestHTTPShapedStreamsBothWays(t *testing.T) {
	g := newRig(t, nil)
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		got = req
		if err := sink.Head(200, []call.Header{{Name: "Content-Type", Value: "text/plain"}, {Name: "Trailer", Value: "x"}}); err != nil {
			return nil, err
		}
		r := bufio.NewReader(req.Stream)
		for { // answers line by line while the request is still being sent
			line, err := r.ReadString('\n')
			if line != "" {
				if err := sink.Data([]byte("got " + line)); err != nil {
					return nil, err
				}
			}
			if err == io.EOF {
				return okResult(nil), nil
			}
			if err != nil {
				return nil, errs.New(errs.Cancelled, "%v", err)
			}
		}
	}
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("PUT", g.url+"/v1/functions/echo/http/a%2Fb//c?timeout=x&y=1", pr)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	req.Header.Set("Paddock-Timeout", "30s")
	req.Header.Set("X-Wt-Params", "forged")
	req.Header.Set("X-Own", "kept")
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer := bufio.NewReader(res.Body)
	for i := range 3 {
		fmt.Fprintf(pw, "line %d\n", i)
		if line, err := answer.ReadString('\n'); err != nil || line != fmt.Sprintf("got line %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
	}
	_ = pw.Close()
	if rest, err := io.ReadAll(answer); err != nil || len(rest) != 0 {
		t.Errorf("%q %v", rest, err)
	}
	if got.HTTP.Method != "PUT" || got.HTTP.URL != "/a%2Fb//c?timeout=x&y=1" || got.Via != call.ViaHTTP {
		t.Errorf("%+v", got.HTTP)
	}
	names := map[string]string{}
	for _, h := range got.HTTP.Headers {
		names[h.Name] = h.Value
	}
	if names["x-own"] != "kept" || names["host"] == "" || names["authorization"] != "" || names["x-wt-params"] != "" ||
		names["paddock-timeout"] != "" {
		t.Errorf("%v", names)
	}
	if left := time.Until(got.Deadline); left > 30*time.Second || left < 20*time.Second {
		t.Errorf("deadline in %s", left)
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

func TestFailureAfterTheHeadCutsTheAnswer(t *testing.T) {
	g := newRig(t, nil)
	g.node.do = func(_ context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
		_ = sink.Head(200, nil)
		_ = sink.Data([]byte("half"))
		return nil, errs.New(errs.UserError, "threw")
	}
	req, _ := http.NewRequest("GET", g.url+"/v1/functions/echo/http/", nil)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "half" || err == nil {
		t.Errorf("%q %v: the answer looks whole", b, err)
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

func TestFailureBeforeTheHeadIsAProblem(t *testing.T) {
	g := newRig(t, nil)
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		return nil, errs.New(errs.LoadError, "no")
	}
	if a := g.do("GET", "/v1/functions/echo/http", ""); a.status != 422 || a.problem.Kind != "load_error" {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.node.do = nil
	if a := g.do("POST", "/v1/functions/echo/http/x", ""); a.status != 200 || a.body != "null" {
		t.Errorf("a function of another shape: %d %s", a.status, a.body)
	}
	g.idle()
}

func TestHeadIsDueWithinTheCallTimeout(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Timeout = 30 * time.Millisecond })
	g.node.do = func(ctx context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
		<-ctx.Done()
		return nil, errs.New(errs.Cancelled, "cancelled")
	}
	if a := g.do("GET", "/v1/functions/echo/http/", ""); a.status != 504 || a.problem.Kind != "timeout" {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.idle()
}

func TestIdleStreamEnds(t *testing.T) {
	g := newRig(t, func(c *Config) { c.StreamIdle = 40 * time.Millisecond })
	g.node.do = func(ctx context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
		_ = sink.Head(200, nil)
		for range 4 { // slower than nothing, faster than idle
			time.Sleep(20 * time.Millisecond)
			if err := sink.Data([]byte("x")); err != nil {
				return nil, err
			}
		}
		<-ctx.Done()
		return nil, errs.New(errs.Cancelled, "%v", context.Cause(ctx))
	}
	req, _ := http.NewRequest("GET", g.url+"/v1/functions/echo/http/", nil)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "xxxx" || err == nil {
		t.Errorf("%q %v", b, err)
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

// TestNodeReadsOnAfterTheAnswer: a node's goroutine may still be in the body when the call is over; the handler must not
// return before it is out.
func TestNodeReadsOnAfterTheAnswer(t *testing.T) {
	g := newRig(t, nil)
	left := make(chan error, 1)
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		reading := make(chan struct{})
		go func() {
			close(reading)
			_, err := io.Copy(io.Discard, req.Stream)
			left <- err
		}()
		<-reading
		_ = sink.Head(200, nil)
		_ = sink.Data([]byte("early"))
		return okResult(nil), nil
	}
	pr, pw := io.Pipe()
	defer pw.Close()
	req, _ := http.NewRequest("POST", g.url+"/v1/functions/echo/http/", pr)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "early" {
		t.Errorf("%q", b)
	}
	select {
	case err := <-left:
		if err == nil {
			t.Error("the body ended well")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the reader was never woken")
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
}

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
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
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

func TestLogsAsEvents(t *testing.T) {
	g := newRig(t, nil)
	ended := make(chan struct{})
	g.services.tail = func(r *pb.TailRequest, ss pb.Logs_TailServer) error {
		defer close(ended)
		if r.GetLines() == 9 {
			return errs.New(errs.Invalid, "nine is not liked")
		}
		_ = ss.Send(&pb.LogLine{Text: "hello\ndata: forged", Level: r.GetLevel(), Time: timestamppb.Now()})
		<-ss.Context().Done()
		return ss.Context().Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", g.url+"/v1/logs?level=warn", nil)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(res.Body)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "data: {") || !strings.Contains(line, `forged`) || !strings.Contains(line, "warn") ||
		res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%q %v", line, err)
	}
	if g.services.saw.Load().Tenant != "acme" {
		t.Errorf("%+v", g.services.saw.Load())
	}
	cancel()
	<-ended
	_ = res.Body.Close()
	ended = make(chan struct{})
	if a := g.do("GET", "/v1/logs?lines=9", ""); a.status != 400 || a.problem.Detail != "nine is not liked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.do("GET", "/v1/logs?lines=-1", ""); a.status != 400 {
		t.Errorf("%d", a.status)
	}
}

func TestShutdownEndsLogStreams(t *testing.T) {
	g := newRig(t, nil)
	began := make(chan struct{})
	g.services.tail = func(_ *pb.TailRequest, ss pb.Logs_TailServer) error {
		_ = ss.Send(&pb.LogLine{Text: "x"})
		began <- struct{}{}
		<-ss.Context().Done()
		return ss.Context().Err()
	}
	req, _ := http.NewRequest("GET", g.url+"/v1/logs", nil)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	go func() {
		if res, err := g.client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}()
	<-began
	tail, err := pb.NewLogsClient(g.conn).Tail(ctxAs(t.Context(), "acme-invoke"), &pb.TailRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := g.router.Shutdown(ctx); err != nil {
		t.Errorf("%v", err)
	}
	for err == nil {
		_, err = tail.Recv()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
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
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
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
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
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
