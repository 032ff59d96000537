package pool

import (
	"container/heap"
	"time"
)

// timer is one thing to look at later. All timers of a pool are in one heap served by one goroutine: an idle container
// costs a heap entry, not a ticker.
type timer struct {
	at   time.Time
	pos  int // in the heap, from 1; 0 = not in it
	fire func(now time.Time)
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.pos = len(*h) + 1
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.pos = 0
	return t
}

// setTimerLocked makes t fire at a time; fire is called under the lock and only decides.
func (p *Pool) setTimerLocked(t *timer, at time.Time) {
	if t.pos != 0 {
		if t.at.Equal(at) {
			return
		}
		t.at = at
		heap.Fix(&p.timers, t.pos-1)
	} else {
		t.at = at
		heap.Push(&p.timers, t)
	}
	if p.timers[0] == t {
		kick(p.wake)
	}
}

// soonerLocked is setTimerLocked unless t fires earlier anyway.
func (p *Pool) soonerLocked(t *timer, at time.Time) {
	if t.pos == 0 || at.Before(t.at) {
		p.setTimerLocked(t, at)
	}
}

func (p *Pool) stopTimerLocked(t *timer) {
	if t.pos != 0 {
		heap.Remove(&p.timers, t.pos-1)
	}
}

// runTimers fires what is due, until the pool has stopped.
func (p *Pool) runTimers() {
	clock := time.NewTimer(0)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
		case <-p.wake:
		case <-p.stopped:
			return
		}
		if d, ok := p.fireDue(); ok {
			clock.Reset(d)
		}
	}
}

// fireDue returns how long until the next timer, if there is one.
func (p *Pool) fireDue() (time.Duration, bool) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	for len(p.timers) > 0 && !p.timers[0].at.After(now) {
		heap.Pop(&p.timers).(*timer).fire(now)
	}
	if len(p.timers) == 0 {
		return 0, false
	}
	return p.timers[0].at.Sub(now), true
}

// kick wakes the goroutine that reads ch; one pending wake is enough.
func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
