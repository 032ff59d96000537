package egress

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// Event says what a Decision is about; it is a label of few values.
type Event string

// The events. Every request of a container is one of the first three; a tunnel that was opened is closed later.
const (
	EventAllowed Event = "allowed" // a tunnel is open
	EventDenied  Event = "denied"  // by the rules, a limit, or for its form
	EventFailed  Event = "failed"  // allowed, and the other side could not be reached
	EventClosed  Event = "closed"  // an open tunnel is over
	EventDropped Event = "dropped" // tells only how many decisions were not told
)

// Reason says why a request was refused or a tunnel ended; it is a label of few values.
type Reason string

// The reasons.
const (
	ReasonAllowed     Reason = "allowed"
	ReasonInvalid     Reason = "invalid"     // not a CONNECT to a proper host:port
	ReasonNoRule      Reason = "no_rule"     // nothing allows it
	ReasonPort        Reason = "port"        // a port that only a private rule can open
	ReasonAddress     Reason = "address"     // resolves to what only a private rule can open, or to no destination at all
	ReasonSelf        Reason = "self"        // our own listeners
	ReasonConnections Reason = "connections" // too many at once
	ReasonBytes       Reason = "bytes"       // the tenant's bytes of this hour, or the tunnel's, are used up
	ReasonDNS         Reason = "dns"         // failed: the name does not resolve
	ReasonRefused     Reason = "refused"     // failed
	ReasonTimeout     Reason = "timeout"     // failed
	ReasonUnreachable Reason = "unreachable" // failed: for any other cause
	ReasonTLS         Reason = "tls"         // failed: TLS for a request with a secret; never of a Decision
	ReasonSecret      Reason = "secret"      // failed: a secret that was to be added is not there; never of a Decision
	ReasonBroken      Reason = "broken"      // failed: the connection ended before the answer to such a request; never of a Decision
	ReasonRules       Reason = "rules"       // closed: the rules changed
	ReasonIdle        Reason = "idle"        // closed
	ReasonLife        Reason = "life"        // closed
	ReasonShut        Reason = "closed"      // closed by the pool: frozen or destroyed
	ReasonDone        Reason = "done"        // closed by one of its ends
)

// event is what a request that ended for r amounts to.
func (r Reason) event() Event {
	switch r {
	case ReasonAllowed:
		return EventAllowed
	case ReasonDNS, ReasonRefused, ReasonTimeout, ReasonUnreachable, ReasonShut:
		return EventFailed
	}
	return EventDenied
}

// Decision is one event of egress, for an audit log. It is flat, and all that came from a container in it is bounded: Host is
// normalised, or quoted and cut if it was not even a destination.
type Decision struct {
	Time      time.Time
	Event     Event
	Reason    Reason
	Tenant    tenant.ID // "" before the container is bound
	Container call.ContainerID
	Call      call.ID // of the call that ran in the container; "" if it was none, or not the only one
	Tunnel    uint64  // the number of an open tunnel, the same when it is closed; 0 otherwise
	Host      string
	Port      uint16
	Addr      netip.AddrPort // what was connected to, if it came to that

	// Secrets are the names of those that are added to the requests in this tunnel.
	Secrets []string

	// Of EventClosed.
	Requests int64 // that secrets were added to
	BytesOut int64 // from the container
	BytesIn  int64
	Duration time.Duration

	// Dropped is how many decisions of this tenant were not told since the last one that was.
	Dropped int64
}

// Observer is told of decisions. Decided must not block and is called on many goroutines. Of each tenant it hears at most
// Options.DeniedRate refusals and Options.AllowedRate tunnels a second, so that code that runs wild does not fill a disk;
// what is left out is counted in Decision.Dropped and Stats.Untold. A tunnel whose opening was told is told closed.
type Observer interface {
	Decided(Decision)
}

// telling paces what the observer hears of one tenant. Guarded by Proxy.mu.
type telling struct {
	denied, allowed *rate.Limiter
	dropped         int64
}

func (p *Proxy) newTelling() telling {
	return telling{
		denied:  rate.NewLimiter(rate.Limit(p.o.DeniedRate), tellBurst*p.o.DeniedRate),
		allowed: rate.NewLimiter(rate.Limit(p.o.AllowedRate), tellBurst*p.o.AllowedRate),
	}
}

// tellBurst is how many seconds' worth of decisions may be told at once.
const tellBurst = 10

// admits says whether one more decision is told, and what was left out before it.
func (t *telling) admits(e Event, now time.Time) (dropped int64, ok bool) {
	limit := t.denied
	if e == EventAllowed {
		limit = t.allowed
	}
	if e != EventClosed && !limit.AllowN(now, 1) {
		t.dropped++
		return 0, false
	}
	dropped, t.dropped = t.dropped, 0
	return dropped, true
}

// decided counts a decision and tells it. It says whether it was told; one that closes a tunnel comes here only if its
// opening was.
func (p *Proxy) decided(d Decision) bool {
	p.mu.Lock()
	if d.Event != EventClosed {
		p.stats.Decisions[d.Reason]++
	}
	who := &p.unbound
	if a := p.tenants[d.Tenant]; a != nil {
		who = &a.telling
	}
	var tell bool
	d.Dropped, tell = who.admits(d.Event, d.Time)
	if !tell {
		p.stats.Untold++
	}
	p.mu.Unlock()
	if tell {
		p.o.Observer.Decided(d)
	}
	return tell
}
