package router

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
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
	defer func() {
		if tr := res.Trailer; !strings.Contains(tr.Get("Server-Timing"), "run;dur=1.500") || tr.Get("Paddock-Start") != "warm" ||
			tr.Get("Paddock-Isolation") != "gvisor" || len(tr.Get("Paddock-Container")) != 32 {
			t.Errorf("trailers %v", tr)
		}
	}()
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

// TestStalledBodyStillGetsAnAnswer: the caller stops sending in the middle of the body; the node waits for more of it when
// time is over.
func TestStalledBodyStillGetsAnAnswer(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Timeout = 30 * time.Millisecond })
	g.node.do = func(ctx context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		go io.Copy(io.Discard, req.Stream)
		<-ctx.Done()
		return nil, errs.New(errs.Cancelled, "cancelled")
	}
	for _, protocol := range []string{"HTTP/1", "HTTP/2"} {
		pr, pw := io.Pipe()
		go pw.Write([]byte("the beginning"))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "POST", g.url+"/v1/functions/echo/http/", pr)
		req.Header.Set("Authorization", bearerOf("acme-invoke"))
		client := &http.Client{Transport: &http.Transport{Protocols: &http.Protocols{}}}
		client.Transport.(*http.Transport).Protocols.SetHTTP1(protocol == "HTTP/1")
		client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(protocol == "HTTP/2")
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 504 || !strings.Contains(string(b), `"kind":"timeout"`) {
			t.Errorf("%s: %d %s %v", protocol, res.StatusCode, b, err)
		}
		_ = res.Body.Close()
		_ = pw.Close()
		client.CloseIdleConnections()
	}
	g.idle()
}

func TestIdleStreamEnds(t *testing.T) {
	const idle, parts = time.Second, 8
	g := newRig(t, func(c *Config) { c.StreamIdle = idle })
	g.node.do = func(ctx context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
		_ = sink.Head(200, nil)
		for range parts { // each within idle with much room, all together past it
			time.Sleep(idle / (parts - 2))
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
	if b, err := io.ReadAll(res.Body); string(b) != strings.Repeat("x", parts) || err == nil {
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
	case <-time.After(30 * time.Second):
		t.Fatal("the reader was never woken")
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
}
