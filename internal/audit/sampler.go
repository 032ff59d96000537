package audit

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Rates of a Sampler: what strangers can cause at will must not fill the disk. All together they write at most some 60 MB
// a day.
const (
	sourceBurst  = 20
	sourceEvery  = 10 * time.Second // then one line
	allBurst     = 200
	allPerSecond = 2
	maxSources   = 4096
	reportEvery  = time.Minute
	maxReports   = 20 // lines of one report; the other sources are summed up
)

// Sampler notes events that outsiders can cause as often as they like: of each source some, and how many it left out.
// Safe for concurrent use; Close reports the last counts.
type Sampler struct {
	log    *Log
	action string // of the lines that only count

	mu      sync.Mutex
	sources *simplelru.LRU[string, *source]
	all     *rate.Limiter
	evicted int64 // left out, of sources that were forgotten

	closing sync.Once
	quit    chan struct{}
	done    chan struct{}
}

type source struct {
	limit   *rate.Limiter
	dropped int64
}

// NewSampler returns a Sampler that writes to l; action names its lines that only count.
func NewSampler(l *Log, action string) *Sampler {
	s := &Sampler{log: l, action: action, all: rate.NewLimiter(allPerSecond, allBurst), quit: make(chan struct{}), done: make(chan struct{})}
	s.sources, _ = simplelru.NewLRU(maxSources, func(_ string, src *source) { s.evicted += src.dropped }) // fails for size 0
	go s.run()
	return s
}

// Note notes e, or counts it as left out.
func (s *Sampler) Note(from string, e Event) {
	s.mu.Lock()
	src, ok := s.sources.Get(from)
	if !ok {
		src = &source{limit: rate.NewLimiter(rate.Every(sourceEvery), sourceBurst)}
		s.sources.Add(from, src)
	}
	now := time.Now()
	if !src.limit.AllowN(now, 1) || !s.all.AllowN(now, 1) {
		src.dropped += 1 + e.Dropped
		s.mu.Unlock()
		return
	}
	e.Dropped, src.dropped = e.Dropped+src.dropped, 0
	s.mu.Unlock()
	s.log.Note(e)
}

func (s *Sampler) run() {
	defer close(s.done)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.report()
		case <-s.quit:
			s.report()
			return
		}
	}
}

// report writes down what was left out and has not been said.
func (s *Sampler) report() {
	s.mu.Lock()
	var lines []Event
	rest := Event{Action: s.action, Dropped: s.evicted}
	s.evicted = 0
	for _, from := range s.sources.Keys() {
		src, _ := s.sources.Peek(from)
		if src.dropped == 0 {
			continue
		}
		if len(lines) < maxReports {
			lines = append(lines, Event{Action: s.action, Source: from, Dropped: src.dropped})
		} else {
			rest.Dropped += src.dropped
		}
		src.dropped = 0
	}
	s.mu.Unlock()
	if rest.Dropped > 0 {
		lines = append(lines, rest)
	}
	for _, e := range lines {
		s.log.Note(e)
	}
}

// Close reports what was left out.
func (s *Sampler) Close() {
	s.closing.Do(func() { close(s.quit) })
	<-s.done
}
