// Package logs keeps what tenants' code wrote: the newest lines of each tenant in memory, bounded per tenant and in all,
// and live subscriptions. Whoever publishes is never held up: a slow subscriber loses lines and is told how many bytes.
// It writes nothing to disk and authorizes nobody.
package logs

import (
	"container/list"
	"sync"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// Defaults of Options.
const (
	DefaultTenantBytes     = 256 << 10
	DefaultTotalBytes      = 64 << 20
	DefaultSubscriberLines = 1024
)

// lineOverhead is what a kept line costs besides its text, roughly.
const lineOverhead = 160

// Options bounds a Hub. A zero field is its default.
type Options struct {
	TenantBytes     int // kept per tenant, text and overhead
	TotalBytes      int // kept in all; beyond it the tenants that have been silent longest lose theirs first
	SubscriberLines int // buffered per subscription; more are dropped and counted
}

// Hub holds the rings and the subscriptions. Safe for concurrent use.
type Hub struct {
	opts Options

	mu      sync.Mutex
	tenants map[tenant.ID]*room
	silent  *list.List // of *room, the one that wrote last in front
	bytes   int        // sum of room.bytes
	closed  bool
}

// room is one tenant's lines and listeners. It exists while it has either.
type room struct {
	id    tenant.ID
	lines []call.LogLine // oldest first; a slice that slides
	bytes int
	subs  map[*Subscription]struct{}
	place *list.Element
}

// New makes an empty Hub.
func New(o Options) *Hub {
	if o.TenantBytes <= 0 {
		o.TenantBytes = DefaultTenantBytes
	}
	if o.TotalBytes <= 0 {
		o.TotalBytes = DefaultTotalBytes
	}
	if o.SubscriberLines <= 0 {
		o.SubscriberLines = DefaultSubscriberLines
	}
	return &Hub{opts: o, tenants: map[tenant.ID]*room{}, silent: list.New()}
}

// Publish keeps the line and hands it to the subscriptions it matches. It never blocks. A line without a tenant is
// nobody's and is dropped.
func (h *Hub) Publish(l call.LogLine) {
	if l.Tenant == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	r := h.roomLocked(l.Tenant)
	h.silent.MoveToFront(r.place)
	h.keepLocked(r, l)
	for s := range r.subs {
		s.offer(l)
	}
}

func cost(l call.LogLine) int { return len(l.Text) + lineOverhead }

func (h *Hub) keepLocked(r *room, l call.LogLine) {
	r.lines = append(r.lines, l)
	r.bytes += cost(l)
	h.bytes += cost(l)
	for r.bytes > h.opts.TenantBytes && len(r.lines) > 0 {
		h.forgetOldestLocked(r)
	}
	for e := h.silent.Back(); h.bytes > h.opts.TotalBytes && e != nil; {
		quiet := e.Value.(*room)
		e = e.Prev()
		for h.bytes > h.opts.TotalBytes && len(quiet.lines) > 0 {
			h.forgetOldestLocked(quiet)
		}
		h.dropIfEmptyLocked(quiet)
	}
}

func (h *Hub) forgetOldestLocked(r *room) {
	n := cost(r.lines[0])
	r.lines[0] = call.LogLine{} // lets the text go although the array stays
	r.lines = r.lines[1:]
	r.bytes -= n
	h.bytes -= n
	if len(r.lines) == 0 {
		r.lines = nil
	}
}

func (h *Hub) roomLocked(t tenant.ID) *room {
	r := h.tenants[t]
	if r == nil {
		r = &room{id: t, subs: map[*Subscription]struct{}{}}
		r.place = h.silent.PushFront(r)
		h.tenants[t] = r
	}
	return r
}

func (h *Hub) dropIfEmptyLocked(r *room) {
	if len(r.lines) == 0 && len(r.subs) == 0 && h.tenants[r.id] == r {
		delete(h.tenants, r.id)
		h.silent.Remove(r.place)
	}
}

// Kept returns the newest n kept lines of a tenant that match, oldest first.
func (h *Hub) Kept(t tenant.ID, f Filter, n int) []call.LogLine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keptLocked(t, f, n)
}

func (h *Hub) keptLocked(t tenant.ID, f Filter, n int) []call.LogLine {
	r := h.tenants[t]
	if r == nil || n <= 0 {
		return nil
	}
	var newestFirst []call.LogLine
	for i := len(r.lines) - 1; i >= 0 && len(newestFirst) < n; i-- {
		if f.Match(r.lines[i]) {
			newestFirst = append(newestFirst, r.lines[i])
		}
	}
	for i, j := 0, len(newestFirst)-1; i < j; i, j = i+1, j-1 {
		newestFirst[i], newestFirst[j] = newestFirst[j], newestFirst[i]
	}
	return newestFirst
}

// Remove forgets a tenant: its lines are gone and its subscriptions end.
func (h *Hub) Remove(t tenant.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.tenants[t]
	if r == nil {
		return
	}
	h.bytes -= r.bytes
	delete(h.tenants, t)
	h.silent.Remove(r.place)
	for s := range r.subs {
		s.endLocked()
	}
}

// Close ends all subscriptions; later lines are dropped. Idempotent.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for t, r := range h.tenants {
		for s := range r.subs {
			s.endLocked()
		}
		delete(h.tenants, t)
	}
	h.silent.Init()
	h.bytes = 0
}

// Stats is what a Hub holds now.
type Stats struct {
	Tenants       int
	Bytes         int
	Subscriptions int
}

// Stats returns a snapshot.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := Stats{Tenants: len(h.tenants), Bytes: h.bytes}
	for _, r := range h.tenants {
		st.Subscriptions += len(r.subs)
	}
	return st
}
