package chaos

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// sample is one call as its caller saw it. Times are of this process's monotonic clock, since the history began.
type sample struct {
	tenant    string
	nonce     int64
	router    int
	stream    bool
	began     time.Duration
	ended     time.Duration
	outcome   string // ok, wrong, a kind of failure, or lost: no answer came
	cause     string
	started   string
	container string
	box       string // what the container says that it is
	version   int64
	detail    string
}

func (s sample) String() string {
	return fmt.Sprintf("%s #%d by r%d at %v +%v: %s %s started=%s in %.8s: %.200s", s.tenant, s.nonce, s.router+1, s.began.Round(time.Millisecond),
		(s.ended - s.began).Round(time.Millisecond), s.outcome, s.cause, s.started, s.container, s.detail)
}

// start is the beginning of a call, as its container counted it.
type start struct {
	box   string
	count int64
}

// history is what callers and the host have seen. Safe for concurrent use.
type history struct {
	zero time.Time

	mu      sync.Mutex
	calls   []sample
	starts  map[int64]start // by nonce
	twice   []string        // calls that began twice
	tenants map[string]string
	mixed   []string // containers of which two tenants were heard
	marks   []string // what was done to the cluster, and when
}

func newHistory() *history {
	return &history{zero: time.Now(), starts: map[int64]start{}, tenants: map[string]string{}}
}

func (h *history) now() time.Duration { return time.Since(h.zero) }

// mark notes what is done to the cluster.
func (h *history) mark(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks = append(h.marks, fmt.Sprintf("%8.3fs ", h.now().Seconds())+fmt.Sprintf(format, args...))
}

// add keeps a call, and what its container told of others.
func (h *history) add(s sample, starts [][2]int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, s)
	for _, id := range []string{s.box, s.container} {
		if id == "" {
			continue
		}
		if t, ok := h.tenants[id]; ok && t != s.tenant {
			h.mixed = append(h.mixed, fmt.Sprintf("%s served %s and then %v", id, t, s))
		}
		h.tenants[id] = s.tenant
	}
	for _, pair := range starts {
		this := start{s.box, pair[0]}
		if before, ok := h.starts[pair[1]]; ok && before != this {
			h.twice = append(h.twice, fmt.Sprintf("call #%d began as %v and as %v", pair[1], before, this))
		}
		h.starts[pair[1]] = this
	}
}

// between returns the calls that began in a span of time and match.
func (h *history) between(from, to time.Duration, match func(sample) bool) []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []sample
	for _, s := range h.calls {
		if s.began >= from && s.began < to && (match == nil || match(s)) {
			found = append(found, s)
		}
	}
	return found
}

// failed says that a call did not get its answer.
func failed(s sample) bool { return s.outcome != "ok" }

// endless is the end of a span that has none.
const endless = time.Duration(1<<63 - 1)

// lastFailure is how long after an instant a call that was begun or under way then failed last; 0 if none did.
func lastFailure(calls []sample, since time.Duration) (last time.Duration) {
	for _, s := range calls {
		if failed(s) && s.ended > since {
			last = max(last, s.ended-since)
		}
	}
	return last
}

// firstAnswer is how long after an instant each tenant's first call that began then was answered.
func firstAnswer(calls []sample, since time.Duration) map[string]time.Duration {
	first := map[string]time.Duration{}
	for _, s := range calls {
		if s.began < since || failed(s) || s.stream {
			continue
		}
		if f, ok := first[s.tenant]; !ok || s.ended-since < f {
			first[s.tenant] = s.ended - since
		}
	}
	return first
}

// quantile of durations; 0 of none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Clone(all)
	slices.Sort(all)
	return all[min(len(all)-1, int(float64(len(all))*q))]
}

func latencies(calls []sample) (all []time.Duration) {
	for _, s := range calls {
		if !s.stream {
			all = append(all, s.ended-s.began)
		}
	}
	return all
}
