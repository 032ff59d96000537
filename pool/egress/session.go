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
	"sync"
	"syscall"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

const (
	maxHead       = 8 << 10 // of a request
	statusTooMany = http.StatusTooManyRequests
)

// session is one connection of a container: its request, the decision, the tunnel. It lives on its serve goroutine; end may
// be called by anybody.
type session struct {
	d      *Door
	p      *Proxy
	client *net.UnixConn
	ctx    context.Context
	cancel context.CancelFunc
	call   call.ID // this and the next three are set by serve
	asked  destination
	to     destination // asked, or where an injection leads
	inject []Injection

	// Guarded by Door.mu.
	established bool
	addr        netip.AddrPort

	mu     sync.Mutex
	over   bool
	reason Reason
	server net.Conn
}

// end closes the session for a reason; the first one stays.
func (s *session) end(r Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over, s.reason = true, r
	s.client.Close() // first: what the others' end leads to is not for its ears
	if s.server != nil {
		s.server.Close()
	}
	s.cancel()
}

func (s *session) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// attach hands the server's connection over to end; false if it came too late.
func (s *session) attach(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = c
	return !s.over
}

func (s *session) serve() {
	defer s.d.forget(s)
	defer s.end("")
	s.client.SetDeadline(time.Now().Add(s.p.o.HeadTimeout))
	in := bufio.NewReaderSize(io.LimitReader(s.client, maxHead), maxHead)
	to, problem := readRequest(in)
	s.call = s.d.call()
	if problem != "" {
		s.refuse(&refusal{http.StatusBadRequest, ReasonInvalid, problem}, destination{name: fmt.Sprintf("%.100q", to.name)})
		return
	}
	s.client.SetDeadline(time.Time{})
	early, _ := in.Peek(in.Buffered()) // sent before our answer: the first bytes for the other side
	s.asked, s.to, s.inject = to, to, s.d.injections(to)
	if len(s.inject) > 0 {
		s.to = s.inject[0].to
	}
	t, ok := s.connect(s.to)
	switch {
	case !ok:
	case len(s.inject) > 0:
		t.inject(early)
	default:
		t.carry(early)
	}
}

// readRequest reads one CONNECT. problem is for the caller's eyes; the destination's name is then raw and hostile.
func readRequest(in *bufio.Reader) (to destination, problem string) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return to, "this is not an HTTP request that a proxy can read"
	}
	if r.Method != http.MethodConnect {
		return destination{name: r.Method}, "this proxy does CONNECT and nothing else"
	}
	if r.ContentLength > 0 || len(r.TransferEncoding) > 0 {
		return destination{name: r.RequestURI}, "CONNECT with a body"
	}
	to, err = parseDestination(r.RequestURI)
	if err != nil {
		return destination{name: r.RequestURI}, "CONNECT to " + err.Error()
	}
	return to, ""
}

// refusal is a request that comes to nothing, and what its sender is told.
type refusal struct {
	status int
	reason Reason
	text   string
}

// connect decides about the destination and connects to it; if not, it has answered.
func (s *session) connect(to destination) (*tunnel, bool) {
	t, addrs, no := s.approve(to)
	var number uint64
	if no == nil {
		var reason Reason
		if number, reason = s.p.admit(t); reason != ReasonAllowed {
			no = &refusal{statusTooMany, reason, fmt.Sprintf("egress to %v is not possible now: the limit on %s is reached", to, reason)}
		}
	}
	if no != nil {
		s.refuse(no, to)
		return nil, false
	}
	server, addr, no := s.open(to, addrs)
	if no != nil {
		s.p.release(t, "")
		s.refuse(no, to)
		return nil, false
	}
	opened := s.decision(to, ReasonAllowed)
	opened.Tenant, opened.Tunnel, opened.Addr = t, number, addr
	for _, inj := range s.inject {
		opened.Secrets = append(opened.Secrets, inj.secret)
	}
	return &tunnel{s: s, server: server, opened: opened, told: s.p.decided(opened)}, true
}

// approve holds the destination against the rules and resolves it; every address is judged.
func (s *session) approve(to destination) (tenant.ID, []netip.Addr, *refusal) {
	t, rules := s.d.current()
	named := namedPrivately(rules.Private, to)
	switch {
	case dangerous(to.port) && !named:
		return t, nil, denial(t, ReasonPort, to, "; port %d is closed unless the operator names it as private", to.port)
	case !named && !anyMatches(rules.Allow, to):
		return t, nil, denial(t, ReasonNoRule, to, ": ask the operator to add it to the allow-list")
	}
	addrs, reason := s.resolve(to)
	if reason != "" {
		return t, nil, failure(to, reason)
	}
	if reason := s.judge(to, addrs, named); reason != "" {
		return t, nil, denial(t, reason, to, "%s", unfit[reason])
	}
	return t, addrs, nil
}

// unfit says what is wrong with an address, without naming it: it may be one of an inner network.
var unfit = map[Reason]string{
	ReasonAddress: ": it is, or resolves to, an address that only the operator can open by name as private",
	ReasonSelf:    ": it leads back to the service itself",
}

// open connects to what was approved, if the rules still allow it then.
func (s *session) open(to destination, addrs []netip.Addr) (net.Conn, netip.AddrPort, *refusal) {
	server, addr, reason := s.dial(addrs, to.port)
	if reason == "" && !s.d.establish(s, addr) {
		server.Close()
		reason = ReasonRules
	}
	if reason != "" {
		return nil, addr, failure(to, reason)
	}
	return server, addr, nil
}

// resolve returns every address of the destination, unmapped.
func (s *session) resolve(to destination) ([]netip.Addr, Reason) {
	if to.addr.IsValid() {
		return []netip.Addr{to.addr}, ""
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.p.o.ResolveTimeout)
	defer cancel()
	addrs, err := s.p.o.Resolver.LookupNetIP(ctx, "ip", to.name+".") // the dot keeps search domains out
	if err != nil || len(addrs) == 0 {
		if ctx.Err() != nil {
			return nil, ReasonTimeout
		}
		return nil, ReasonDNS
	}
	unmapped := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		unmapped[i] = a.Unmap()
	}
	return unmapped, ""
}

// judge looks at all addresses: one bad one spoils the name, whatever the others are.
func (s *session) judge(to destination, addrs []netip.Addr, named bool) Reason {
	for _, a := range addrs {
		switch {
		case !fit(a, to, named):
			return ReasonAddress
		case s.p.o.Forbidden(netip.AddrPortFrom(a, to.port)):
			return ReasonSelf
		}
	}
	return ""
}

// dial connects to the first address that answers. The addresses are what was judged: nothing is resolved again.
func (s *session) dial(addrs []netip.Addr, port uint16) (c net.Conn, addr netip.AddrPort, reason Reason) {
	ctx, cancel := context.WithTimeout(s.ctx, s.p.o.DialTimeout)
	defer cancel()
	const tries = 4
	var err error
	for i, a := range addrs[:min(len(addrs), tries)] {
		addr = netip.AddrPortFrom(a, port)
		share, cancel := context.WithTimeout(ctx, s.p.o.DialTimeout/time.Duration(min(len(addrs), tries)-i))
		c, err = s.p.o.Dial(share, addr)
		cancel()
		if err != nil {
			continue
		}
		if toItself(c) {
			c.Close()
			return nil, addr, ReasonSelf
		}
		if !s.attach(c) {
			c.Close()
			return nil, addr, ReasonShut
		}
		return c, addr, ""
	}
	return nil, addr, dialReason(err)
}

// toItself says whether a TCP socket connected to its own port, which the kernel permits.
func toItself(c net.Conn) bool {
	l, r := c.LocalAddr(), c.RemoteAddr()
	return l != nil && r != nil && l.Network() == r.Network() && l.String() == r.String()
}

func dialReason(err error) Reason {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return ReasonRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return ReasonTimeout
	case errors.Is(err, context.Canceled):
		return ReasonShut
	}
	return ReasonUnreachable
}

func denial(t tenant.ID, r Reason, to destination, why string, args ...any) *refusal {
	who := "tenant " + t.String()
	if t == "" {
		who = "a container that has no tenant yet"
	}
	return &refusal{http.StatusForbidden, r, fmt.Sprintf("egress to %v is not allowed for %s%s", to, who, fmt.Sprintf(why, args...))}
}

// failures says of some reasons more than their name.
var failures = map[Reason]string{
	ReasonDNS:         "the name does not resolve",
	ReasonRefused:     "connection refused",
	ReasonTimeout:     "no answer in time",
	ReasonUnreachable: "no way there",
	ReasonRules:       "the rules changed meanwhile",
	ReasonShut:        "the sandbox is being put away",
	ReasonTLS:         "TLS with it was not possible",
	ReasonBroken:      "the connection ended before the answer",
	ReasonSelf:        "it leads back to the service itself",
}

func failure(to destination, r Reason) *refusal {
	return &refusal{http.StatusBadGateway, r, fmt.Sprintf("connecting to %v failed: %s", to, failures[r])}
}

// refuse answers, and tells the observer.
func (s *session) refuse(no *refusal, to destination) {
	s.p.decided(s.decision(to, no.reason))
	s.client.SetDeadline(time.Now().Add(time.Second))
	refuse(s.client, no.status, no.reason, no.text)
}

func (s *session) decision(to destination, r Reason) Decision {
	return Decision{
		Time: time.Now(), Event: r.event(), Reason: r, Tenant: s.d.Tenant(), Container: s.d.id, Call: s.call,
		Host: to.host(), Port: to.port,
	}
}

// refuse writes a whole response of one line of text.
func refuse(w io.Writer, status int, r Reason, text string) {
	text += "\n"
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nPaddock-Error: egress_%s\r\n"+
		"Connection: close\r\n\r\n%s", status, http.StatusText(status), len(text), r, text)
}
