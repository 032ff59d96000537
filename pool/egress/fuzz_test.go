package egress

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"paddock/internal/tenant"
)

// FuzzReadRequest: whatever a container sends, what the proxy makes of it is one CONNECT to one destination in its normal form.
func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		"CONNECT api.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n",
		"CONNECT 0x7f.1:80 HTTP/1.1\r\n\r\n", "CONNECT 2130706433:80 HTTP/1.1\r\n\r\n", "CONNECT [fe80::1%25eth0]:80 HTTP/1.1\r\n\r\n",
		"CONNECT a%2eexample.com:80 HTTP/1.1\r\n\r\n", "CONNECT user@a.example:80 HTTP/1.1\r\n\r\n", "CONNECT /a:80 HTTP/1.1\r\n\r\n",
		"CONNECT a.example:80#:81 HTTP/1.1\r\n\r\n", "GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a.example:80 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "CONNECT bücher.example:80 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		to, problem := readRequest(bufio.NewReaderSize(io.LimitReader(bytes.NewReader(b), maxHead), maxHead))
		if problem != "" {
			if strings.ContainsAny(problem, "\r\n") {
				t.Fatalf("%q is answered with more than a line: %q", b, problem)
			}
			return
		}
		if !bytes.HasPrefix(bytes.TrimLeft(b, "\r\n"), []byte("CONNECT ")) {
			t.Fatalf("%q became a CONNECT to %v", b, to)
		}
		if again, err := parseDestination(to.String()); err != nil || again != to {
			t.Fatalf("%q became %+v, and that %+v, %v", b, to, again, err)
		}
	})
}

// FuzzParseDestination: a name is never something that a lenient parser takes for an address, and its normal form is one.
func FuzzParseDestination(f *testing.F) {
	for _, s := range []string{
		"example.com:443", "EXAMPLE.com.:443", "127.1:80", "0x7f.1:80", "0177.1:80", "2130706433:80", "1.2.3.4:80", "1.2.3.4.:80",
		"１２７.0.0.1:80", "127。0。0。1:80", "[::ffff:1.2.3.4]:80", "[::1%lo]:80", "a..b:1", "xn--bcher-kva.example:1", "bücher.example:1",
		"0x:1", "1.0x7f:1", "a.0:1", "ⓔxample.com:1", "a%2e.b:1", "\xc0\xae.example:1", "a\u200d.example:1", "ß.example:1", "xn--a.example:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDestination(s)
		if err != nil {
			return
		}
		if again, err := parseDestination(d.String()); err != nil || again != d {
			t.Fatalf("%q becomes %+v, that %+v, %v", s, d, again, err)
		}
		if d.addr.IsValid() {
			host, _, _ := cutPort(s)
			if d.name != "" || d.addr.Is4In6() || d.addr.Zone() != "" || d.addr.Is4() && d.addr.String() != host {
				t.Fatalf("%q becomes %+v", s, d)
			}
			return
		}
		if a, ok := lenient(d.name); ok {
			t.Fatalf("%q becomes the name %q, which some take for %v", s, d.name, a)
		}
		if d.name != strings.ToLower(d.name) || len(d.name) == 0 || len(d.name) > 253 || strings.Trim(d.name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			t.Fatalf("%q becomes the name %q", s, d.name)
		}
		for _, variant := range []string{strings.ToUpper(d.name), d.name + "."} {
			if other, err := parseDestination(variant + ":" + strconv.Itoa(int(d.port))); err != nil || other != d {
				t.Fatalf("%q is %+v, %q is %+v, %v", d.name, d, variant, other, err)
			}
		}
	})
}

// lenient reads addresses as inet_aton(3) does: one to four numbers, each decimal, octal or hexadecimal, the last one for all
// bytes that remain.
func lenient(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var sum uint64
	for i, p := range parts {
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		if strings.ContainsAny(p, "_+-oOB") || strings.HasPrefix(p, "0b") { // Go's own
			return netip.Addr{}, false
		}
		n, err := strconv.ParseUint(p, 0, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		sum = sum<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), true
}

// outward takes the place of the server outside and holds every request against what the proxy promises.
type outward struct{ t *testing.T }

func (o outward) RoundTrip(r *http.Request) (*http.Response, error) {
	var wire bytes.Buffer
	if r.Body != nil {
		r.Body = io.NopCloser(io.LimitReader(r.Body, 1<<20))
	}
	if err := r.Write(&wire); err != nil {
		return nil, err
	}
	// What another reader makes of it: one request, to the host, with the secret and nothing else in its place.
	in := bufio.NewReader(&wire)
	got, err := http.ReadRequest(in)
	if err != nil {
		o.t.Errorf("what goes out cannot be read: %v", err)
		return nil, err
	}
	io.Copy(io.Discard, got.Body)
	if _, err := in.ReadByte(); err != io.EOF {
		o.t.Errorf("%q: something goes out behind the request", wire.Bytes())
	}
	for name, values := range got.Header {
		if sameHeader(name, "X-Key") && (name != "X-Key" || len(values) != 1 || values[0] != sesame) {
			o.t.Errorf("%s: %q goes out", name, values)
		}
		if name == "Connection" || name == "Upgrade" || strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, "X-Forwarded") {
			o.t.Errorf("%s: %q goes out", name, values)
		}
	}
	if got.Host != "example.com" || got.Header.Get("X-Key") == "" || len(got.Trailer) != 0 || r.URL.Scheme != "https" || r.URL.Host != "example.com" {
		o.t.Errorf("to %s %s, with trailers %v", got.Host, r.URL, got.Trailer)
	}
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("ok"))}, nil
}

// FuzzInjectedRequests: whatever a container sends through an injecting tunnel, only whole requests to the tunnel's host leave,
// each with the secret once, and no answer of the proxy's own has it.
func FuzzInjectedRequests(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: example.com\r\nX-Key: mine\r\nConnection: X-Key\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\nTrailer: X-Key\r\n\r\n1\r\na\r\n0\r\nX-Key: t\r\n\r\n",
		"GET http://example.com/x HTTP/1.1\r\nHost: example.com\r\nX_Key: mine\r\nUpgrade: h2c\r\n\r\n",
		"TRACE / HTTP/1.1\r\nHost: example.com\r\n\r\n", "GET / HTTP/1.0\r\nHost: example.com:80\r\nX-Forwarded-Host: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: example.com\r\n\r\nGET /2 HTTP/1.1\r\nHost: example.com\r\nProxy-Connection: keep-alive\r\n\r\n",
		"GET /%zz?%zz;a HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
	} {
		f.Add([]byte(s))
	}
	inj, err := ParseInjection(tenant.Injection{Host: "example.com", Header: "X-Key", Secret: "KEY"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := New(Options{HeadTimeout: time.Second, Idle: time.Second})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		d := &Door{p: p, secrets: map[string]string{"KEY": sesame}}
		s := &session{d: d, p: p, ctx: ctx, cancel: cancel, asked: inj.asked, to: inj.to, inject: []Injection{inj}}
		tun := &tunnel{s: s, opened: Decision{Tenant: "acme"}}
		p.tenants["acme"] = &account{since: time.Now()}
		x := newInjector(tun)
		x.proxy.Transport = outward{t}
		out := &scriptedConn{in: bytes.NewReader(b)}
		x.serve(&meteredConn{Conn: out, in: out.in, m: tun.measure(), closed: make(chan struct{})})
		if strings.Contains(out.String(), sesame) {
			t.Errorf("%q is answered with the secret", b)
		}
	})
}

// scriptedConn is a connection that says what it was given and keeps what it is told.
type scriptedConn struct {
	net.Conn
	in *bytes.Reader
	bytes.Buffer
}

func (c *scriptedConn) Write(p []byte) (int, error)    { return c.Buffer.Write(p) }
func (c *scriptedConn) Read(p []byte) (int, error)     { return c.in.Read(p) }
func (*scriptedConn) Close() error                     { return nil }
func (*scriptedConn) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (*scriptedConn) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (*scriptedConn) SetDeadline(time.Time) error      { return nil }
func (*scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (*scriptedConn) SetWriteDeadline(time.Time) error { return nil }
