package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool/link"
)

// SocketName is the socket's name in its directory.
const SocketName = "egress"

// Door is one container's socket. It refuses everything until SetRules, and serves one tenant in its life. Safe for
// concurrent use.
type Door struct {
	p    *Proxy
	id   call.ContainerID
	ln   *net.UnixListener
	path string
	wg   sync.WaitGroup
	pace *rate.Limiter
	ctx  context.Context // ends with Close
	stop context.CancelFunc

	mu       sync.Mutex
	closed   bool
	callOf   func() call.ID
	tenant   tenant.ID
	rules    Rules
	secrets  map[string]string
	sessions map[*session]struct{}
}

// Open makes dir/egress, mode 0600, owned by uid and gid, as link.Listen makes its socket, and serves it until Close.
func (p *Proxy) Open(dir string, uid, gid uint32, id call.ContainerID) (*Door, error) {
	ln, err := link.ListenUnix(dir, SocketName, uid, gid)
	if err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	d := &Door{
		p: p, id: id, ln: ln, path: filepath.Join(dir, SocketName), sessions: map[*session]struct{}{},
		pace: rate.NewLimiter(rate.Limit(p.o.ConnectRate), 2*p.o.ConnectRate),
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.doors[d] = struct{}{}
	}
	p.mu.Unlock()
	if closed {
		d.stop()
		ln.Close()
		os.Remove(d.path)
		return nil, errors.New("egress: the proxy is closed")
	}
	d.wg.Go(d.accept)
	return d, nil
}

// Rules are what a tenant's containers may reach. Allow opens public addresses; Private opens, for what it names,
// special-purpose addresses and refused ports too ("*:443" opens nothing there). Inject adds secrets to requests that Allow or
// Private lets out; it lets nothing out by itself.
type Rules struct {
	Allow, Private []Rule
	Inject         []Injection
}

// SetRules names the tenant and replaces its rules; tunnels that no rule allows any more are closed. A second tenant on the same
// door is a fault of the caller: from then on everything is refused. The caller leaves the slices alone afterwards.
func (d *Door) SetRules(t tenant.ID, r Rules) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	switch {
	case d.tenant == "":
		d.tenant = t
		d.p.joinTenant(t)
	case d.tenant != t:
		d.p.o.Logger.Error("an egress door was given to a second tenant", "container", d.id, "tenant", d.tenant, "second", t)
		r = Rules{}
	}
	d.rules = r
	var unfit []*session
	for s := range d.sessions {
		if s.established && !d.permitsLocked(s, s.addr) {
			unfit = append(unfit, s)
		}
	}
	d.mu.Unlock()
	for _, s := range unfit {
		s.end(ReasonRules)
	}
}

// SetSecrets replaces the secrets that injections take their values from; the next request uses them. The caller leaves the map
// alone afterwards.
func (d *Door) SetSecrets(values map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets = values
}

func (d *Door) secret(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.secrets[name]
}

// injections are those for what the code asks for.
func (d *Door) injections(asked destination) []Injection {
	d.mu.Lock()
	defer d.mu.Unlock()
	return injectionsFor(d.rules.Inject, asked)
}

// NameCalls sets what names the call that runs in the container, "" if that is not clear. It is asked once for each request, on
// any goroutine.
func (d *Door) NameCalls(callOf func() call.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.callOf = callOf
}

func (d *Door) call() call.ID {
	d.mu.Lock()
	callOf := d.callOf
	d.mu.Unlock()
	if callOf == nil {
		return ""
	}
	return callOf()
}

// CloseTunnels closes all connections of the container, as before it is frozen. New ones are served again.
func (d *Door) CloseTunnels() {
	for _, s := range d.all() {
		s.end(ReasonShut)
	}
}

// Close ends the door, its socket and its tunnels, and waits for its goroutines. Idempotent.
func (d *Door) Close() error {
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	t := d.tenant
	d.mu.Unlock()
	var err error
	if first {
		d.stop()
		err = d.ln.Close()
		if rerr := os.Remove(d.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	d.CloseTunnels()
	d.wg.Wait()
	if first {
		d.p.mu.Lock()
		delete(d.p.doors, d)
		d.p.mu.Unlock()
		if t != "" {
			d.p.leaveTenant(t)
		}
	}
	return err
}

func (d *Door) all() []*session {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]*session, 0, len(d.sessions))
	for s := range d.sessions {
		list = append(list, s)
	}
	return list
}

// Bounds on a connection that is refused unheard: what is read of its request, and how long it may take.
const (
	maxRefusedBytes = 16 << 10
	refusedTime     = 500 * time.Millisecond
)

// accept serves the socket. One connection over the limit is told so and closed on this goroutine: it costs no other
// door.
func (d *Door) accept() {
	for {
		if d.pace.Wait(d.ctx) != nil {
			return
		}
		c, err := d.ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // out of descriptors, say: others will be freed
		}
		s := d.admit(c)
		if s == nil {
			d.p.decided(Decision{
				Time: time.Now(), Event: EventDenied, Reason: ReasonConnections, Tenant: d.Tenant(), Container: d.id, Call: d.call(),
			})
			c.SetDeadline(time.Now().Add(refusedTime))
			refuse(c, statusTooMany, ReasonConnections, fmt.Sprintf("too many egress connections at once: at most %d for a container",
				d.p.o.MaxPerContainer))
			c.CloseWrite()
			io.CopyN(io.Discard, c, maxRefusedBytes) // who still writes when it is closed would not read why
			c.Close()
			continue
		}
		d.wg.Go(s.serve)
	}
}

// Tenant is "" before SetRules.
func (d *Door) Tenant() tenant.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tenant
}

func (d *Door) admit(c *net.UnixConn) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.sessions) >= d.p.o.MaxPerContainer {
		return nil
	}
	ctx, cancel := context.WithCancel(d.ctx)
	s := &session{d: d, p: d.p, client: c, ctx: ctx, cancel: cancel}
	d.sessions[s] = struct{}{}
	d.p.sessions(1)
	return s
}

func (p *Proxy) sessions(n int) {
	p.mu.Lock()
	p.stats.Sessions += n
	p.mu.Unlock()
}

func (d *Door) forget(s *session) {
	d.mu.Lock()
	delete(d.sessions, s)
	d.mu.Unlock()
	d.p.sessions(-1)
}

// establish marks s as a tunnel to addr, unless the rules have changed meanwhile or the door is closing.
func (d *Door) establish(s *session, addr netip.AddrPort) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || s.ended() || !d.permitsLocked(s, addr) {
		return false
	}
	s.established, s.addr = true, addr
	return true
}

// permitsLocked says whether the rules allow the session a connection to this address, and want it to have the secrets that it
// has.
func (d *Door) permitsLocked(s *session, addr netip.AddrPort) bool {
	named := namedPrivately(d.rules.Private, s.to)
	return (named || anyMatches(d.rules.Allow, s.to) && !dangerous(s.to.port)) && fit(addr.Addr(), s.to, named) &&
		slices.Equal(s.inject, injectionsFor(d.rules.Inject, s.asked))
}

// fit says whether an address is one that the destination may have; named says that an operator has named it as private.
func fit(a netip.Addr, to destination, named bool) bool {
	switch Classify(a) {
	case ClassPublic:
		return true
	case ClassSpecial:
		return named
	case ClassLiteral:
		return named && to.addr.IsValid()
	}
	return false
}

func (d *Door) current() (tenant.ID, Rules) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tenant, d.rules
}

func anyMatches(rules []Rule, to destination) bool {
	for _, r := range rules {
		if r.matches(to) {
			return true
		}
	}
	return false
}

// namedPrivately says whether an operator has named the destination: not by "*:port", and a refused port not by "host:*".
func namedPrivately(private []Rule, to destination) bool {
	for _, r := range private {
		if !r.any && r.matches(to) && (r.port != 0 || !dangerous(to.port)) {
			return true
		}
	}
	return false
}
