package egress

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"paddock/internal/tenant"
)

// Defaults of Options.
const (
	DefaultMaxPerContainer = 64
	DefaultMaxPerTenant    = 256
	DefaultConnectRate     = 100      // per second and container, bursts of twice that
	DefaultTenantBytes     = 16 << 30 // both ways, per TenantWindow
	DefaultTunnelBytes     = 4 << 30  // both ways
	DefaultTunnelLife      = time.Hour
	DefaultIdle            = 5 * time.Minute
	DefaultHeadTimeout     = 10 * time.Second
	DefaultResolveTimeout  = 5 * time.Second
	DefaultDialTimeout     = 10 * time.Second
	DefaultDeniedRate      = 5  // told per second and tenant, bursts of ten times that
	DefaultAllowedRate     = 20 // likewise

	// TenantWindow is the period after which a tenant's bytes are counted from zero again.
	TenantWindow = time.Hour
)

// Resolver turns a name, which ends in a dot, into addresses. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options of a Proxy. Zero values stand for the defaults.
type Options struct {
	MaxPerContainer int // connections at once, whatever their state
	MaxPerTenant    int // tunnels at once, over all containers
	// ConnectRate is how many connections a container may open per second; more wait in the socket's backlog, so that a loop
	// floods neither the audit log nor the resolver.
	ConnectRate    int
	TenantBytes    int64
	TunnelBytes    int64
	TunnelLife     time.Duration
	Idle           time.Duration // without a byte in either direction
	HeadTimeout    time.Duration // for the request's head
	ResolveTimeout time.Duration
	DialTimeout    time.Duration // for all addresses of one destination together

	Resolver Resolver // default: the hosts file, then DNS without search domains
	// Dial connects to an address that was judged; it resolves nothing. Default: net.Dialer.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Forbidden says whether an address is one of our own listeners. nil: none is.
	Forbidden func(netip.AddrPort) bool
	// Roots are the authorities whose certificates count where a secret is added. nil: the host's.
	Roots    *x509.CertPool
	Observer Observer // nil: nobody is told
	// DeniedRate and AllowedRate are how many refusals and how many tunnels of a tenant the observer hears of per second.
	DeniedRate, AllowedRate int
	Logger                  *slog.Logger // nil discards
}

func (o Options) withDefaults() Options {
	set(&o.MaxPerContainer, DefaultMaxPerContainer)
	set(&o.MaxPerTenant, DefaultMaxPerTenant)
	set(&o.ConnectRate, DefaultConnectRate)
	set(&o.TenantBytes, DefaultTenantBytes)
	set(&o.TunnelBytes, DefaultTunnelBytes)
	set(&o.TunnelLife, DefaultTunnelLife)
	set(&o.Idle, DefaultIdle)
	set(&o.HeadTimeout, DefaultHeadTimeout)
	set(&o.ResolveTimeout, DefaultResolveTimeout)
	set(&o.DialTimeout, DefaultDialTimeout)
	set(&o.DeniedRate, DefaultDeniedRate)
	set(&o.AllowedRate, DefaultAllowedRate)
	if o.Resolver == nil {
		o.Resolver = newSystemResolver()
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	if o.Forbidden == nil {
		o.Forbidden = func(netip.AddrPort) bool { return false }
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

type nobody struct{}

func (nobody) Decided(Decision) {}

func set[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Stats is a snapshot of the counters.
type Stats struct {
	Decisions map[Reason]int64 // one for every request
	Ended     map[Reason]int64 // tunnels that were closed by us
	Tunnels   int              // open now
	Sessions  int              // connections of containers, in any state
	Untold    int64            // decisions that the observer was spared
	BytesOut  int64            // from containers
	BytesIn   int64
}

// Proxy holds what all doors share. Safe for concurrent use.
type Proxy struct {
	o Options

	mu      sync.Mutex
	closed  bool
	doors   map[*Door]struct{}
	tenants map[tenant.ID]*account
	swept   time.Time // when accounts were last looked through
	unbound telling   // of containers without a tenant
	numbers uint64    // of tunnels
	stats   Stats
}

// account is what one tenant uses over all its doors. It outlives the last of them while it has bytes to remember, so that no
// tenant gets new ones by losing its containers. Guarded by Proxy.mu.
type account struct {
	doors   int
	tunnels int
	bytes   int64
	since   time.Time
	telling telling
}

// New makes a Proxy without doors.
func New(o Options) *Proxy {
	p := &Proxy{
		o: o.withDefaults(), doors: map[*Door]struct{}{}, tenants: map[tenant.ID]*account{},
		stats: Stats{Decisions: map[Reason]int64{}, Ended: map[Reason]int64{}},
	}
	p.unbound = p.newTelling()
	return p
}

// Stats returns the counters.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Decisions, s.Ended = clone(s.Decisions), clone(s.Ended)
	return s
}

func clone(m map[Reason]int64) map[Reason]int64 {
	c := make(map[Reason]int64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// Close closes all doors and waits for their goroutines. Idempotent.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	doors := make([]*Door, 0, len(p.doors))
	for d := range p.doors {
		doors = append(doors, d)
	}
	p.mu.Unlock()
	for _, d := range doors {
		d.Close()
	}
	return nil
}

// admit takes a tunnel of the tenant's share and numbers it, or says why not. release gives it back.
func (p *Proxy) admit(t tenant.ID) (uint64, Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.tenants[t]
	switch {
	case a == nil || p.closed:
		return 0, ReasonShut
	case a.tunnels >= p.o.MaxPerTenant:
		return 0, ReasonConnections
	case a.spent(p.o.TenantBytes):
		return 0, ReasonBytes
	}
	a.tunnels++
	p.stats.Tunnels++
	p.numbers++
	return p.numbers, ReasonAllowed
}

func (p *Proxy) release(t tenant.ID, ended Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Tunnels--
	if ended != "" {
		p.stats.Ended[ended]++
	}
	if a := p.tenants[t]; a != nil {
		a.tunnels--
	}
}

// count adds bytes of the tenant and says whether there are any left.
func (p *Proxy) count(t tenant.ID, out, in int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.BytesOut += out
	p.stats.BytesIn += in
	a := p.tenants[t]
	if a == nil {
		return false
	}
	a.bytes += out + in
	return !a.spent(p.o.TenantBytes)
}

func (a *account) spent(limit int64) bool {
	if now := time.Now(); now.Sub(a.since) >= TenantWindow {
		a.since, a.bytes = now, 0
	}
	return a.bytes >= limit
}

// joinTenant and leaveTenant count the doors of a tenant.
func (p *Proxy) joinTenant(t tenant.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.sweepLocked(now)
	a := p.tenants[t]
	if a == nil {
		a = &account{since: now, telling: p.newTelling()}
		p.tenants[t] = a
	}
	a.doors++
}

func (p *Proxy) leaveTenant(t tenant.ID) {
	p.mu.Lock()
	a := p.tenants[t]
	var dropped int64
	if a != nil {
		if a.doors--; a.doors == 0 {
			dropped, a.telling.dropped = a.telling.dropped, 0
			if a.idle(time.Now()) {
				delete(p.tenants, t)
			}
		}
	}
	p.mu.Unlock()
	if dropped > 0 { // no other decision will say so
		p.o.Observer.Decided(Decision{Time: time.Now(), Event: EventDropped, Tenant: t, Dropped: dropped})
	}
}

// sweepEvery bounds how long accounts without doors are kept beyond their time.
const sweepEvery = time.Minute

func (p *Proxy) sweepLocked(now time.Time) {
	if now.Sub(p.swept) < sweepEvery {
		return
	}
	p.swept = now
	for t, a := range p.tenants {
		if a.doors == 0 && a.idle(now) {
			delete(p.tenants, t)
		}
	}
}

// idle says whether there is nothing to remember.
func (a *account) idle(now time.Time) bool {
	return a.tunnels == 0 && (a.bytes == 0 || now.Sub(a.since) >= TenantWindow)
}
