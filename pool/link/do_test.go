package link_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/testenv"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

func TestEcho(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{})
	if h := c.Hello(); h.Runtime != "node" || h.Protocol != 1 {
		t.Errorf("hello %+v", h)
	}
	settled := 0
	for range 3 {
		res, err := c.Do(context.Background(), request(`{"a":1}`), nil, func() { settled++ })
		if err != nil {
			t.Fatal(err)
		}
		if string(res.Value) != `{"a":1}` || res.Container != "c0ffee" || res.Streamed {
			t.Errorf("result %+v", res)
		}
	}
	if settled != 3 || c.Running() != 0 {
		t.Errorf("settled %d times, running %d", settled, c.Running())
	}
}

func TestInvokeHead(t *testing.T) {
	var got link.InvokeHead
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		got = k.InvokeHead
		return k.Source, nil
	}})
	r := request("")
	r.Via = call.ViaHTTP
	r.Code.Kind = call.KindWebtask
	r.Code.Source = bytes.Repeat([]byte("/* long */"), 30_000)
	r.Function = "a \"quoted\"\n\u2028 name\x01\xff"
	r.Secrets = map[string]string{"K": "s3cr\\et", "A": "ü"}
	r.SecretsRev = "7"
	r.Config = map[string]string{"x": ""}
	r.HTTP = &call.HTTPHead{Method: "POST", URL: "/x?y=1", Headers: []call.Header{{Name: "a", Value: "b"}, {Name: "a", Value: "c"}}}
	r.Policy.OutputBytes = 1 << 20
	res, err := c.Do(context.Background(), r, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(res.Value, r.Code.Source) {
		t.Errorf("source of %d bytes arrived as %d", len(r.Code.Source), len(res.Value))
	}
	if got.MS <= 0 || got.MS > time.Minute.Milliseconds() {
		t.Errorf("ms %d", got.MS)
	}
	got.MS = 0
	want := link.InvokeHead{
		ID: string(r.ID), Code: r.Code.Hash, Kind: "webtask", Via: "http", Rev: "7", Secrets: r.Secrets, Config: r.Config,
		Name: "a \"quoted\"\n\u2028 name\x01\ufffd", Tenant: "acme", MaxOutput: 1 << 20,
		HTTP: &link.InvokeHTTP{Method: "POST", URL: "/x?y=1", Headers: [][2]string{{"a", "b"}, {"a", "c"}}},
	}
	if !equalJSON(got, want) {
		t.Errorf("head\n%+v, want\n%+v", got, want)
	}
}

func TestManyAtOnce(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		return []byte(`"` + string(k.Body()) + `"`), nil
	}})
	var wg sync.WaitGroup
	var settled atomic.Int64
	for w := range 32 {
		wg.Go(func() {
			for i := range 200 {
				body := fmt.Sprintf("%d-%d", w, i)
				res, err := c.Do(context.Background(), request(body), nil, func() { settled.Add(1) })
				if err != nil || string(res.Value) != `"`+body+`"` {
					t.Errorf("%s: %v %v", body, res, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if settled.Load() != 32*200 || c.Running() != 0 {
		t.Errorf("settled %d, running %d", settled.Load(), c.Running())
	}
}

func TestBigBodies(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprint(i), 5<<20+i)
			res, err := c.Do(context.Background(), request(body), nil, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if string(res.Value) != body {
				t.Errorf("%d bytes came back as %d", len(body), len(res.Value))
			}
		})
	}
	wg.Wait()
}

func TestThrown(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(context.Context, *linktest.Call) ([]byte, error) {
		return nil, &linktest.Thrown{ErrorHead: link.ErrorHead{
			Name: "TypeError", Message: strings.Repeat("m", 9<<10), Stack: "at x", Code: []byte(`42`), StatusCode: []byte(`"x"`),
		}}
	}})
	_, err := c.Do(context.Background(), request("1"), nil, nil)
	e := wantKind(t, err, errs.UserError, errs.StartedYes)
	if th := e.Thrown; th.Name != "TypeError" || len(th.Message) != 8<<10 || th.Stack != "at x" || th.Code != "42" || th.StatusCode != 0 {
		t.Errorf("thrown %+v", e.Thrown)
	}
}

func TestLoadError(t *testing.T) {
	loads := 0
	c, _ := pair(t, link.Options{}, linktest.Options{Load: func(*linktest.Agent, link.LoadHead, []byte) *linktest.Thrown {
		loads++
		return &linktest.Thrown{ErrorHead: link.ErrorHead{Name: "SyntaxError", Message: "no", Line: 3, Column: 7, Excerpt: "x y"}}
	}})
	for range 2 {
		_, err := c.Do(context.Background(), request("1"), nil, nil)
		e := wantKind(t, err, errs.LoadError, errs.StartedNo)
		if e.Thrown.Line != 3 || e.Thrown.Column != 7 || e.Thrown.Excerpt != "x y" {
			t.Errorf("thrown %+v", e.Thrown)
		}
	}
	if c.Running() != 0 {
		t.Errorf("running %d", c.Running())
	}
}

func TestLoadOnce(t *testing.T) {
	var loads atomic.Int64
	c, a := pair(t, link.Options{}, linktest.Options{Load: func(*linktest.Agent, link.LoadHead, []byte) *linktest.Thrown {
		loads.Add(1)
		return nil
	}})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := c.Do(context.Background(), request("1"), nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("%d LOADs", n)
	}
	a.Forget()
	if _, err := c.Do(context.Background(), request("1"), nil, nil); err != nil {
		t.Errorf("after the agent forgot the code: %v", err)
	}
	if n := loads.Load(); n != 2 {
		t.Errorf("%d LOADs, want 2", n)
	}
}

func TestNeverLoaded(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(context.Context, *linktest.Call) ([]byte, error) {
		return nil, linktest.ErrNotLoaded
	}})
	settled := 0
	_, err := c.Do(context.Background(), request("1"), nil, func() { settled++ })
	wantKind(t, err, errs.Internal, errs.StartedNo)
	if settled != 1 || c.Running() != 0 {
		t.Errorf("settled %d, running %d", settled, c.Running())
	}
}

func TestStreamedAnswer(t *testing.T) {
	part := bytes.Repeat([]byte("p"), 100_000)
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		k.Head(201, [2]string{"X-A", "1"}, [2]string{"Bad\nName", "1"}, [2]string{"Set-Cookie", "a\r\nb"})
		for range 50 {
			if err := k.Data(part); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}})
	r := request("")
	r.Via = call.ViaHTTP
	var sink recorder
	res, err := c.Do(context.Background(), r, &sink, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Streamed || sink.status != 201 || len(sink.headers) != 1 || len(sink.data) != 50*len(part) {
		t.Errorf("streamed %v, status %d, headers %v, %d bytes", res.Streamed, sink.status, sink.headers, len(sink.data))
	}
	if c.Stats().BadHeaders != 2 {
		t.Errorf("%+v", c.Stats())
	}
	if _, err := c.Do(context.Background(), r, nil, nil); !errs.Is(err, errs.UserError) {
		t.Errorf("without a sink: %v", err)
	}
}

func TestStreamedInput(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		n, err := io.Copy(io.Discard, k)
		return fmt.Append(nil, n), err
	}})
	for _, size := range []int64{0, 1, 64 << 10, 20 << 20} {
		r := request("")
		r.Body, r.Stream = nil, io.LimitReader(zeros{}, size)
		r.Via = call.ViaHTTP
		res, err := c.Do(context.Background(), r, nil, nil)
		if err != nil || string(res.Value) != fmt.Sprint(size) {
			t.Errorf("%d: %v %v", size, res, err)
		}
	}
	r := request("")
	r.Stream = io.MultiReader(io.LimitReader(zeros{}, 1000), failing{})
	_, err := c.Do(context.Background(), r, nil, nil)
	wantKind(t, err, errs.Cancelled, errs.StartedMaybe)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestBackPressure(t *testing.T) {
	var sent atomic.Int64
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		k.Head(200)
		for range 100 {
			if err := k.Data(make([]byte, link.MaxBody)); err != nil {
				return nil, err
			}
			sent.Add(link.MaxBody)
		}
		return nil, nil
	}})
	r := request("")
	r.Via = call.ViaHTTP
	sink := &recorder{gate: make(chan struct{}), inside: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := c.Do(context.Background(), r, sink, nil)
		done <- err
	}()
	<-sink.inside
	// Other calls go on while this reader sleeps: the link is not blocked.
	for range 100 {
		r := request("")
		r.Via = call.ViaHTTP
		if _, err := c.Do(context.Background(), r, nil, nil); !errs.Is(err, errs.UserError) {
			t.Fatal(err)
		}
	}
	if n := sent.Load(); n > 101*link.DefaultStreamWindow {
		t.Errorf("%d bytes sent", n)
	}
	close(sink.gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(sink.data) != 100*link.MaxBody {
		t.Errorf("%d bytes", len(sink.data))
	}
}

func TestTooLarge(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		if k.Via == "http" || k.Config["stream"] != "" {
			k.Head(200)
			for range 40 {
				if err := k.Data(make([]byte, link.MaxBody)); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}
		return make([]byte, 2<<20), nil
	}})
	r := request("1")
	r.Policy.OutputBytes = 1 << 20
	_, err := c.Do(context.Background(), r, nil, nil)
	wantKind(t, err, errs.OutputTooLarge, errs.StartedYes)

	r = request("1")
	r.Policy.OutputBytes, r.Config = 1<<20, map[string]string{"stream": "1"}
	_, err = c.Do(context.Background(), r, &recorder{}, nil)
	wantKind(t, err, errs.OutputTooLarge, errs.StartedYes)

	r.Via = call.ViaHTTP
	if _, err = c.Do(context.Background(), r, &recorder{}, nil); err != nil {
		t.Errorf("streamed answers have no limit: %v", err)
	}
	testenv.Await(t, "everything settled", func() bool { return c.Running() == 0 })
	if _, err := c.Do(context.Background(), request("1"), nil, nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestLogs(t *testing.T) {
	var mu sync.Mutex
	var lines []call.LogLine
	late := make(chan struct{})
	c, a := pair(t, link.Options{OnLog: func(l call.LogLine) {
		mu.Lock()
		defer mu.Unlock()
		if lines = append(lines, l); l.Text == "late" {
			close(late)
		}
	}}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		k.Log("warn", "hello \xff")
		k.Answer([]byte("1"))
		k.Log("info", "late")
		return nil, nil
	}})
	a.Log("error", "outside")
	var sink recorder
	if _, err := c.Do(context.Background(), request("1"), &sink, nil); err != nil {
		t.Fatal(err)
	}
	<-late
	mu.Lock()
	defer mu.Unlock()
	if len(lines) != 3 || lines[0].Call != "" || lines[0].Text != "outside" {
		t.Fatalf("lines %+v", lines)
	}
	for _, l := range lines[1:] {
		if l.Call != request("").ID || l.Function != "f" || l.Tenant != "acme" || l.Container != "c0ffee" {
			t.Errorf("line %+v", l)
		}
	}
	if lines[1].Level != "warn" || lines[1].Text != "hello ?" || time.Since(lines[1].Time) > 20*time.Second {
		t.Errorf("line %+v", lines[1])
	}
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if len(sink.logs) == 0 || sink.logs[0].Text != "hello ?" {
		t.Errorf("sink's lines %+v", sink.logs)
	}
}

func TestPing(t *testing.T) {
	c, a := pair(t, link.Options{}, linktest.Options{})
	if err := c.Ping(context.Background()); err != nil {
		t.Fatal(err)
	}
	unstick := a.Stick()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx); err == nil {
		t.Error("a stuck agent answered")
	}
	unstick()
	if err := c.Ping(context.Background()); err != nil {
		t.Errorf("after a late PONG: %v", err)
	}
}
