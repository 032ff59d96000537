package egress

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"paddock/internal/tenant"
)

const sesame = "open-sesame-12345" // the secret that no container may see

// api is an HTTPS server outside, for example.com, that remembers what it was asked.
type api struct {
	*httptest.Server
	mu    sync.Mutex
	asked []*http.Request
	conns int
}

// newAPI serves what handle says.
func newAPI(t *testing.T, handle http.HandlerFunc) *api {
	a := &api{}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.asked = append(a.asked, r)
		a.mu.Unlock()
		handle(w, r)
	}))
	a.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			a.mu.Lock()
			a.conns++
			a.mu.Unlock()
		}
	}
	a.Config.ErrorLog = log.New(io.Discard, "", 0)
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

func (a *api) requests() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// roots trusts the server's certificate, which is for example.com.
func (a *api) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate())
	return pool
}

// newInjecting is a world in which example.com:443 is an api that tenants may reach, with the secret in Authorization.
func newInjecting(t *testing.T, a *api, change func(*Options)) *world {
	w := newWorld(t, func(o *Options) {
		o.Roots = a.roots()
		if change != nil {
			change(o)
		}
		record := o.Dial
		o.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to.Port() != portHTTPS {
				return record(ctx, to)
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", a.Listener.Addr().String())
		}
	})
	w.name("example.com", "93.184.216.34")
	w.inject("example.com:443", tenant.Injection{Host: "example.com", Header: "authorization", Prefix: "Bearer ", Secret: "KEY"})
	w.d.SetSecrets(map[string]string{"KEY": sesame, "OTHER": "other"})
	return w
}

func (w *world) inject(allow string, list ...tenant.Injection) {
	w.t.Helper()
	r := Rules{}
	for f := range strings.FieldsSeq(allow) {
		rule, err := ParseRule(f)
		if err != nil {
			w.t.Fatal(err)
		}
		r.Allow = append(r.Allow, rule)
	}
	for _, in := range list {
		inj, err := ParseInjection(in)
		if err != nil {
			w.t.Fatal(err)
		}
		r.Inject = append(r.Inject, inj)
	}
	w.d.SetRules("acme", r)
}

// open connects to example.com:80.
func (w *world) open() (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, in, res := w.connect("example.com:80")
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(in)
		w.t.Fatalf("CONNECT: %d %s", res.StatusCode, body)
	}
	return c, in
}

// ask sends raw bytes through a tunnel and reads one answer, whole.
func (w *world) ask(c net.Conn, in *bufio.Reader, raw string) (*http.Response, string) {
	w.t.Helper()
	io.WriteString(c, raw)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		w.t.Fatalf("%.80q: %v", raw, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%.80q: %v", raw, err)
	}
	var all strings.Builder
	res.Header.Write(&all)
	if strings.Contains(all.String()+string(body), sesame) {
		w.t.Errorf("%.80q: the answer has the secret: %s%s", raw, all.String(), body)
	}
	return res, string(body)
}

func TestInjection(t *testing.T) {
	a := newAPI(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-Answer", "yes")
		fmt.Fprintf(w, "%s %s %q", r.Method, r.RequestURI, body)
	})
	w := newInjecting(t, a, nil)
	c, in := w.open()
	res, body := w.ask(c, in, "GET /a%2Fb/../c?x=1;y=%zz&z HTTP/1.1\r\nHost: EXAMPLE.com:80\r\nX-Mine: 1\r\nAuthorization: Bearer mine\r\n"+
		"authorization: again\r\nConnection: Authorization, X-Mine\r\nX-Forwarded-For: 1.2.3.4\r\nProxy-Authorization: x\r\nTe: trailers\r\n\r\n")
	if res.StatusCode != 200 || body != `GET /a%2Fb/../c?x=1;y=%zz&z ""` || res.Header.Get("X-Answer") != "yes" || res.Header.Get("Keep-Alive") != "" {
		t.Errorf("answer %d %v %s", res.StatusCode, res.Header, body)
	}
	res, body = w.ask(c, in, "POST /upload HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n"+
		"AUTHORIZATION: mine\r\nAuthorization_: kept\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: trailer\r\n\r\n")
	if res.StatusCode == http.StatusContinue {
		res, body = w.ask(c, in, "")
	}
	if body != `POST /upload "hello"` {
		t.Errorf("answer %d %s", res.StatusCode, body)
	}
	w.d.SetSecrets(map[string]string{"KEY": "changed"})
	w.ask(c, in, "DELETE /last HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
	waitUntil(t, func() bool { return len(w.heard()) == 2 })
	for i, r := range a.requests() {
		want := "Bearer " + sesame
		if i == 2 {
			want = "Bearer changed"
		}
		if got := r.Header.Values("Authorization"); len(got) != 1 || got[0] != want {
			t.Errorf("request %d came with Authorization %q", i, got)
		}
		for _, name := range []string{"X-Forwarded-For", "Proxy-Authorization", "Te", "X-Mine", "Expect"} {
			if v := r.Header.Values(name); len(v) != 0 {
				t.Errorf("request %d came with %s: %s", i, name, v)
			}
		}
		if r.Host != "example.com" || r.TLS == nil || len(r.Trailer) != 0 {
			t.Errorf("request %d: host %s, TLS %v, trailer %v", i, r.Host, r.TLS != nil, r.Trailer)
		}
	}
	if n := len(a.requests()); n != 3 || a.conns != 1 {
		t.Errorf("%d requests on %d connections", n, a.conns)
	}
	heard := w.heard()
	if d := heard[len(heard)-1]; len(heard) != 2 || d.Event != EventClosed || d.Requests != 3 || !slices.Equal(d.Secrets, []string{"KEY"}) ||
		d.Host != "example.com" || d.Port != portHTTPS || d.BytesIn == 0 || strings.Contains(fmt.Sprint(heard), sesame) {
		t.Errorf("told %+v", heard)
	}
}

// TestHeadersThatLookAlike: what some servers take for the same header does not go along either.
func TestHeadersThatLookAlike(t *testing.T) {
	a := newAPI(t, func(http.ResponseWriter, *http.Request) {})
	w := newInjecting(t, a, nil)
	w.inject("*:443", tenant.Injection{Host: "example.com", Header: "X-Api-Key", Secret: "KEY"},
		tenant.Injection{Host: "example.com", Header: "X-Tenant", Secret: "OTHER"})
	c, in := w.open()
	w.ask(c, in, "GET / HTTP/1.1\r\nHost: example.com\r\nX_Api_Key: mine\r\nx-api_key: mine\r\nX-Api-Key: mine\r\nX-Api-Key2: mine\r\n\r\n")
	r := a.requests()[0]
	if r.Header.Get("X-Api-Key") != sesame || r.Header.Get("X-Tenant") != "other" || len(r.Header["X_api_key"])+len(r.Header["X-Api_key"]) != 0 ||
		r.Header.Get("X-Api-Key2") != "mine" {
		t.Errorf("came with %v", r.Header)
	}
}

func TestInjectionRefuses(t *testing.T) {
	a := newAPI(t, func(http.ResponseWriter, *http.Request) {})
	w := newInjecting(t, a, func(o *Options) { o.HeadTimeout = 300 * time.Millisecond })
	const host = "Host: example.com\r\n"
	for raw, want := range map[string]int{
		"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n":                                421,
		"GET / HTTP/1.1\r\nHost: example.com:443\r\n\r\n":                              421,
		"GET http://other.example/ HTTP/1.1\r\n" + host + "\r\n":                       421,
		"GET / HTTP/1.0\r\n\r\n":                                                       421,
		"GET / HTTP/1.1\r\n\r\n":                                                       400,
		"GET / HTTP/1.1\r\n" + host + "Host: other.example\r\n\r\n":                    400,
		"TRACE / HTTP/1.1\r\n" + host + "\r\n":                                         405,
		"TRACK / HTTP/1.1\r\n" + host + "\r\n":                                         405,
		"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n":              405,
		"OPTIONS * HTTP/1.1\r\n" + host + "\r\n":                                       400,
		"GET / HTTP/1.1\r\n" + host + "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n":    501,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                             421,
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999\r\n\r\n":           413,
		"GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n": 431,
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n":                         400,
		// What two readers might cut differently.
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!":                      400,
		"POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello":                                           400,
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n":                     501,
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 501,
		"GET / HTTP/1.1\r\n" + host + "X : y\r\n\r\n":                                                              400,
		"GET / HTTP/1.1\r\n" + host + " folded: y\r\n\r\n":                                                         400,
		"GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n":                                                          400,
	} {
		c, in := w.open()
		res, _ := w.ask(c, in, raw)
		if res.StatusCode != want {
			t.Errorf("%.90q: %d, want %d", raw, res.StatusCode, want)
		}
		if _, err := in.ReadByte(); err == nil {
			t.Errorf("%.90q: more than one answer", raw)
		}
		c.Close()
	}
	if n := len(a.requests()); n != 0 {
		t.Errorf("%d of them went out", n)
	}
	c, in := w.open() // never says anything
	defer c.Close()
	closed(t, in)
}

// TestSmuggling: a request inside of another's body stays there.
func TestSmuggling(t *testing.T) {
	a := newAPI(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	w := newInjecting(t, a, nil)
	const inner = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n"
	for _, raw := range []string{
		fmt.Sprintf("POST /outer HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n%s", len(inner), inner),
		fmt.Sprintf("POST /outer HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			len(inner), inner),
	} {
		c, in := w.open()
		w.ask(c, in, raw)
		c.Close()
	}
	for _, r := range a.requests() {
		if r.URL.Path != "/outer" || len(r.TransferEncoding) > 0 && r.ContentLength >= 0 {
			t.Errorf("%s %s came out", r.Method, r.URL)
		}
	}
}

func TestSecretsThatCannotBeAdded(t *testing.T) {
	a := newAPI(t, func(http.ResponseWriter, *http.Request) {})
	w := newInjecting(t, a, nil)
	for _, value := range []string{"", sesame + "\n", sesame + "\r\nX: y", " " + sesame, sesame + "\x00", strings.Repeat(sesame, 1000)} {
		w.d.SetSecrets(map[string]string{"KEY": value})
		c, in := w.open()
		res, body := w.ask(c, in, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if res.StatusCode != 502 || res.Header.Get("Paddock-Error") != "egress_secret" || !strings.Contains(body, `"KEY"`) {
			t.Errorf("%.30q: %d %s %s", value, res.StatusCode, res.Header.Get("Paddock-Error"), body)
		}
		c.Close()
	}
	if n := len(a.requests()); n != 0 {
		t.Errorf("%d requests went out", n)
	}
}

// TestInjectionTakesTheSameChecks: a secret opens nothing, and its own host is reached in no other way.
func TestInjectionTakesTheSameChecks(t *testing.T) {
	a := newAPI(t, func(http.ResponseWriter, *http.Request) {})
	w := newInjecting(t, a, nil)
	w.name("inner.example.com", "10.0.0.1")
	w.name("meta.example.com", "169.254.169.254")
	key := func(host string) tenant.Injection {
		return tenant.Injection{Host: host, Header: "X-Key", Secret: "KEY"}
	}
	w.inject("*.example.com:443 example.com:443", key("api.example.org"), key("inner.example.com"), key("meta.example.com"), key("example.com:2375"))
	w.want("api.example.org:80", 403, ReasonNoRule)
	w.want("inner.example.com:80", 403, ReasonAddress)
	w.want("meta.example.com:80", 403, ReasonAddress)
	w.want("example.com:2375", 403, ReasonPort)
	w.want("example.com:80", 403, ReasonNoRule) // named without a secret: only 443 is allowed
	if n := len(w.dialed()); n != 0 {
		t.Errorf("dialled %v", w.dialed())
	}
	// https: goes through as before, unread.
	w.inject("example.com:*", key("example.com"))
	c, _, res := w.connect("example.com:443")
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n") // a TLS server answers that by itself
	if got, _ := io.ReadAll(c); len(a.requests()) != 0 {
		t.Errorf("answered %q", got)
	}
}

func TestUntrustedCertificates(t *testing.T) {
	a := newAPI(t, func(http.ResponseWriter, *http.Request) {})
	for what, change := range map[string]func(*Options){
		"unknown authority": func(o *Options) { o.Roots = x509.NewCertPool() },
		"another name":      nil,
	} {
		w := newInjecting(t, a, change)
		w.name("other.example.org", "93.184.216.34")
		w.inject("*:443", tenant.Injection{Host: "example.com", Header: "X-Key", Secret: "KEY"},
			tenant.Injection{Host: "other.example.org", Header: "X-Key", Secret: "KEY"})
		host := "example.com"
		if change == nil {
			host = "other.example.org"
		}
		c, in, _ := w.connect(host + ":80")
		res, body := w.ask(c, in, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		if res.StatusCode != 502 || res.Header.Get("Paddock-Error") != "egress_tls" || !strings.Contains(body, "certificate") {
			t.Errorf("%s: %d %s", what, res.StatusCode, body)
		}
		c.Close()
	}
	if n := len(a.requests()); n != 0 {
		t.Errorf("%d requests came through", n)
	}
}

// TestRedirectsPass: the proxy follows none; the secret goes nowhere else.
func TestRedirectsPass(t *testing.T) {
	a := newAPI(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusTemporaryRedirect)
	})
	w := newInjecting(t, a, nil)
	c, in := w.open()
	res, _ := w.ask(c, in, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if res.StatusCode != 307 || res.Header.Get("Location") != "http://169.254.169.254/latest" || len(a.requests()) != 1 {
		t.Errorf("%d %v, %d requests", res.StatusCode, res.Header, len(a.requests()))
	}
}

// TestAnswersStream: what the server has said arrives before it goes on, and a server that breaks off is noticed.
func TestAnswersStream(t *testing.T) {
	more := make(chan bool)
	a := newAPI(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		<-more
		panic(http.ErrAbortHandler)
	})
	w := newInjecting(t, a, nil)
	c, in := w.open()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("%q, %v", first, err)
	}
	close(more)
	if rest, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a broken answer ended well, with %q", rest)
	}
}

// TestReconnectsAreJudged: when the server drops the connection, the next request's is judged like the first.
func TestReconnectsAreJudged(t *testing.T) {
	a := newAPI(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	w := newInjecting(t, a, nil)
	w.name("example.com", "93.184.216.35", "127.0.0.1")
	c, in := w.open()
	const get = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
	for range 2 {
		if res, body := w.ask(c, in, get); res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	res, body := w.ask(c, in, get)
	if res.StatusCode != 403 || res.Header.Get("Paddock-Error") != "egress_address" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if n := len(a.requests()); n != 2 {
		t.Errorf("%d requests came through", n)
	}
}

func TestInjectingTunnelsEnd(t *testing.T) {
	a := newAPI(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			<-r.Context().Done() // the connection's end reaches the server
		}
	})
	inj := tenant.Injection{Host: "example.com", Header: "X-Key", Secret: "KEY"}
	for what, end := range map[string]func(*world){
		"another header": func(w *world) { other := inj; other.Header = "Y-Key"; w.inject("example.com:443", other) },
		"no injection":   func(w *world) { w.inject("example.com:443 example.com:80") },
		"no rule":        func(w *world) { w.inject("", inj) },
		"frozen":         func(w *world) { w.d.CloseTunnels() },
		"destroyed":      func(w *world) { w.d.Close() },
	} {
		t.Run(what, func(t *testing.T) {
			w := newInjecting(t, a, nil)
			w.inject("example.com:443", inj)
			busy, busyIn := w.open()
			io.WriteString(busy, "GET /held HTTP/1.1\r\nHost: example.com\r\n\r\n")
			idle, idleIn := w.open()
			w.ask(idle, idleIn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
			waitUntil(t, func() bool { return len(a.requests())%2 == 0 })
			w.inject("example.com:443 other.example:443", inj) // nothing that concerns them
			w.d.SetSecrets(map[string]string{"KEY": "new"})
			w.ask(idle, idleIn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
			w.ask(idle, idleIn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
			end(w)
			closed(t, busyIn)
			closed(t, idleIn)
			waitUntil(t, func() bool { return w.p.Stats().Tunnels == 0 })
		})
	}
}

func TestLimitsOfAnInjectingTunnel(t *testing.T) {
	a := newAPI(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, strings.Repeat("x", 100_000))
	})
	for reason, change := range map[Reason]func(*Options){
		ReasonIdle:  func(o *Options) { o.Idle = 100 * time.Millisecond },
		ReasonLife:  func(o *Options) { o.TunnelLife = 100 * time.Millisecond },
		ReasonBytes: func(o *Options) { o.TunnelBytes = 50_000 },
	} {
		t.Run(string(reason), func(t *testing.T) {
			w := newInjecting(t, a, change)
			c, in := w.open()
			if reason == ReasonBytes {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
			}
			io.Copy(io.Discard, in)
			waitUntil(t, func() bool { s := w.p.Stats(); return s.Ended[reason] == 1 || reason == ReasonIdle && s.Tunnels == 0 })
		})
	}
}
