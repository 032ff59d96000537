// Package logs keeps what tenants' code wrote and which calls there were: the newest lines, calls and recorded inputs of each
// tenant in memory, bounded per tenant by bytes and age and in all by bytes, and live subscriptions to lines. Whoever publishes
// is never held up: a slow subscriber loses lines and is told how many bytes. It writes nothing to disk, takes no secrets out
// of anything and authorizes nobody.
package logs

import (
	"slices"
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// Defaults of Options.
const (
	DefaultTotalBytes      = 128 << 20
	DefaultSubscriberLines = 1024
)

// lineOverhead is what a kept line costs besides its text, roughly.
const lineOverhead = 160

// Options bounds a Hub. A zero field is its default.
type Options struct {
	TotalBytes      int64 // of the lines of all tenants
	SubscriberLines int   // buffered per subscription; more are dropped and counted
}

// Hub holds the lines and the subscriptions. Safe for concurrent use.
type Hub struct {
	opts Options

	mu     sync.Mutex
	lines  *shelf[call.LogLine]
	subs   map[tenant.ID]map[*Subscription]struct{} // no tenant with none
	closed bool
}

// New makes an empty Hub.
func New(o Options) *Hub {
	if o.TotalBytes <= 0 {
		o.TotalBytes = DefaultTotalBytes
	}
	if o.SubscriberLines <= 0 {
		o.SubscriberLines = DefaultSubscriberLines
	}
	return &Hub{opts: o, subs: map[tenant.ID]map[*Subscription]struct{}{},
		lines: newShelf(o.TotalBytes, weighLine, func(l *call.LogLine) time.Time { return l.Time })}
}

func weighLine(l *call.LogLine) int64 { return int64(len(l.Text)) + lineOverhead }

func (l Limits) lineBound() bound { return bound{bytes: l.Bytes / lineShare, retention: l.Retention} }

// Publish keeps the line and hands it to the subscriptions it matches. It never blocks. A line without a tenant is
// nobody's and is dropped.
func (h *Hub) Publish(l call.LogLine, of Limits) {
	if l.Tenant == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.lines.put(l.Tenant, l, weighLine(&l), of.lineBound(), l.Time)
	for s := range h.subs[l.Tenant] {
		s.offer(l)
	}
}

// Kept returns the newest n kept lines of a tenant that match, oldest first.
func (h *Hub) Kept(t tenant.ID, f Filter, n int, now time.Time) []call.LogLine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keptLocked(t, f, n, now)
}

func (h *Hub) keptLocked(t tenant.ID, f Filter, n int, now time.Time) []call.LogLine {
	if n <= 0 {
		return nil
	}
	var lines []call.LogLine
	h.lines.each(t, now, func(l *call.LogLine) bool {
		if f.Match(*l) {
			lines = append(lines, *l)
		}
		return len(lines) < n
	})
	slices.Reverse(lines)
	return lines
}

// Sweep drops what is too old, and what is of tenants for which limitsOf knows no limits. Somebody calls it now and then.
func (h *Hub) Sweep(now time.Time, limitsOf func(tenant.ID) (Limits, bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines.sweep(now, func(t tenant.ID) (bound, bool) { l, ok := limitsOf(t); return l.lineBound(), ok })
}

// Remove forgets a tenant: its lines are gone and its subscriptions end.
func (h *Hub) Remove(t tenant.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines.remove(t)
	for s := range h.subs[t] {
		s.endLocked()
	}
}

// Close ends all subscriptions; later lines are dropped. Idempotent.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, subs := range h.subs {
		for s := range subs {
			s.endLocked()
		}
	}
	for t := range h.lines.bins {
		h.lines.remove(t)
	}
}

// Stats is what a Hub holds now.
type Stats struct {
	Tenants       int
	Bytes         int64
	Subscriptions int
}

// Stats returns a snapshot.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := Stats{Tenants: len(h.lines.bins), Bytes: h.lines.bytes}
	for _, subs := range h.subs {
		st.Subscriptions += len(subs)
	}
	return st
}
