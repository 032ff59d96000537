package hostile

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// gauges are what the service says of itself.
type gauges struct{ goroutines, descriptors, inFlight, heap float64 }

// heapSlack is what the service may hold more than before in memory that is no garbage: caches fill, the store has a history.
const heapSlack = 24 << 20

func (b *battery) gauges() (g gauges, err error) {
	b.service.http.CloseIdleConnections() // ours, and they have goroutines there
	res, err := b.service.http.Get(b.service.URL + "/metrics")
	if err != nil {
		return g, err
	}
	defer res.Body.Close()
	for line := range strings.Lines(readAll(res.Body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseFloat(value, 64)
		switch {
		case name == "go_goroutines":
			g.goroutines = n
		case name == "process_open_fds":
			g.descriptors = n
		case name == "go_memstats_heap_alloc_bytes":
			g.heap = n
		case strings.HasPrefix(name, "paddock_calls_in_flight"):
			g.inFlight += n
		}
	}
	return g, nil
}

func (g gauges) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f descriptors, heap %.0f MiB", g.goroutines, g.descriptors, g.heap/(1<<20))
}

// exceeds says whether there is more than before of anything that has to come back.
func (g gauges) exceeds(before gauges) bool {
	most := func(n float64) float64 { return n*(100+calmPercent)/100 + 8 }
	return g.goroutines > most(before.goroutines) || g.descriptors > most(before.descriptors) || g.heap > most(before.heap)+heapSlack
}

// checkCalm wants the service to be, within a while, as it was before the first attack. The heap is at its least just after
// a collection, so that the best of many looks counts.
func (b *battery) checkCalm() {
	r := result{engine: b.engine, id: "service", sort: check}
	deadline := time.Now().Add(goneWithin + b.pulse.slack(time.Now().Add(-goneWithin)))
	for {
		now, err := b.gauges()
		if err == nil && !now.exceeds(b.before) {
			r.kind = fmt.Sprintf("before: %v; after: %v", b.before, now)
			break
		}
		if time.Now().After(deadline) {
			r.wrong = append(r.wrong, fmt.Sprintf("it had %v and has %v, %v", b.before, now, err))
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.add(r)
}
