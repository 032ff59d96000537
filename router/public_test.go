package router

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

const (
	own    = "Host: rules.acme.example"
	noKey  = "Authorization: "
	urlKey = "the-url-key"
)

// publicRig has acme's functions open (public), hook (by URL key) and echo (private). Its node answers as HTTP-shaped functions
// do and remembers what it got.
func publicRig(t *testing.T, headers ...call.Header) (*rig, *call.Request) {
	g := newRig(t, nil)
	g.cat.addPublic("open", "")
	g.cat.addPublic("hook", urlKey)
	got := &call.Request{}
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		*got = *req
		if req.Via == call.ViaValue {
			return okResult(req.Body), nil
		}
		if err := sink.Head(200, headers); err != nil {
			return nil, err
		}
		res := okResult(nil)
		res.Streamed = true
		return res, sink.Data([]byte(req.HTTP.URL))
	}
	return g, got
}

// TestPublicFunctions: where they answer, and what they get to see.
func TestPublicFunctions(t *testing.T) {
	g, got := publicRig(t)
	for _, c := range []struct{ method, path, host, says string }{
		{"GET", "/t/acme/open", "", "/"},
		{"GET", "/t/acme/open/a%2Fb/?x=1&key=mine", "", "/a%2Fb/?x=1&key=mine"}, // key is nobody else's here
		{"OPTIONS", "/t/acme/open/x", "", "/x"},
		{"GET", "/open/a?b", own, "/a?b"},
		{"DELETE", "/v1/functions/open/http/a", own, "/a"},
		{"GET", "/t/acme/hook/a?key=" + urlKey, "", "/a"},
		{"POST", "/t/acme/hook?a=1&k%65y=" + urlKey + "&b=%20", "", "/?a=1&b=%20"},
		{"GET", "/hook?key=" + urlKey, own, "/"},
		{"PUT", "/v1/functions/hook/http?key=" + urlKey, own, "/"},
	} {
		a := g.do(c.method, c.path, "", noKey, c.host, "Referer: https://x.example/p?key="+urlKey, "Paddock-Timeout: 1ms", "Paddock-Tenant: other")
		if a.status != 200 || a.body != c.says || got.Tenant != "acme" || got.HTTP.Method != c.method {
			t.Errorf("%s %s: %d %q for %s", c.method, c.path, a.status, a.body, got.Tenant)
		}
		for _, name := range []string{hContainer, hStart, hIsolation, hTiming} {
			if a.header.Get(name) != "" {
				t.Errorf("%s: a stranger is told %s", c.path, name)
			}
		}
		for _, h := range got.HTTP.Headers {
			if strings.HasPrefix(h.Name, "paddock-") || strings.Contains(c.path, "hook") && strings.Contains(h.Value, urlKey) {
				t.Errorf("%s: the function sees %v", c.path, h)
			}
		}
		if got.Deadline.Before(time.Now().Add(time.Second)) {
			t.Errorf("%s: a stranger chose the deadline", c.path)
		}
	}
	for path, want := range map[string]int{
		"/v1/functions/open/invoke": 200, "/v1/functions/hook/invoke?key=" + urlKey: 200, "/v1/functions/hook/invoke?key=x": 404,
		"/v1/functions/echo/invoke": 404, "/v1/functions/open/invoke?fresh=true": 400,
	} {
		if a := g.do("POST", path, "[1]", noKey, own, "Paddock-Fresh: true"); a.status != want || want == 200 && (a.body != "[1]" || got.Fresh) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a := g.do("POST", path, "[1]", noKey); a.status != 401 {
			t.Errorf("%s at the shared origin: %d %s", path, a.status, a.body)
		}
	}
	if logs := g.logs.String(); strings.Contains(logs, urlKey) || strings.Contains(g.do("GET", "/metrics", "").body, urlKey) {
		t.Error("the URL's key is in the logs or the metrics")
	}
	for _, r := range g.records() {
		if strings.Contains(fmt.Sprint(r), urlKey) {
			t.Errorf("the URL's key is in the audit log: %+v", r)
		}
	}
	g.idle()
}

// refusedPublicly are requests for what a stranger may not have, whatever the reason.
var refusedPublicly = []struct{ path, host string }{
	{"/t/absent/open", ""}, {"/t/ACME/open", ""}, {"/t/halted/open", ""}, {"/t/other/open", ""}, {"/t/acme/absent", ""},
	{"/t/acme/echo", ""}, {"/t/acme/hook", ""}, {"/t/acme/hook?key=wrong", ""}, {"/t/acme/hook?key=", ""}, {"/t/acme/hook?key=" + urlKey + "&key=x", ""},
	{"/t/acme/echo?key=" + urlKey, ""}, {"/t/acme/open@3", ""}, {"/t/acme/%6Fpen", ""}, {"/t/acme/..%2Fopen", ""},
	{"/absent", own}, {"/echo", own}, {"/hook?key=wrong", own}, {"/open@3", own}, {"/v1/functions/echo/http", own},
	{"/v1/functions/absent/http", own}, {"/v1/tenants", own}, {"/v1/run", own}, {"/v1/functions", own}, {"/v1/logs", own}, {"/metrics", own},
	{"/healthz", own}, {"/openapi.json", own}, {"/t/acme/open", own}, {"/", own}, {"//open", own},
}

// TestPublicRefusalsLookAlike: no tenant, no function, one that is private, a wrong key: one answer.
func TestPublicRefusalsLookAlike(t *testing.T) {
	g, _ := publicRig(t)
	g.cat.functions["halted/open"] = g.cat.functions["acme/open"]
	g.cat.access["halted/open"] = g.cat.access["acme/open"]
	g.cat.functions["acme/v1"] = g.cat.functions["acme/echo"]
	seen := map[string]string{}
	for _, c := range refusedPublicly {
		a := g.do("GET", c.path, "", noKey, c.host)
		if a.status != 404 {
			t.Errorf("%s %s: %d %s", c.host, c.path, a.status, a.body)
		}
		a.header.Del(hTypeOptions) // which origin it is is known
		if l := look(a); seen[l] == "" {
			seen[l] = c.path
		}
	}
	if len(seen) != 1 {
		for l, path := range seen {
			t.Errorf("%s:\n%s", path, l)
		}
	}
	if n := g.node.calls.Load(); n != 0 {
		t.Errorf("%d calls were served", n)
	}
	denied := 0
	for _, r := range g.records() {
		if strings.HasPrefix(r.Detail["why"], "public_") {
			denied++
		}
	}
	if denied == 0 {
		t.Error("nothing of it is in the audit log")
	}
}

// TestPublicRefusalsTakeTheSameWork: every refusal compares one key.
func TestPublicRefusalsTakeTheSameWork(t *testing.T) {
	g, _ := publicRig(t)
	for _, c := range refusedPublicly {
		if e, _, _ := g.router.tree.match("GET", strings.SplitN(c.path, "?", 2)[0]); c.host != "" || e == nil {
			continue
		}
		before := g.cat.urlChecks.Load()
		g.do("GET", c.path, "", noKey)
		if n := g.cat.urlChecks.Load() - before; n != 1 {
			t.Errorf("%s: %d comparisons", c.path, n)
		}
	}
}

// TestKeysAtOwnHosts: a key of the tenant opens its private functions there, another's does not, and no key opens more than
// functions.
func TestKeysAtOwnHosts(t *testing.T) {
	g, got := publicRig(t)
	for _, c := range []struct {
		key, tenant, path string
		status            int
	}{
		{"acme-invoke", "", "/v1/functions/echo/invoke", 200}, {"op", "", "/v1/functions/echo/invoke", 200},
		{"op", "acme", "/v1/functions/echo/http/x", 200}, {"op", "other", "/v1/functions/echo/invoke", 403},
		{"other-invoke", "", "/v1/functions/echo/invoke", 403}, {"other-invoke", "other", "/v1/functions/open/invoke", 403},
		{"nobody", "", "/v1/functions/open/invoke", 401}, {"acme-admin", "", "/v1/run", 404}, {"op", "acme", "/v1/secrets/X", 404},
		{"acme-invoke", "", "/echo", 404}, {"acme-invoke", "", "/open", 200},
	} {
		a := g.do("POST", c.path, "1", "Authorization: "+bearerOf(c.key), "Paddock-Tenant: "+c.tenant, own)
		if a.status != c.status {
			t.Errorf("%s in %q at %s: %d %s", c.key, c.tenant, c.path, a.status, a.body)
		}
		if got.HTTP != nil && slices.ContainsFunc(got.HTTP.Headers, func(h call.Header) bool { return h.Name == "authorization" }) {
			t.Errorf("%s: the function got a key", c.path)
		}
	}
	g.do("GET", "/open", "", "Authorization: Basic dXNlcjpwYXNz", own)
	if !slices.Contains(got.HTTP.Headers, call.Header{Name: "authorization", Value: "Basic dXNlcjpwYXNz"}) {
		t.Errorf("a stranger's own credential does not reach the function: %v", got.HTTP.Headers)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", bearerOf("op"))
	for _, conn := range []string{g.grpcAddr, strings.TrimPrefix(g.url, "http://")} {
		cc := dialAs(t, conn, "rules.acme.example")
		if _, err := pb.NewPoolsClient(cc).GetPool(ctx, &pb.GetPoolRequest{}); status.Code(err) == codes.OK {
			t.Errorf("management by gRPC at a tenant's own host (%s): %v", conn, err)
		}
	}
}

// TestWhatBrowsersAreTold: cookies and other origins' rights are the function's to give where the origin is its tenant's. At the
// shared one an answer stands apart from all others there.
func TestWhatBrowsersAreTold(t *testing.T) {
	g, got := publicRig(t, call.Header{Name: "Set-Cookie", Value: "a=1; Path=/"}, call.Header{Name: "Set-Cookie", Value: "b=1; domain=acme.example"},
		call.Header{Name: "Set-Cookie", Value: "c=1; Domain=.rules.acme.example; Secure"}, call.Header{Name: "Access-Control-Allow-Origin", Value: "*"},
		call.Header{Name: "Access-Control-Allow-Credentials", Value: "true"}, call.Header{Name: "X-Content-Type-Options", Value: "off"},
		call.Header{Name: "Content-Security-Policy", Value: "default-src 'self'"}, call.Header{Name: "Paddock-Forged", Value: "1"},
		call.Header{Name: "Content-Type", Value: "text/html"}, call.Header{Name: "Strict-Transport-Security", Value: "max-age=1"})
	for _, c := range []struct {
		path, host, auth string
		want             map[string]string
	}{
		{"/t/acme/open", "", noKey, map[string]string{"Set-Cookie": "", "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "",
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'self'|" + sandboxed, "Referrer-Policy": ""}},
		{"/t/acme/hook?key=" + urlKey, "", noKey, map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}},
		{"/v1/functions/open/http", "", "Authorization: " + bearerOf("acme-invoke"), map[string]string{"Set-Cookie": "", "Access-Control-Allow-Origin": "",
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'self'"}},
		{"/open", own, noKey, map[string]string{"Set-Cookie": "a=1; Path=/|c=1; Domain=.rules.acme.example; Secure", "Access-Control-Allow-Origin": "*",
			"Access-Control-Allow-Credentials": "true", "X-Content-Type-Options": "off", "Content-Security-Policy": "default-src 'self'",
			"Strict-Transport-Security": "", "Paddock-Forged": ""}},
	} {
		a := g.do("GET", c.path, "", c.auth, c.host, "Cookie: operators-session=1")
		for name, want := range c.want {
			if v := strings.Join(a.header.Values(name), "|"); v != want {
				t.Errorf("%s %s: %s is %q, want %q", c.host, c.path, name, v, want)
			}
		}
		cookie := slices.ContainsFunc(got.HTTP.Headers, func(h call.Header) bool { return h.Name == "cookie" })
		if want := c.host != "" || c.auth != noKey; cookie != want {
			t.Errorf("%s %s: the function gets cookies: %v", c.host, c.path, cookie)
		}
	}
}

// TestStrangersHearLittle: what failed inside is the tenant's to read, in its calls.
func TestStrangersHearLittle(t *testing.T) {
	g, _ := publicRig(t)
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		return okResult(nil), &errs.Error{Kind: errs.UserError, Message: "canary", Cause: "canary", Thrown: &errs.Thrown{Message: "canary", Stack: "canary"}}
	}
	for _, host := range []string{own, "Host: paddock.example"} {
		path := map[bool]string{true: "/open", false: "/t/acme/open"}[host == own]
		a := g.do("POST", path, "1", noKey, host)
		if a.status != 500 || a.problem.Kind != "user_error" || strings.Contains(a.body, "canary") || strings.Contains(a.body, "acme") {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	g.idle()
}

// TestPublicRate: a function's own rate comes first, its tenant's limits hold as well, and calls with a key do not count.
func TestPublicRate(t *testing.T) {
	g, _ := publicRig(t)
	g.cat.access["acme/open"] = &catalog.AccessView{Mode: catalog.AccessPublic, RatePerSecond: 0.001, RateBurst: 2}
	for i, want := range []int{200, 200, 429} {
		a := g.do("GET", "/t/acme/open", "", noKey)
		if a.status != want {
			t.Errorf("call %d: %d %s", i, a.status, a.body)
		}
		if want == 429 && (a.header.Get("Retry-After") == "" || strings.Contains(a.body, "acme")) {
			t.Errorf("%v %s", a.header, a.body)
		}
	}
	if a := g.do("GET", "/open", "", noKey, own); a.status != 429 {
		t.Errorf("by the other address: %d", a.status)
	}
	if a := g.do("GET", "/v1/functions/open/http", "", own); a.status != 200 {
		t.Errorf("with a key: %d", a.status)
	}
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.RatePerSecond, p.RateBurst = 0.001, 1 })
	g.cat.addPublic("open", "")
	// The function's own bucket, which was empty, fills up now; what it refuses costs the tenant nothing.
	eventually(t, func() bool { return g.do("GET", "/t/acme/open", "", noKey).status == 200 })
	if a := g.do("GET", "/t/acme/open", "", noKey); a.status != 429 {
		t.Errorf("beyond the tenant's rate: %d", a.status)
	}
	g.idle()
}

// TestStrangersLeaveRoom: calls without a key get half of what a tenant may have at once.
func TestStrangersLeaveRoom(t *testing.T) {
	g, _ := publicRig(t)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Concurrency = 4 })
	release, running := make(chan struct{}), make(chan struct{}, 9)
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
		running <- struct{}{}
		<-release
		return okResult([]byte("1")), nil
	}
	done := make(chan int, 9)
	for range 2 {
		go func() { done <- g.do("GET", "/t/acme/open", "", noKey).status }()
		<-running
	}
	if a := g.do("GET", "/t/acme/open", "", noKey); a.status != 429 {
		t.Errorf("a third stranger: %d", a.status)
	}
	go func() { done <- g.do("POST", "/v1/functions/echo/invoke", "1").status }()
	<-running
	close(release)
	for range 3 {
		if s := <-done; s != 200 {
			t.Errorf("%d", s)
		}
	}
	g.idle()
	if g.router.admission.tenants["acme"].strangers != 0 {
		t.Error("strangers are left")
	}
}

// TestPublicByTheLane: the short way serves the same as the long one.
func TestPublicByTheLane(t *testing.T) {
	g, _ := publicRig(t)
	for _, c := range []struct{ path, host string }{
		{"/v1/functions/open/invoke", "rules.acme.example"}, {"/v1/functions/hook/invoke?key=" + urlKey, "rules.acme.example"},
		{"/v1/functions/hook/invoke?key=x", "rules.acme.example"}, {"/v1/functions/echo/invoke", "rules.acme.example"},
		{"/v1/run", "rules.acme.example"}, {"/v1/functions/open/invoke", "paddock.example"},
	} {
		var seen []string
		for _, fields := range []string{"", "Connection: close\r\n"} { // the second goes to net/http
			text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\n%s\r\n1", c.path, c.host, fields)
			a := g.once(text)
			a.header.Del("Connection")
			seen = append(seen, look(a))
		}
		if seen[0] != seen[1] {
			t.Errorf("%s at %s:\n%s\n\n%s", c.path, c.host, seen[0], seen[1])
		}
	}
}

func TestTakeKey(t *testing.T) {
	for query, want := range map[string][2]string{
		"": {"", ""}, "a": {"", "a"}, "key=k": {"k", ""}, "a=1&key=k&b": {"k", "a=1&b"}, "k%65y=%6B": {"k", ""}, "key=k&key=k": {"", ""},
		"Key=k": {"", "Key=k"}, "key": {"", "key"}, "a=1&key": {"", "a=1"}, "%zz=1&key=k": {"k", "%zz=1"}, "key=%zz": {"", ""},
		"key=" + strings.Repeat("x", maxURLKey+1): {"", ""}, "a=key=k": {"", "a=key=k"},
	} {
		key, rest := takeKey(query)
		if key != want[0] || rest != want[1] {
			t.Errorf("%q: %q, %q", query, key, rest)
		}
	}
}

func TestOwnCookie(t *testing.T) {
	for value, want := range map[string]bool{
		"a=1": true, "a=1; Secure": true, "a=Domain=x; Path=/": true, "a=1; Domain=rules.acme.example": true, "a=1;DOMAIN = .Rules.Acme.Example ": true,
		"a=1; Domain=acme.example": false, "a=1; Domain=rules.acme.example; Domain=acme.example": false, "a=1; domain=example": false,
		"a=1; Domain": true, "a=1; Domain=": true, "a=1; Domain=other.example": false,
	} {
		if got := ownCookie(value, "rules.acme.example"); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

// once sends a request as it stands and reads one answer.
func (g *rig) once(text string) (a answerOf) {
	g.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		g.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return answerOf{status: res.StatusCode, header: res.Header, body: string(b)}
}

// dialAs is a connection whose requests name a host.
func dialAs(t *testing.T, addr, host string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}
