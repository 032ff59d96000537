package logs

import (
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// Filter chooses lines. The zero value takes all.
type Filter struct {
	Function string  // "" = all
	Call     call.ID // "" = all
	Level    Level   // the least level taken
}

// Level orders the levels of log lines.
type Level int

// The levels, least first.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// ParseLevel returns the level named s ("" is Debug) and whether there is one.
func ParseLevel(s string) (Level, bool) {
	switch s {
	case "", "debug":
		return Debug, true
	case "info":
		return Info, true
	case "warn":
		return Warn, true
	case "error":
		return Error, true
	}
	return Debug, false
}

// Match says whether the filter takes the line. A level nobody knows counts as info.
func (f Filter) Match(l call.LogLine) bool {
	if f.Function != "" && l.Function != f.Function {
		return false
	}
	if f.Call != "" && l.Call != f.Call {
		return false
	}
	level, ok := ParseLevel(l.Level)
	if !ok {
		level = Info
	}
	return level >= f.Level
}

// Subscription is a live tail of one tenant. Whoever subscribed closes it.
type Subscription struct {
	hub    *Hub
	tenant tenant.ID
	filter Filter
	lines  chan call.LogLine
	lost   int64 // bytes dropped since the last line that went in; under the hub's lock
	ended  bool  // under the hub's lock
}

// Subscribe returns the newest n kept lines that match, and a subscription to all that follow: no line is missing between
// the two and none is twice.
func (h *Hub) Subscribe(t tenant.ID, f Filter, n int, now time.Time) ([]call.LogLine, *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Subscription{hub: h, tenant: t, filter: f, lines: make(chan call.LogLine, h.opts.SubscriberLines)}
	if h.closed {
		s.ended = true
		close(s.lines)
		return nil, s
	}
	kept := h.keptLocked(t, f, n, now)
	if h.subs[t] == nil {
		h.subs[t] = map[*Subscription]struct{}{}
	}
	h.subs[t][s] = struct{}{}
	return kept, s
}

// Lines is closed when the subscription, the tenant or the hub has ended. A line's Dropped counts also the bytes that this
// subscriber was too slow for.
func (s *Subscription) Lines() <-chan call.LogLine { return s.lines }

// Close ends the subscription. Idempotent.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.endLocked()
}

// offer hands the line over if there is room, under the hub's lock.
func (s *Subscription) offer(l call.LogLine) {
	if !s.filter.Match(l) {
		return
	}
	bytes := int64(len(l.Text)) + l.Dropped
	l.Dropped += s.lost
	select {
	case s.lines <- l:
		s.lost = 0
	default:
		s.lost += bytes
	}
}

func (s *Subscription) endLocked() {
	if s.ended {
		return
	}
	s.ended = true
	subs := s.hub.subs[s.tenant]
	if delete(subs, s); len(subs) == 0 {
		delete(s.hub.subs, s.tenant)
	}
	close(s.lines)
}
