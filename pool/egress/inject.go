package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Bounds on what passes through an injecting tunnel. Bodies count against the tunnel's bytes, too.
const (
	maxInjectHead     = 32 << 10 // of a request
	maxInjectBody     = 64 << 20 // of a request
	maxInjectAnswer   = 256 << 10
	tlsTimeout        = 10 * time.Second
	outwardIdle       = 90 * time.Second
	maxCertificateLog = 200 // bytes of what is said about a certificate
)

// injector answers the requests that a container sends in the clear through one tunnel: each goes out over TLS with the
// secret's header, to the tunnel's destination and nowhere else. Both sides are net/http's; nothing of a message is read here.
type injector struct {
	t         *tunnel
	asked     destination
	list      []Injection
	proxy     *httputil.ReverseProxy
	transport *http.Transport

	mu    sync.Mutex
	first net.Conn // what the tunnel was opened with, until it is used
}

// inject serves the tunnel's client until one side ends it, a limit is reached or the session is ended.
func (t *tunnel) inject(early []byte) {
	defer t.close()
	if _, err := io.WriteString(t.s.client, established); err != nil {
		return
	}
	m := t.measure()
	stop := m.watch()
	defer stop()
	x := newInjector(t)
	defer x.close()
	x.serve(&meteredConn{Conn: t.s.client, in: io.MultiReader(bytes.NewReader(early), t.s.client), m: m, closed: make(chan struct{})})
}

// serve answers the requests on one connection.
func (x *injector) serve(c *meteredConn) {
	o, ctx := &x.t.s.p.o, x.t.s.ctx
	srv := &http.Server{
		Handler: x, ReadHeaderTimeout: o.HeadTimeout, IdleTimeout: o.Idle, MaxHeaderBytes: maxInjectHead,
		DisableGeneralOptionsHandler: true, Protocols: onlyHTTP1(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer srv.Close()
	srv.Serve(&onlyConn{c: c})
}

func onlyHTTP1() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	return &p
}

func newInjector(t *tunnel) *injector {
	x := &injector{t: t, asked: t.s.asked, list: t.s.inject, first: t.server}
	x.transport = &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return x.dial() },
		TLSClientConfig: &tls.Config{RootCAs: t.s.p.o.Roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: tlsTimeout,
		Protocols: onlyHTTP1(), DisableCompression: true, MaxConnsPerHost: 1, IdleConnTimeout: outwardIdle,
		MaxResponseHeaderBytes: maxInjectAnswer,
	}
	x.proxy = &httputil.ReverseProxy{
		Rewrite: x.rewrite, Transport: x.transport, FlushInterval: -1, ErrorHandler: x.failed,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	return x
}

func (x *injector) close() {
	x.transport.CloseIdleConnections()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.first != nil {
		x.first.Close()
	}
}

// dial gives the transport the tunnel's connection, and when that is used up another one, judged anew.
func (x *injector) dial() (net.Conn, error) {
	x.mu.Lock()
	first := x.first
	x.first = nil
	x.mu.Unlock()
	if first != nil {
		return first, nil
	}
	s, d := x.t.s, x.t.opened
	_, addrs, no := s.approve(s.to)
	var c net.Conn
	if no == nil {
		c, d.Addr, no = s.open(s.to, addrs)
	}
	d.Time = time.Now()
	if no != nil {
		d.Event, d.Reason, d.Tunnel = no.reason.event(), no.reason, 0
		s.p.decided(d)
		return nil, no
	}
	if x.t.told {
		s.p.decided(d)
	}
	return c, nil
}

// Error makes a refusal what a dial can return.
func (r *refusal) Error() string { return r.text }

// ServeHTTP implements http.Handler.
func (x *injector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	no := x.refusal(r)
	if no == nil {
		var values []string
		if values, no = x.values(); no == nil {
			x.t.requests.Add(1)
			r = r.WithContext(context.WithValue(r.Context(), valuesKey{}, values))
		}
	}
	if no != nil {
		sendRefusal(w, no)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxInjectBody)
	x.proxy.ServeHTTP(w, r)
}

// valuesKey finds what values returned in a request's context.
type valuesKey struct{}

// refusal says what is wrong with a request, nil if nothing is.
func (x *injector) refusal(r *http.Request) *refusal {
	no := func(status int, format string, args ...any) *refusal {
		return &refusal{status, ReasonInvalid, fmt.Sprintf(format, args...)}
	}
	meant, err := parseHostWithPort(r.Host, portHTTP)
	switch {
	case err != nil || meant != x.asked:
		return no(http.StatusMisdirectedRequest, "this connection leads to %v, the request is for %.100q", x.asked, r.Host)
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace || r.Method == "TRACK":
		return no(http.StatusMethodNotAllowed, "%s is not possible where a secret is added", r.Method)
	case r.URL.Opaque != "" || !strings.HasPrefix(r.URL.Path, "/"):
		return no(http.StatusBadRequest, "the request's target is not a path")
	case r.Header.Get("Upgrade") != "":
		return no(http.StatusNotImplemented, "the connection cannot become another protocol where a secret is added")
	case r.ContentLength > maxInjectBody:
		return tooLarge()
	}
	return nil
}

func tooLarge() *refusal {
	return &refusal{http.StatusRequestEntityTooLarge, ReasonInvalid, fmt.Sprintf("a body of more than %d bytes where a secret is added", maxInjectBody)}
}

// values are what the headers of x.list say now. What is wrong with one is said without its value.
func (x *injector) values() ([]string, *refusal) {
	values := make([]string, len(x.list))
	for i, inj := range x.list {
		secret := x.t.s.d.secret(inj.secret)
		values[i] = inj.prefix + secret
		problem := ""
		switch {
		case secret == "":
			problem = "is not set"
		case len(values[i]) > maxHeaderValue || !httpguts.ValidHeaderFieldValue(values[i]) || strings.TrimSpace(secret) != secret:
			problem = "does not fit a header: it is too long, ends in a space or a line's end, or has a control character"
		}
		if problem != "" {
			return nil, &refusal{http.StatusBadGateway, ReasonSecret, fmt.Sprintf("the secret %q, which goes with requests to %v, %s",
				inj.secret, x.asked, problem)}
		}
	}
	return values, nil
}

// rewrite makes the outward request: to where the tunnel leads, with the secrets and without whatever could be taken for them.
func (x *injector) rewrite(pr *httputil.ProxyRequest) {
	to := x.t.s.to
	host := to.String()
	if to.port == portHTTPS {
		host = to.urlHost()
	}
	out := pr.Out
	out.URL.Scheme, out.URL.Host, out.URL.User, out.Host = "https", host, nil, host
	out.URL.RawQuery = pr.In.URL.RawQuery
	out.Trailer = nil // a server may take a trailer for a header
	out.Header.Del("Te")
	out.Header.Del("Expect") // answered here
	for _, inj := range x.list {
		for name := range out.Header {
			if sameHeader(name, inj.header) {
				delete(out.Header, name)
			}
		}
	}
	values := pr.In.Context().Value(valuesKey{}).([]string)
	for i, inj := range x.list {
		out.Header[inj.header] = []string{values[i]}
	}
}

// sameHeader says whether a server may take one name for the other: some map '-' and '_' to the same.
func sameHeader(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, "_", "-"), strings.ReplaceAll(b, "_", "-"))
}

// failed answers for a request that got none. It says nothing of the request.
func (x *injector) failed(w http.ResponseWriter, _ *http.Request, err error) {
	if x.t.s.ctx.Err() != nil { // the tunnel is over: its client is told nothing any more
		panic(http.ErrAbortHandler)
	}
	var (
		no   *refusal
		body *http.MaxBytesError
		cert *tls.CertificateVerificationError
	)
	if !errors.As(err, &no) {
		no = failure(x.t.s.to, injectReason(err))
	}
	switch {
	case errors.As(err, &body):
		no = tooLarge()
	case errors.As(err, &cert):
		no = &refusal{http.StatusBadGateway, ReasonTLS, fmt.Sprintf("connecting to %v failed: its certificate is not to be trusted: %.*q",
			x.t.s.to, maxCertificateLog, cert.Err)}
	}
	sendRefusal(w, no)
}

// injectReason says what became of a connection that stood.
func injectReason(err error) Reason {
	switch r := dialReason(err); {
	case strings.Contains(err.Error(), "tls: "):
		return ReasonTLS
	case r == ReasonUnreachable:
		return ReasonBroken
	default:
		return r
	}
}

// sendRefusal is refuse for a request within a tunnel.
func sendRefusal(w http.ResponseWriter, no *refusal) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Paddock-Error", "egress_"+string(no.reason))
	h.Set("Connection", "close")
	w.WriteHeader(no.status)
	io.WriteString(w, no.text+"\n")
}

// meteredConn is a container's connection as the server of its tunnel sees it: what passes is counted, and close is noticed.
type meteredConn struct {
	net.Conn
	in     io.Reader
	m      *meter
	over   atomic.Bool
	closed chan struct{}
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	return n, c.count(int64(n), 0, err)
}

func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.count(0, int64(n), err)
}

func (c *meteredConn) count(out, in int64, err error) error {
	if out+in > 0 && !c.m.count(out, in) {
		c.m.s.end(ReasonBytes)
		return net.ErrClosed
	}
	return err
}

// CloseWrite lets the server end its side first, so that who still writes reads why.
func (c *meteredConn) CloseWrite() error { return c.m.s.client.CloseWrite() }

func (c *meteredConn) Close() error {
	if c.over.CompareAndSwap(false, true) {
		close(c.closed)
	}
	return c.Conn.Close()
}

// onlyConn is a listener of one connection: it ends when that is closed.
type onlyConn struct {
	c     *meteredConn
	given bool
}

func (l *onlyConn) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.c, nil
	}
	<-l.c.closed
	return nil, net.ErrClosed
}

func (l *onlyConn) Close() error   { return nil }
func (l *onlyConn) Addr() net.Addr { return l.c.LocalAddr() }
