package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"paddock/client"
	"paddock/internal/testenv"
)

// What Go programs see of the service with real sandboxes: management, calls one by one and on a stream, HTTP, logs, and a stop in
// the middle.
func TestGoClient(t *testing.T) {
	s := newSite(t, "oci", "runc")
	s.start()
	key, err := os.ReadFile(filepath.Join(s.data, "operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	operator := goClient(t, client.Options{Address: strings.TrimPrefix(s.HTTP, "http://"), Key: strings.TrimSpace(string(key))})
	if _, err := operator.Tenants().Create(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	_, secret, err := operator.Keys().Create(ctx, client.NewKey{Tenant: "acme", Role: "tenant-admin"})
	if err != nil {
		t.Fatal(err)
	}
	c := goClient(t, client.Options{Address: s.HTTP, Key: secret})

	t.Run("Functions", func(t *testing.T) { goFunctions(ctx, t, c) })
	t.Run("Failures", func(t *testing.T) { goFailures(ctx, t, c) })
	t.Run("Pipelines", func(t *testing.T) { goPipelines(ctx, t, c) })
	t.Run("Stream", func(t *testing.T) { goStream(ctx, t, c) })
	t.Run("Web", func(t *testing.T) { goWeb(ctx, t, c) })
	t.Run("Tenants", func(t *testing.T) { goTenants(ctx, t, operator, c) })
}

func goClient(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func goDeploy(ctx context.Context, t *testing.T, c *client.Client, name, source string) *client.Function {
	t.Helper()
	f, err := c.Functions().Deploy(ctx, &client.Deployment{Name: name, Source: []byte(source)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func goFunctions(ctx context.Context, t *testing.T, c *client.Client) {
	if _, err := c.Secrets().Set(ctx, "FACTOR", "", "3"); err != nil {
		t.Fatal(err)
	}
	goDeploy(ctx, t, c, "times", "(n, ctx) => n * 2")
	f := goDeploy(ctx, t, c, "times", "(n, ctx) => { console.log('n is', n); return n * Number(ctx.secrets.FACTOR) }")
	res, err := c.Do(ctx, client.Call{Function: "times", Input: []byte("7"), MinRevision: f.GetRevision(), WithLogs: true})
	if err != nil || string(res.GetOutput()) != "21" || len(res.GetLogs()) != 1 || res.GetLogs()[0].GetText() != "n is 7" {
		t.Errorf("%v %v", res, err)
	}
	times := client.Func[int, int](c, "times@1")
	if n, err := times(ctx, 7); err != nil || n != 14 {
		t.Errorf("%d %v", n, err)
	}
	if f, err = c.Functions().Rollback(ctx, "times", f.GetRevision()); err != nil || f.GetVersion() != 1 {
		t.Errorf("%v %v", f, err)
	}
	if _, err := c.Functions().Activate(ctx, "times", 2, 0, f.GetRevision()-1); client.KindOf(err) != client.Conflict {
		t.Errorf("a write on what was changed since: %v", err)
	}
	versions, err := c.Functions().Versions(ctx, "times")
	if err != nil || len(versions) != 2 || versions[0].GetNumber() != 2 || !versions[1].GetActive() {
		t.Errorf("%v %v", versions, err)
	}
	if diff, err := c.Functions().Diff(ctx, "times", 1, 2); err != nil || !strings.Contains(diff, "+(n, ctx) => { console") {
		t.Errorf("%q %v", diff, err)
	}
	if out, err := c.Run(ctx, "n => n + 1", []byte("1")); err != nil || string(out) != "2" {
		t.Errorf("%s %v", out, err)
	}
	testenv.Await(t, "the call's line in the log", func() bool {
		for l, err := range c.Logs().Tail(ctx, &client.Tail{CallId: res.GetCallId()}) {
			if err != nil {
				t.Fatal(err)
			}
			if l.GetText() == "n is 7" {
				return true
			}
		}
		return false
	})
	testenv.Await(t, "the call in the history", func() bool {
		calls, missing, err := c.Logs().Calls(ctx, &client.CallFilter{CallId: res.GetCallId()})
		if err != nil {
			t.Fatal(err)
		}
		return len(missing) == 0 && len(calls) == 1 && calls[0].GetVersion() == 2
	})
}

func goFailures(ctx context.Context, t *testing.T, c *client.Client) {
	goDeploy(ctx, t, c, "throws", "() => { throw new TypeError('no') }")
	var e *client.Error
	if _, err := c.Invoke(ctx, "throws", nil); !errors.As(err, &e) || e.Kind != client.UserError || e.Thrown.GetName() != "TypeError" ||
		e.Started != client.StartedYes || e.CallID == "" {
		t.Errorf("%+v", err)
	}
	if _, err := c.Invoke(ctx, "nobody", nil); !errors.As(err, &e) || e.Kind != client.NotFound || e.Started != client.StartedNo {
		t.Errorf("%+v", err)
	}
	_, err := c.Functions().Deploy(ctx, &client.Deployment{Name: "broken", Source: []byte("() => {\n  return )\n}")})
	if !errors.As(err, &e) || e.Kind != client.LoadError || e.Thrown.GetLine() != 2 || !strings.Contains(err.Error(), "(line 2, column ") {
		t.Errorf("%+v", err)
	}
	if _, err := c.Do(ctx, client.Call{Source: &client.Source{Code: []byte("() => { for (;;); }")}, Timeout: 300 * time.Millisecond}); !errors.As(err, &e) ||
		e.Kind != client.Timeout || e.Started != client.StartedMaybe || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v", err)
	}
	if _, err := c.Tenants().Create(ctx, "mine", nil); client.KindOf(err) != client.Denied {
		t.Errorf("%v", err)
	}
}

func goPipelines(ctx context.Context, t *testing.T, c *client.Client) {
	p, functions, err := c.Pipelines().Publish(ctx, &client.Pipeline{Name: "login", Steps: []*client.PipelineStep{{Function: "staff"}}},
		[]*client.Deployment{{Name: "staff", Source: []byte(`function (user, context, callback) {
			if (!user.email.endsWith('@acme.example')) return callback(new UnauthorizedError('staff only'));
			callback(null, user, context);
		}`)}}, 0)
	if err != nil || len(functions) != 1 {
		t.Fatalf("%v %v", functions, err)
	}
	type login struct {
		User    map[string]any `json:"user"`
		Context map[string]any `json:"context"`
	}
	in := login{User: map[string]any{"email": "a@acme.example"}, Context: map[string]any{}}
	out, err := client.PipelineFunc[login, login](c, p.GetName())(ctx, in)
	if err != nil || out.User["email"] != "a@acme.example" {
		t.Errorf("%v %v", out, err)
	}
	in.User["email"] = "a@evil.example"
	var e *client.Error
	if _, err := client.PipelineFunc[login, login](c, p.GetName())(ctx, in); !errors.As(err, &e) || e.Kind != client.Refused ||
		e.Thrown.GetMessage() != "staff only" {
		t.Errorf("%+v", err)
	}
}

func goStream(ctx context.Context, t *testing.T, c *client.Client) {
	goDeploy(ctx, t, c, "square", "n => n * n")
	s := c.Stream()
	defer s.Close()
	square := client.Func[int, int](s, "square")
	const calls = 40
	got := make(chan error, calls)
	for n := range calls {
		go func() {
			v, err := square(ctx, n)
			if err == nil && v != n*n {
				err = errors.New(strconv.Itoa(n) + " squared is " + strconv.Itoa(v))
			}
			got <- err
		}()
	}
	for range calls {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	short, cancel := context.WithCancel(ctx)
	waits := client.Call{Source: &client.Source{Code: []byte("(i, ctx) => new Promise(r => { console.log('in'); ctx.signal.onabort = r })")}}
	waits.OnLog = func(*client.LogLine) { cancel() }
	var e *client.Error
	if _, err := s.Do(short, waits); !errors.As(err, &e) || e.Kind != client.Cancelled || e.Started != client.StartedMaybe {
		t.Errorf("%+v", err)
	}
}

func goWeb(ctx context.Context, t *testing.T, c *client.Client) {
	goDeploy(ctx, t, c, "web", `(ctx, req, res) => {
		if (req.url === '/cut') { res.write('half'); setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50); return }
		if (req.url === '/throw') throw new Error('no')
		res.setHeader('X-Url', req.url)
		req.pipe(res)
	}`)
	w := c.Web("web")
	do := func(path string, body io.Reader) (string, string, error) {
		req, err := w.Request(ctx, "POST", path, body, client.WebOptions{Timeout: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.Do(req)
		if err != nil {
			return "", "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return res.Header.Get("X-Url"), string(b), err
	}
	large := bytes.Repeat([]byte("0123456789"), 100_000)
	if at, body, err := do("/a?b=c", bytes.NewReader(large)); err != nil || at != "/a?b=c" || body != string(large) {
		t.Errorf("%q, %d bytes, %v", at, len(body), err)
	}
	var e *client.Error
	if _, _, err := do("/throw", nil); !errors.As(err, &e) || e.Kind != client.UserError || e.Thrown.GetMessage() != "no" {
		t.Errorf("%+v", err)
	}
	if _, body, err := do("/cut", nil); !errors.As(err, &e) || e.Kind != client.SandboxLost || body != "half" {
		t.Errorf("%q %+v", body, err)
	}
}

func goTenants(ctx context.Context, t *testing.T, operator, c *client.Client) {
	found := false
	for tenant, err := range operator.Tenants().All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		found = found || tenant.GetId() == "acme"
	}
	if !found {
		t.Error("acme is not among the tenants")
	}
	if own, err := c.Tenants().Get(ctx, ""); err != nil || own.GetId() != "acme" || own.GetUsage().GetFunctions() == 0 {
		t.Errorf("the key's own tenant: %v, %v", own, err)
	}
	if _, err := c.Tenants().Get(ctx, "globex"); client.KindOf(err) != client.Denied {
		t.Errorf("another's: %v", err)
	}
	if _, err := operator.Tenants().Suspend(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Run(ctx, "() => 1", nil); client.KindOf(err) != client.Denied {
		t.Errorf("of a suspended tenant: %v", err)
	}
	if err := operator.Tenants().Delete(ctx, "acme"); err != nil {
		t.Error(err)
	}
}
