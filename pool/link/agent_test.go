package link_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/testenv"
	"paddock/pool/link"
)

// nodeAgent starts the node runtime's agent as a plain process and returns the host's end of its link.
func nodeAgent(t testing.TB, o link.Options) *link.Conn {
	t.Helper()
	c, _ := killableAgent(t, o)
	return c
}

// killableAgent returns what ends its process as well.
func killableAgent(t testing.TB, o link.Options) (*link.Conn, func()) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("these tests need node on PATH: ", err)
	}
	dir := shortDir(t)
	ln, err := link.Listen(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "--experimental-vm-modules", "--no-warnings", "../../runtimes/node/agent.js",
		"--link", filepath.Join(dir, link.SocketName))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := ln.Accept(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Bind("acme", nil)
	return c, func() { _ = cmd.Process.Kill() }
}

func nodeCall(source, body string) *call.Request {
	r := request(body)
	r.Code = codeOf(source)
	return r
}

func wantValue(t *testing.T, c *link.Conn, r *call.Request, want string) {
	t.Helper()
	res, err := c.Do(context.Background(), r, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(res.Value); got != want {
		t.Errorf("%.200s, want %.200s", got, want)
	}
}

func TestNodeAgent(t *testing.T) {
	var mu sync.Mutex
	var lines []call.LogLine
	c := nodeAgent(t, link.Options{OnLog: func(l call.LogLine) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, l)
	}})
	t.Run("value", func(t *testing.T) {
		wantValue(t, c, nodeCall("(x) => ({n: x.n + 1})", `{"n":1}`), `{"n":2}`)
	})
	t.Run("many", func(t *testing.T) {
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				for i := range 50 {
					want := fmt.Sprintf("[%d,%d]", w, i)
					wantValue(t, c, nodeCall("async (x) => x", want), want)
				}
			})
		}
		wg.Wait()
	})
	t.Run("big", func(t *testing.T) {
		body := `"` + strings.Repeat("x", 6<<20-2) + `"`
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { wantValue(t, c, nodeCall("(x) => x", body), body) })
		}
		wg.Wait()
	})
	t.Run("too large", func(t *testing.T) {
		_, err := c.Do(context.Background(), nodeCall("() => 'x'.repeat(7 << 20)", "1"), nil, nil)
		wantKind(t, err, errs.OutputTooLarge, errs.StartedYes)
	})
	t.Run("thrown", func(t *testing.T) {
		_, err := c.Do(context.Background(), nodeCall("() => { throw new RangeError('no') }", "1"), nil, nil)
		if e := wantKind(t, err, errs.UserError, errs.StartedYes); e.Thrown.Name != "RangeError" || e.Thrown.Message != "no" {
			t.Errorf("%+v", e.Thrown)
		}
	})
	t.Run("does not compile", func(t *testing.T) {
		for range 2 {
			_, err := c.Do(context.Background(), nodeCall("(x) => {\n  foo(}\n}", "1"), nil, nil)
			if e := wantKind(t, err, errs.LoadError, errs.StartedNo); e.Thrown.Line != 2 || e.Thrown.Column == 0 {
				t.Errorf("%+v", e.Thrown)
			}
		}
	})
	t.Run("no JSON", func(t *testing.T) {
		_, err := c.Do(context.Background(), nodeCall("(x) => x", "{"), nil, nil)
		wantKind(t, err, errs.Invalid, errs.StartedNo)
	})
	t.Run("cancelled", func(t *testing.T) {
		r := nodeCall("(x, ctx) => new Promise((ok) => ctx.signal.addEventListener('abort', () => ok(1)))", "1")
		r.Deadline = time.Now().Add(500 * time.Millisecond)
		settled := make(chan struct{})
		_, err := c.Do(context.Background(), r, nil, func() { close(settled) })
		wantKind(t, err, errs.Timeout, errs.StartedMaybe)
		<-settled
	})
	t.Run("logs", func(t *testing.T) {
		var sink recorder
		if _, err := c.Do(context.Background(), nodeCall("() => { console.log('hi', 1); return 1 }", "1"), &sink, nil); err != nil {
			t.Fatal(err)
		}
		if len(sink.logs) != 1 || !strings.Contains(sink.logs[0].Text, "hi 1") || sink.logs[0].Level != "info" {
			t.Errorf("%+v", sink.logs)
		}
	})
	t.Run("log flood", func(t *testing.T) {
		r := nodeCall("() => { for (let i = 0; i < 200; i++) console.log('x'.repeat(10000)); return 1 }", "1")
		wantValue(t, c, r, "1")
	})
	t.Run("http", func(t *testing.T) { nodeHTTP(t, c) })
	t.Run("still well", func(t *testing.T) {
		wantValue(t, c, nodeCall("(x) => x", "1"), "1")
		testenv.Await(t, "all settled", func() bool { return c.Running() == 0 })
		if c.Err() != nil || c.TaintReason() != "" {
			t.Errorf("%v, tainted %q", c.Err(), c.TaintReason())
		}
		t.Logf("%+v, %d log lines", c.Stats(), len(lines))
	})
}

func nodeHTTP(t *testing.T, c *link.Conn) {
	const part = 1 << 20
	r := nodeCall(`(ctx, req, res) => {
		let n = 0;
		req.on('data', (d) => { n += d.length; });
		req.on('end', () => {
			res.writeHead(201, {'x-method': req.method, 'x-bytes': String(n)});
			for (let i = 0; i < 16; i++) res.write(Buffer.alloc(65536, 97));
			res.end();
		});
	}`, "")
	r.Via, r.Body = call.ViaHTTP, nil
	r.HTTP = &call.HTTPHead{Method: "PUT", URL: "/x?y=1", Headers: []call.Header{{Name: "Content-Length", Value: fmt.Sprint(3 * part)}}}
	r.Stream = bytes.NewReader(make([]byte, 3*part))
	var sink recorder
	res, err := c.Do(context.Background(), r, &sink, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Streamed || sink.status != 201 || len(sink.data) != part {
		t.Errorf("streamed %v, status %d, %d bytes", res.Streamed, sink.status, len(sink.data))
	}
	if !strings.Contains(fmt.Sprint(sink.headers), fmt.Sprint(3*part)) || !strings.Contains(fmt.Sprint(sink.headers), "PUT") {
		t.Errorf("headers %v", sink.headers)
	}
}

func TestNodeAgentStuck(t *testing.T) {
	c := nodeAgent(t, link.Options{})
	wantValue(t, c, nodeCall("(x) => x", "1"), "1")
	r := nodeCall("() => { for (;;); }", "1")
	r.Deadline = time.Now().Add(300 * time.Millisecond)
	_, err := c.Do(context.Background(), r, nil, nil)
	wantKind(t, err, errs.Timeout, errs.StartedMaybe)
	select {
	case <-c.Tainted():
	case <-time.After(10 * time.Second):
		t.Fatal("not tainted")
	}
	if c.TaintReason() != link.TaintStuck {
		t.Errorf("tainted %q", c.TaintReason())
	}
}

func BenchmarkNodeAgent32(b *testing.B) {
	c := nodeAgent(b, link.Options{})
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			r := nodeCall("(x) => ({ok: true, email: x.user.email})", `{"user":{"email":"a@b.c"}}`)
			for left.Add(-1) >= 0 {
				r.Deadline = time.Now().Add(10 * time.Second)
				if _, err := c.Do(context.Background(), r, nil, nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
