package egress

import (
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
)

// TestDecisionsOfATunnel: what an audit log needs of one tunnel, from its opening to its end.
func TestDecisionsOfATunnel(t *testing.T) {
	w := newWorld(t, nil)
	w.rules("*:80", "")
	running := call.ID("1234")
	w.d.NameCalls(func() call.ID { return running })
	c, in, _ := w.connect("93.184.216.34:80")
	running = "5678" // another call by the time it is closed
	w.echo("open", c, in)
	c.Close()
	waitUntil(t, func() bool { return w.p.Stats().Tunnels == 0 && len(w.heard()) == 2 })
	opened, closed := w.heard()[0], w.heard()[1]
	want := Decision{
		Time: opened.Time, Event: EventAllowed, Reason: ReasonAllowed, Tenant: "acme", Container: "c1", Call: "1234", Tunnel: 1,
		Host: "93.184.216.34", Port: 80, Addr: netip.MustParseAddrPort("93.184.216.34:80"),
	}
	if !reflect.DeepEqual(opened, want) {
		t.Errorf("opened: %+v, want %+v", opened, want)
	}
	want.Time, want.Event, want.Reason, want.BytesOut, want.BytesIn, want.Duration = closed.Time, EventClosed, ReasonDone, 4, 4, closed.Duration
	if !reflect.DeepEqual(closed, want) || closed.Duration <= 0 {
		t.Errorf("closed: %+v, want %+v", closed, want)
	}
	w.connect("93.184.216.34:80")
	w.d.CloseTunnels()
	waitUntil(t, func() bool { return len(w.heard()) == 4 })
	if d := w.heard()[3]; d.Reason != ReasonShut || d.Tunnel != 2 || d.Call != "5678" {
		t.Errorf("closed by the pool: %+v", d)
	}
}

func (w *world) heard() []Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Decision(nil), w.audit...)
}

// TestAFloodOfDenialsIsCountedNotTold: what code causes without end is told up to a rate, the rest is counted, and tunnels
// are told beside it.
func TestAFloodOfDenialsIsCountedNotTold(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.DeniedRate, o.AllowedRate, o.ConnectRate = 1, 1, 100_000 })
	w.rules("*:80", "")
	const flood = 500
	for range flood {
		w.want("93.184.216.34:443", 403, ReasonNoRule)
	}
	w.want("93.184.216.34:80", 200, "")
	waitUntil(t, func() bool { return w.p.Stats().Tunnels == 0 })
	w.d.Close()
	var denied, dropped int64
	events := map[Event]int{}
	for _, d := range w.heard() {
		events[d.Event]++
		dropped += d.Dropped
		if d.Event == EventDenied {
			denied++
		}
	}
	if denied < tellBurst || denied > 2*tellBurst || denied+dropped != flood {
		t.Errorf("%d denials told and %d counted, of %d", denied, dropped, flood)
	}
	if events[EventAllowed] != 1 || events[EventClosed] != 1 {
		t.Errorf("the tunnel beside the flood was told as %v", events)
	}
	if s := w.p.Stats(); s.Untold != dropped || s.Decisions[ReasonNoRule] != flood {
		t.Errorf("counted %+v", s)
	}
}

// TestDropsAreToldAtTheEnd: when no other decision comes that could say what was left out, one is made for it.
func TestDropsAreToldAtTheEnd(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.DeniedRate, o.ConnectRate = 1, 100_000 })
	w.rules("*:80", "")
	for range 3 * tellBurst {
		w.want("93.184.216.34:443", 403, ReasonNoRule)
	}
	w.d.Close()
	all := w.heard()
	if last := all[len(all)-1]; last.Event != EventDropped || last.Dropped < tellBurst || last.Tenant != "acme" {
		t.Errorf("the last decision is %+v", last)
	}
}

// TestBytesOutliveContainers: a tenant that loses its container has no new bytes to spend.
func TestBytesOutliveContainers(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.TenantBytes = 100 })
	w.rules("*:80", "")
	c, in, _ := w.connect("93.184.216.34:80")
	io.WriteString(c, strings.Repeat("x", 200))
	io.Copy(io.Discard, in)
	w.reopen()
	w.rules("*:80", "")
	w.want("93.184.216.34:80", 429, ReasonBytes)
	// Accounts that have nothing left to remember go when somebody comes.
	w.p.mu.Lock()
	w.p.tenants["old"] = &account{bytes: 1, since: time.Now().Add(-TenantWindow)}
	w.p.swept = time.Time{}
	w.p.mu.Unlock()
	w.reopen()
	w.rules("*:80", "")
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.p.tenants["old"] != nil || w.p.tenants["acme"] == nil {
		t.Errorf("accounts: %v", w.p.tenants)
	}
}

// reopen replaces the door, as when a tenant gets another container.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.d.Close(); err != nil {
		w.t.Fatal(err)
	}
	d, err := w.p.Open(w.dir, 0, 0, "c2")
	if err != nil {
		w.t.Fatal(err)
	}
	w.d = d
}
