package router

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
)

func TestInvokeAnswersTheValue(t *testing.T) {
	g := newRig(t, nil)
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		got = req
		return okResult([]byte(`{"a":1}`)), nil
	}
	a := g.do("POST", "/v1/functions/echo@3/invoke?timeout=3s&fresh=true&idempotent=true&min_revision=7", `{"x":1}`)
	if a.status != 200 || a.body != `{"a":1}` || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %q %v", a.status, a.body, a.header)
	}
	for name, want := range map[string]string{
		"Paddock-Start": "warm", "Paddock-Isolation": "gvisor", "Paddock-Container": "0123456789abcdef0123456789abcdef",
	} {
		if a.header.Get(name) != want {
			t.Errorf("%s: %q", name, a.header.Get(name))
		}
	}
	timing := a.header.Get("Server-Timing")
	if !strings.HasPrefix(timing, "queue;dur=0.001, assign;dur=0.000, load;dur=0.000, run;dur=1.500, total;dur=") {
		t.Errorf("Server-Timing: %q", timing)
	}
	if string(got.ID) != a.header.Get("Paddock-Call-Id") || got.Tenant != "acme" || got.Function != "echo" || got.Version != 3 ||
		!got.Fresh || !got.Idempotent || string(got.Body) != `{"x":1}` || got.Runtime != "node" || got.Code.Source == nil {
		t.Errorf("request: %+v", got)
	}
	if left := time.Until(got.Deadline); left > 3*time.Second || left < 2*time.Second {
		t.Errorf("deadline in %s", left)
	}
	g.idle()
}

func TestEveryKindOverHTTP(t *testing.T) {
	g := newRig(t, nil)
	for _, kind := range errs.Kinds() {
		e := &errs.Error{Kind: kind, Message: "what happened", Cause: "crashed", Err: errBoom, RetryAfter: 1500 * time.Millisecond,
			Thrown: &errs.Thrown{Name: "TypeError", Message: "x", Line: 3}}
		g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { return nil, e }
		a := g.do("POST", "/v1/functions/echo/invoke", `1`)
		row := errs.Lookup(kind)
		p := a.problem
		if a.status != row.HTTP || p.Status != row.HTTP || p.Kind != string(kind) || p.Type != "urn:paddock:error:"+string(kind) ||
			p.Title != row.Title || p.Fault != string(row.Fault) || p.Started != string(row.Started) || p.Cause != "crashed" ||
			p.Thrown == nil || p.Thrown.Line != 3 || string(p.CallID) != a.header.Get("Paddock-Call-Id") {
			t.Errorf("%s: %d %+v", kind, a.status, p)
		}
		started := "maybe"
		if row.Started == errs.StartedNo {
			started = "no"
		}
		if a.header.Get("Paddock-Error") != string(kind) || a.header.Get("Paddock-Started") != started ||
			a.header.Get("Retry-After") != "2" {
			t.Errorf("%s: %v", kind, a.header)
		}
		if strings.Contains(a.body, "secret inside") {
			t.Errorf("%s tells the operator's text: %s", kind, a.body)
		}
		if kind == errs.Internal {
			if strings.Contains(a.body, "what happened") || !strings.Contains(p.Detail, string(p.CallID)) {
				t.Errorf("internal: %q", p.Detail)
			}
			if !strings.Contains(g.logs.String(), errBoom.Error()) {
				t.Error("the log does not have the cause")
			}
		}
	}
	g.idle()
}

func TestBadInputIsNamed(t *testing.T) {
	g := newRig(t, nil)
	js := "Content-Type: application/javascript"
	cases := []struct {
		path, body, field string
		status            int
		says              string
	}{
		{"/v1/functions/echo/invoke", `{`, "", 400, "not JSON"},
		{"/v1/functions/echo/invoke", "\"\xff\"", "", 400, "not UTF-8"},
		{"/v1/functions/echo/invoke", "\"" + strings.Repeat("x", validateBelow) + "\xff\"", "", 400, "not UTF-8 (byte 262145)"},
		{"/v1/functions/echo/invoke", strings.Repeat(" ", 6<<20+1), "", 413, "6291456"},
		{"/v1/run", "[]", "Content-Type: application/json", 400, "it holds no object (array)"},
		{"/v1/run", `{"source":5}`, "Content-Type: application/json", 400, `"source" must not be of type number`},
		{"/v1/run", `{"sorce":""}`, "Content-Type: application/json", 400, `unknown field "sorce"`},
		{"/v1/run", `{"source":`, "Content-Type: application/json", 400, "it ends too early"},
		{"/v1/run", "{\"source\":\"\xff\"}", "Content-Type: application/json", 400, "not UTF-8 (byte 11)"},
		{"/v1/functions/echo/invoke", "", "Content-Encoding: gzip", 0, ""},
		{"/v1/functions/echo/invoke", "1", "Content-Encoding: gzip", 415, "gzip"},
		{"/v1/functions/echo/invoke?timeout=-1s", "1", "", 400, "at most 5m0s"},
		{"/v1/functions/echo/invoke?timeout=0", "1", "", 400, "at most 5m0s"},
		{"/v1/functions/echo/invoke?timeout=301s", "1", "", 400, "at most 5m0s"},
		{"/v1/functions/echo/invoke?timeout=soon", "1", "", 400, "at most 5m0s"},
		{"/v1/functions/echo/invoke?timeuot=1s", "1", "", 400, "timeuot"},
		{"/v1/functions/echo/invoke?fresh=perhaps", "1", "", 400, "true or false"},
		{"/v1/functions/echo/invoke", "1", "Paddock-Timeout: 1h", 400, "at most 5m0s"},
		{"/v1/functions/nope/invoke", "1", "", 404, "paddock functions"},
		{"/v1/functions/echo@9/invoke", "1", "", 404, "echo@9"},
		{"/v1/functions/echo@x/invoke", "1", "", 400, "number"},
		{"/v1/functions/..%2f..%2fx/invoke", "1", "", 400, "letters"},
		{"/v1/functions/a%00b/invoke", "1", "", 400, "letters"},
		{"/v1/functions/odd/invoke", "1", "", 400, "cobol"},
		{"/v1/run", "", js, 400, "empty"},
		{"/v1/run", " \n", js, 400, "empty"},
		{"/v1/run", "a\xff", js, 400, "byte 1"},
		{"/v1/run", strings.Repeat("x", 1<<20+1), js, 413, "1048576"},
		{"/v1/run?kind=poem", "1", js, 400, "poem"},
		{"/v1/run?runtime=cobol", "1", js, 400, "cobol"},
		{"/v1/run?input={", "1", js, 400, "not JSON"},
		{"/v1/run", "1", "Content-Type: application/x-www-form-urlencoded", 415, "application/javascript"},
		{"/v1/run", `{"input":1}`, "Content-Type: application/json", 400, "source"},
		{"/v1/run", `{"source":"1","sauce":1}`, "Content-Type: application/json", 400, "sauce"},
		{"/v1/run", `{"source":"1"} x`, "Content-Type: application/json", 400, "behind"},
		{"/v1/run", `{"source":"1","timeout":"1h"}`, "Content-Type: application/json", 400, "at most 5m0s"},
		{"/v1/nothing", "1", "", 404, "/v1/nothing"},
	}
	for _, c := range cases {
		var fields []string
		if c.field != "" {
			fields = append(fields, c.field)
		}
		if c.status == 0 {
			continue
		}
		a := g.do("POST", c.path, c.body, fields...)
		if a.status != c.status || !strings.Contains(a.problem.Detail, c.says) || a.problem.Started != "no" {
			t.Errorf("POST %s %.20q %v: %d %+v", c.path, c.body, fields, a.status, a.problem)
		}
	}
	if n := g.node.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the node", n)
	}
	if a := g.do("GET", "/v1/run", ""); a.status != 405 {
		t.Errorf("GET /v1/run: %d", a.status)
	}
	g.idle()
}

func TestRunForms(t *testing.T) {
	g := newRig(t, nil)
	var got *call.Request
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		got = req
		return okResult(nil), nil
	}
	a := g.do("POST", "/v1/run?name=check.js&kind=webtask&input=%7B%22a%22%3A1%7D", "return 1",
		"Content-Type: text/javascript; charset=utf-8")
	if a.status != 200 || a.body != "null" || string(got.Code.Source) != "return 1" || got.Code.Name != "check.js" ||
		got.Code.Kind != call.KindWebtask || string(got.Body) != `{"a":1}` || len(got.Code.Hash) != 64 {
		t.Errorf("%d %q %+v", a.status, a.body, got)
	}
	a = g.do("POST", "/v1/run", `{"source":"return 2","input":[1, 2],"timeout":"2s","fresh":true}`, "Content-Type: application/json")
	if a.status != 200 || string(got.Code.Source) != "return 2" || string(got.Body) != "[1, 2]" || !got.Fresh ||
		time.Until(got.Deadline) > 2*time.Second || got.Code.Name != "script.js" {
		t.Errorf("%d %+v", a.status, got)
	}
	if a = g.do("POST", "/v1/functions/echo/invoke", ""); a.status != 200 || string(got.Body) != "null" {
		t.Errorf("empty input: %d %q", a.status, got.Body)
	}
}

func TestCollectedHTTPAnswerIsReplayed(t *testing.T) {
	g := newRig(t, nil)
	g.node.do = func(_ context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
		if err := sink.Head(201, []call.Header{{Name: "X-Own", Value: "yes"}, {Name: "Set-Cookie", Value: "a=b"},
			{Name: "paddock-call-id", Value: "forged"}, {Name: "Content-Type", Value: "text/plain"}}); err != nil {
			return nil, err
		}
		if err := sink.Data([]byte("hello ")); err != nil {
			return nil, err
		}
		res := okResult(nil)
		res.Streamed = true
		return res, sink.Data([]byte("there"))
	}
	a := g.do("POST", "/v1/run", "x", "Content-Type: application/javascript")
	if a.status != 201 || a.body != "hello there" || a.header.Get("X-Own") != "yes" || a.header.Get("Set-Cookie") != "" ||
		a.header.Get("Paddock-Call-Id") == "forged" || a.header.Get("Content-Length") != "11" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		_ = sink.Head(200, nil)
		for chunk := make([]byte, 64<<10); ; {
			if err := sink.Data(chunk); err != nil {
				return nil, errs.New(errs.Cancelled, "the sink would not have it")
			}
		}
	}
	if a = g.do("POST", "/v1/run", "x", "Content-Type: application/javascript"); a.problem.Kind != "output_too_large" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, status := range []int{0, 99, 100, 101, 199, 600, 1000} {
		g.node.do = func(_ context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
			return nil, sink.Head(status, nil)
		}
		if a = g.do("POST", "/v1/run", "x", "Content-Type: application/javascript"); a.problem.Kind != "user_error" {
			t.Errorf("status %d: %d %s", status, a.status, a.body)
		}
	}
	g.idle()
}

func TestLimitsAnswerAtOnce(t *testing.T) {
	g := newRig(t, nil)
	p := *g.cat.tenants["acme"].Policy
	p.Concurrency, p.RatePerSecond, p.RateBurst = 1, 1000, 1000
	g.cat.tenants["acme"].Policy = &p
	inside, release := make(chan struct{}), make(chan struct{})
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		close(inside)
		<-release
		return okResult(nil), nil
	}
	first := make(chan answerOf, 1)
	go func() { first <- g.do("POST", "/v1/functions/echo/invoke", "1") }()
	<-inside
	a := g.do("POST", "/v1/functions/echo/invoke", "1")
	if a.status != 429 || a.problem.Cause != "concurrency" || a.header.Get("Retry-After") == "" || a.problem.Started != "no" {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(release)
	if a = <-first; a.status != 200 {
		t.Errorf("first: %d %s", a.status, a.body)
	}
	g.node.do = nil
	q := p
	q.RatePerSecond, q.RateBurst = 0.5, 1
	g.cat.mu.Lock()
	view := *g.cat.tenants["acme"]
	view.Policy = &q
	g.cat.tenants["acme"] = &view
	g.cat.mu.Unlock()
	limited := 0
	for range 3 {
		if a = g.do("POST", "/v1/functions/echo/invoke", "1"); a.status == 429 {
			limited++
			if a.problem.Cause != "rate" || a.header.Get("Retry-After") == "0" {
				t.Errorf("%+v %v", a.problem, a.header)
			}
		}
	}
	if limited < 2 {
		t.Errorf("%d of 3 were limited", limited)
	}
	g.idle()
}

func TestPanicIsAnAnswer(t *testing.T) {
	g := newRig(t, nil)
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { panic("ouch") }
	if a := g.do("POST", "/v1/functions/echo/invoke", "1"); a.status != 500 || strings.Contains(a.body, "ouch") {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.node.do = func(_ context.Context, _ *call.Request, sink call.Sink) (*call.Result, error) {
		_ = sink.Head(200, nil)
		panic("ouch")
	}
	req, _ := http.NewRequest("GET", g.url+"/v1/functions/echo/http/", nil)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(res.Body); err == nil || len(b) > 0 {
		t.Errorf("after the head: %q %v", b, err)
	}
	_ = res.Body.Close()
	if !strings.Contains(g.logs.String(), "ouch") {
		t.Error("the panic is not in the log")
	}
	g.idle()
}

func TestRetriesOnlyWhatHasNotStarted(t *testing.T) {
	g := newRig(t, nil)
	cases := []struct {
		err   *errs.Error
		query string
		calls int64
	}{
		{&errs.Error{Kind: errs.SandboxLost, Started: errs.StartedNo}, "", maxResolves},
		{&errs.Error{Kind: errs.SandboxLost, Cause: "killed"}, "", 1},
		{&errs.Error{Kind: errs.SandboxLost, Cause: "killed"}, "?idempotent=true", maxResolves},
		{&errs.Error{Kind: errs.SandboxLost, Cause: "crashed"}, "?idempotent=true", 1},
		{&errs.Error{Kind: errs.NoCapacity}, "", 1}, // there is no other node
		{&errs.Error{Kind: errs.Limited}, "", 1},
		{&errs.Error{Kind: errs.Timeout}, "?idempotent=true", 1},
		{&errs.Error{Kind: errs.UserError}, "?idempotent=true", 1},
	}
	for _, c := range cases {
		g.node.calls.Store(0)
		g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { return nil, c.err }
		g.do("POST", "/v1/functions/echo/invoke"+c.query, "1")
		if n := g.node.calls.Load(); n != c.calls {
			t.Errorf("%s %s %s: %d calls, want %d", c.err.Kind, c.err.Cause, c.query, n, c.calls)
		}
	}
}

// A call that never came to a controller is answered in the way that clients repeat; one that may have run is not.
func TestUnreachedIsRepeatable(t *testing.T) {
	g := newRig(t, nil)
	for started, want := range map[errs.Started]int{errs.StartedNo: 503, errs.StartedMaybe: 502} {
		g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
			return nil, &errs.Error{Kind: errs.SandboxLost, Cause: "controller", Started: started, Message: "not there"}
		}
		a := g.do("POST", "/v1/functions/echo/invoke", "1")
		if a.status != want || a.header.Get("Paddock-Started") != string(started) || (want == 503) != (a.header.Get("Retry-After") == "1") {
			t.Errorf("started %s: %d %v %s", started, a.status, a.header, a.body)
		}
	}
}

// A tenant's lost calls are repeated as long as that makes a tenth more calls at most, beyond a few at once; another tenant has a
// budget of its own, and what a controller refuses costs none.
func TestRetryBudget(t *testing.T) {
	g := newRig(t, nil)
	lost := &errs.Error{Kind: errs.SandboxLost, Started: errs.StartedNo}
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { return nil, lost }
	const calls = 100
	for range calls {
		g.do("POST", "/v1/functions/echo/invoke", "1")
	}
	if n := g.node.calls.Load() - calls; n < retryBurst || n > retryBurst+calls*retryShare {
		t.Errorf("%d repeats of %d calls", n, calls)
	}
	a := newAdmission(10)
	p := tenant.DefaultPolicy()
	p.RatePerSecond, p.RateBurst = 1e6, 1e6
	s, _ := a.take("acme", &p, false, time.Now())
	for a.spendRetry(s) {
	}
	if other, _ := a.take("other", &p, false, time.Now()); !a.spendRetry(other) {
		t.Error("one tenant spends another's budget")
	}
}

func TestCallerGoneFreesTheSlot(t *testing.T) {
	g := newRig(t, nil)
	inside := make(chan struct{})
	ended := make(chan struct{})
	g.node.do = func(ctx context.Context, _ *call.Request, _ call.Sink) (*call.Result, error) {
		close(inside)
		<-ctx.Done()
		defer close(ended)
		return nil, errs.New(errs.Cancelled, "gone")
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "POST", g.url+"/v1/functions/echo/invoke", strings.NewReader("1"))
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	failed := make(chan error, 1)
	go func() { _, err := g.client.Do(req); failed <- err }()
	<-inside
	cancel()
	<-ended
	if err := <-failed; err == nil {
		t.Fatal("no error")
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

// eventually waits for what another goroutine is about to do.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	testenv.Await(t, "what the test waits for", ok)
}

func TestMinRevisionWaits(t *testing.T) {
	g := newRig(t, nil)
	a := g.do("POST", "/v1/functions/echo/invoke?min_revision=8&timeout=50ms", "1")
	if a.status != 503 || !strings.Contains(a.problem.Detail, "revision 8") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
