package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
)

// world is a proxy with one door, a fake resolver and a fake network in which every address leads to an echo server.
type world struct {
	t     *testing.T
	p     *Proxy
	d     *Door
	path  string
	dir   string
	mu    sync.Mutex
	names map[string][][]netip.Addr // answers in turn, the last one for ever
	dials []netip.AddrPort
	audit []Decision
	fail  error
	peers []net.Conn
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	before := runtime.NumGoroutine()
	dir, err := os.MkdirTemp("", "egress")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, path: filepath.Join(dir, SocketName), names: map[string][][]netip.Addr{}}
	o := Options{Resolver: w, Dial: w.dial, Observer: w}
	if change != nil {
		change(&o)
	}
	w.p = New(o)
	if w.d, err = w.p.Open(dir, 0, 0, "c1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.p.Close()
		os.RemoveAll(dir)
		if s := w.p.Stats(); s.Tunnels != 0 || s.Sessions != 0 || len(w.p.doors) != 0 {
			t.Errorf("left over: %+v, %d doors", s, len(w.p.doors))
		}
		for id, a := range w.p.tenants {
			if a.doors != 0 || a.tunnels != 0 || a.bytes == 0 {
				t.Errorf("left over of %s: %+v", id, a)
			}
		}
		testenv.AwaitGoroutines(t, before)
	})
	return w
}

func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	answers := w.names[host]
	if len(answers) == 0 {
		return nil, &net.DNSError{IsNotFound: true}
	}
	if len(answers) > 1 {
		w.names[host] = answers[1:]
	}
	return answers[0], nil
}

func (w *world) name(host string, answers ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range answers {
		var addrs []netip.Addr
		for s := range strings.FieldsSeq(a) {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		w.names[host+"."] = append(w.names[host+"."], addrs)
	}
}

// dial connects to an echo server of the same process.
func (w *world) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials = append(w.dials, to)
	if w.fail != nil {
		return nil, w.fail
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	peer, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	w.peers = append(w.peers, peer)
	go func() {
		io.Copy(peer, peer)
		peer.Close()
	}()
	return c, nil
}

// Decided implements Observer.
func (w *world) Decided(d Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.audit = append(w.audit, d)
}

func (w *world) dialed() []netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]netip.AddrPort(nil), w.dials...)
}

func (w *world) rules(allow, private string) {
	w.t.Helper()
	parse := func(s string) (list []Rule) {
		for f := range strings.FieldsSeq(s) {
			r, err := ParseRule(f)
			if err != nil {
				w.t.Fatal(err)
			}
			list = append(list, r)
		}
		return list
	}
	w.d.SetRules("acme", Rules{Allow: parse(allow), Private: parse(private)})
}

// connect sends a CONNECT and returns the connection, behind the answer's head, and the answer.
func (w *world) connect(to string) (net.Conn, *bufio.Reader, *http.Response) {
	w.t.Helper()
	return w.send("CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\nX-Tenant: other\r\n\r\n")
}

func (w *world) send(request string) (net.Conn, *bufio.Reader, *http.Response) {
	w.t.Helper()
	c, err := net.Dial("unix", w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, request)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		w.t.Fatalf("%q: %v", request, err)
	}
	return c, in, res
}

// want connects and checks status and reason; of a tunnel it checks that it carries bytes.
func (w *world) want(to string, status int, r Reason) {
	w.t.Helper()
	c, in, res := w.connect(to)
	defer c.Close()
	if res.StatusCode != status {
		w.t.Fatalf("%s: status %d, %s; want %d", to, res.StatusCode, res.Header.Get("Paddock-Error"), status)
	}
	if status == 200 {
		w.echo(to, c, in)
		return
	}
	body, _ := io.ReadAll(in)
	if got := res.Header.Get("Paddock-Error"); got != "egress_"+string(r) {
		w.t.Errorf("%s: %s, want %s; %s", to, got, r, body)
	}
	if n := strings.Count(string(body), "\n"); n != 1 || !strings.HasSuffix(string(body), "\n") {
		w.t.Errorf("%s: not one line: %q", to, body)
	}
}

func (w *world) echo(to string, c net.Conn, in *bufio.Reader) {
	w.t.Helper()
	io.WriteString(c, "ping")
	got := make([]byte, 4)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "ping" {
		w.t.Fatalf("%s: echo %q, %v", to, got, err)
	}
}

func TestDecisions(t *testing.T) {
	own := netip.MustParseAddrPort("93.184.216.99:8443")
	w := newWorld(t, func(o *Options) { o.Forbidden = func(a netip.AddrPort) bool { return a == own } })
	w.name("api.example.com", "93.184.216.34")
	w.name("mixed.example.com", "93.184.216.34 10.0.0.1")
	w.name("mapped.example.com", "::ffff:169.254.169.254")
	w.name("mappedok.example.com", "::ffff:93.184.216.34")
	w.name("inner.example.com", "10.1.2.3")
	w.name("self.example.com", "93.184.216.99")
	w.name("zero.example.com", "0.0.0.0")
	w.name("db.corp", "10.1.2.3")
	w.name("zero.corp", "0.0.0.0")
	w.name("meta.corp", "169.254.169.254")
	w.name("nat.corp", "64:ff9b::a9fe:a9fe")
	w.want("api.example.com:443", 403, ReasonNoRule) // before it is bound
	w.rules("*.example.com:* 93.184.216.34:443 10.9.9.9:443 [2606:4700::1]:443 *:8080",
		"db.corp:5432 zero.corp:80 meta.corp:80 nat.corp:80 169.254.169.254:80 ssh.corp:22 git.corp:* *:9999")
	for _, c := range []struct {
		to     string
		status int
		reason Reason
	}{
		{"api.example.com:443", 200, ""},
		{"API.Example.COM.:443", 200, ""},
		{"93.184.216.34:443", 200, ""},
		{"[2606:4700::1]:443", 200, ""},
		{"mappedok.example.com:443", 200, ""},
		{"example.com:443", 403, ReasonNoRule},
		{"api.example.org:443", 403, ReasonNoRule},
		{"93.184.216.34:80", 403, ReasonNoRule},
		{"93.184.216.35:443", 403, ReasonNoRule},
		{"api.example.com:22", 403, ReasonPort},
		{"api.example.com:2379", 403, ReasonPort},
		{"api.example.com:10250", 403, ReasonPort},
		{"mixed.example.com:443", 403, ReasonAddress},
		{"mapped.example.com:443", 403, ReasonAddress},
		{"inner.example.com:443", 403, ReasonAddress},
		{"zero.example.com:443", 403, ReasonAddress},
		{"10.9.9.9:443", 403, ReasonAddress}, // allowed, yet not as private
		{"self.example.com:8443", 403, ReasonSelf},
		{"db.corp:5432", 200, ""},
		{"db.corp:5433", 403, ReasonNoRule},
		{"zero.corp:80", 403, ReasonAddress},
		{"169.254.169.254:80", 200, ""},
		{"meta.corp:80", 403, ReasonAddress}, // a name that an operator allows is no way to metadata
		{"nat.corp:80", 403, ReasonAddress},
		{"169.254.169.254:8080", 403, ReasonAddress},
		{"10.1.2.3:8080", 403, ReasonAddress},
		{"10.1.2.3:9999", 403, ReasonNoRule}, // "*" is no name
		{"git.corp:22", 403, ReasonPort},     // "*" does not name the port
		{"ssh.corp:22", 502, ReasonDNS},
		{"nowhere.example.com:443", 502, ReasonDNS},
		{"127.1:443", 400, ReasonInvalid},
		{"2130706433:443", 400, ReasonInvalid},
		{"0x7f000001:443", 400, ReasonInvalid},
		{"[::ffff:10.0.0.1]:443", 400, ReasonInvalid},
		{"api.example.com", 400, ReasonInvalid},
		{"api.example.com:0", 400, ReasonInvalid},
		{"a:b@api.example.com:443", 400, ReasonInvalid},
	} {
		w.want(c.to, c.status, c.reason)
	}
	for _, a := range w.dialed() {
		if c := Classify(a.Addr()); c != ClassPublic && a.String() != "10.1.2.3:5432" && a.String() != "169.254.169.254:80" {
			t.Errorf("dialled %v (%v)", a, c)
		}
	}
	waitUntil(t, func() bool { return w.p.Stats().Tunnels == 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	of := map[Event]int{}
	for _, d := range w.audit {
		of[d.Event]++
		reached := d.Event == EventAllowed || d.Event == EventClosed
		if d.Container != "c1" || (d.Tenant != "acme") != (d.Time == w.audit[0].Time) || reached != d.Addr.IsValid() || reached != (d.Tunnel != 0) {
			t.Errorf("told %+v", d)
		}
	}
	if of[EventAllowed] != 7 || of[EventClosed] != 7 || of[EventDenied] != 29 || of[EventFailed] != 2 {
		t.Errorf("told %v", of)
	}
	if s := w.p.stats.Decisions; s[ReasonAllowed] != 7 || s[ReasonInvalid] != 7 {
		t.Errorf("stats %v", s)
	}
}

// The name resolves to something else each time it is asked; it is asked once for each CONNECT, and what was judged is dialled.
func TestRebinding(t *testing.T) {
	w := newWorld(t, nil)
	w.name("evil.example.com", "93.184.216.34", "127.0.0.1", "93.184.216.34", "127.0.0.1")
	w.rules("evil.example.com:443", "")
	w.want("evil.example.com:443", 200, "")
	w.want("evil.example.com:443", 403, ReasonAddress)
	w.want("evil.example.com:443", 200, "")
	w.want("evil.example.com:443", 403, ReasonAddress)
	for _, a := range w.dialed() {
		if a.String() != "93.184.216.34:443" {
			t.Errorf("dialled %v", a)
		}
	}
}

func TestOtherRequests(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.HeadTimeout = 200 * time.Millisecond })
	w.rules("*:80", "")
	for _, r := range []string{
		"GET http://93.184.216.34/ HTTP/1.1\r\nHost: 93.184.216.34\r\n\r\n",
		"CONNECT 93.184.216.34:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"CONNECT 93.184.216.34:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"CONNECT 93.184.216.34:80 HTTP/1.1\r\nX: " + strings.Repeat("x", 10_000) + "\r\n\r\n",
		"CONNECT 93.184.216.34:80 HTTP/1.1\r\nnever ends",
	} {
		c, _, res := w.send(r)
		if res.StatusCode != 400 {
			t.Errorf("%.60q: status %d", r, res.StatusCode)
		}
		c.Close()
	}
	if d := w.dialed(); len(d) != 0 {
		t.Errorf("dialled %v", d)
	}
}

func TestDialFailures(t *testing.T) {
	w := newWorld(t, nil)
	w.rules("*:80", "")
	for err, reason := range map[error]Reason{
		syscall.ECONNREFUSED: ReasonRefused, context.DeadlineExceeded: ReasonTimeout, errors.New("other"): ReasonUnreachable,
	} {
		w.mu.Lock()
		w.fail = err
		w.mu.Unlock()
		w.want("93.184.216.34:80", 502, reason)
	}
}

func TestEarlyBytesAndHalfClose(t *testing.T) {
	w := newWorld(t, nil)
	w.rules("*:80", "")
	c, in, res := w.send("CONNECT 93.184.216.34:80 HTTP/1.1\r\n\r\nearly ")
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	io.WriteString(c, strings.Repeat("x", 1<<20))
	c.(*net.UnixConn).CloseWrite()
	got, err := io.ReadAll(in)
	if err != nil || len(got) != 6+1<<20 || !strings.HasPrefix(string(got), "early x") {
		t.Errorf("%d bytes back, %v", len(got), err)
	}
	waitUntil(t, func() bool { return w.p.Stats().Tunnels == 0 })
	if s := w.p.Stats(); s.BytesOut != 6+1<<20 || s.BytesIn != 6+1<<20 {
		t.Errorf("stats %+v", s)
	}
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	testenv.Await(t, "what the test waits for", ok)
}

// closed waits for the tunnel's end.
func closed(t *testing.T, in *bufio.Reader) {
	t.Helper()
	if b, err := in.ReadByte(); err == nil {
		t.Fatalf("the tunnel lives and brought %q", b)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the tunnel lives")
	}
}

func TestRuleChangeClosesTunnels(t *testing.T) {
	w := newWorld(t, nil)
	w.name("a.example.com", "93.184.216.34")
	w.name("b.example.com", "10.0.0.1")
	w.rules("a.example.com:443 *:80", "b.example.com:443")
	a, ain, _ := w.connect("a.example.com:443")
	_, bin, _ := w.connect("b.example.com:443")
	_, cin, _ := w.connect("93.184.216.34:80")
	w.rules("a.example.com:443 b.example.com:443", "")
	closed(t, bin) // still allowed by name, no longer as private
	closed(t, cin)
	w.echo("a", a, ain)
	if n := w.p.Stats().Ended[ReasonRules]; n != 2 {
		waitUntil(t, func() bool { return w.p.Stats().Ended[ReasonRules] == 2 })
	}
	w.d.CloseTunnels()
	closed(t, ain)
	w.want("a.example.com:443", 200, "")
	w.d.SetRules("other", Rules{Allow: []Rule{{any: true}}})
	w.want("a.example.com:443", 403, ReasonNoRule)
}

func TestCloseEndsTunnels(t *testing.T) {
	w := newWorld(t, nil)
	w.rules("*:80", "")
	c, in, _ := w.connect("93.184.216.34:80")
	w.echo("open", c, in)
	if err := w.d.Close(); err != nil {
		t.Error(err)
	}
	closed(t, in)
	if _, err := os.Lstat(w.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := w.d.Close(); err != nil {
		t.Error(err)
	}
	again, err := w.p.Open(w.dir, 0, 0, "c1") // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	w.d = again
	w.want("93.184.216.34:80", 403, ReasonNoRule)
}

func TestCaps(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MaxPerContainer, o.MaxPerTenant = 3, 2 })
	w.rules("*:80", "")
	a, _, _ := w.connect("93.184.216.34:80")
	_, _, _ = w.connect("93.184.216.34:80")
	w.want("93.184.216.34:80", 429, ReasonConnections) // the tenant's
	waitUntil(t, func() bool { return w.p.Stats().Sessions == 2 })
	idle, err := net.Dial("unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	waitUntil(t, func() bool { return w.p.Stats().Sessions == 3 })
	w.want("93.184.216.34:80", 429, ReasonConnections) // the container's
	late, err := net.Dial("unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := bufio.NewReader(late).Peek(1); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(late, "CONNECT 93.184.216.34:80 HTTP/1.1\r\n\r\n"); err != nil {
		t.Errorf("the refusal came before the request, and writing that fails: %v", err)
	}
	late.Close()
	a.Close()
	waitUntil(t, func() bool { return w.p.Stats().Tunnels == 1 })
	w.want("93.184.216.34:80", 200, "")
}

func TestConnectRate(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.ConnectRate = 10 })
	began := time.Now()
	for range 25 {
		w.want("93.184.216.34:80", 403, ReasonNoRule)
	}
	if d := time.Since(began); d < 400*time.Millisecond {
		t.Errorf("25 requests in %v, at 10 per second and a burst of 20", d)
	}
}

func TestLimitsOfATunnel(t *testing.T) {
	for reason, change := range map[Reason]func(*Options){
		ReasonIdle:  func(o *Options) { o.Idle = 50 * time.Millisecond },
		ReasonLife:  func(o *Options) { o.TunnelLife = 50 * time.Millisecond },
		ReasonBytes: func(o *Options) { o.TunnelBytes = 7 },
	} {
		t.Run(string(reason), func(t *testing.T) {
			w := newWorld(t, change)
			w.rules("*:80", "")
			c, in, res := w.connect("93.184.216.34:80")
			if res.StatusCode != 200 {
				t.Fatal(res.Status)
			}
			if reason == ReasonBytes {
				io.WriteString(c, "pong and more")
			}
			io.Copy(io.Discard, in)
			waitUntil(t, func() bool { return w.p.Stats().Ended[reason] == 1 })
		})
	}
}

func TestTenantBytes(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.TenantBytes = 100 })
	w.rules("*:80", "")
	c, in, _ := w.connect("93.184.216.34:80")
	fmt.Fprint(c, strings.Repeat("x", 200))
	io.Copy(io.Discard, in)
	w.want("93.184.216.34:80", 429, ReasonBytes)
}
