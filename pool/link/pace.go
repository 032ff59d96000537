package link

import "time"

// What the agent makes the host work for is not all under credit: empty DATA, WINDOW, frames for streams that the host has
// cut off. A frame takes the agent a tenth of the time that it takes the host, which nobody charges to its tenant. So the
// reader reckons what the frames cost it and, beyond its share, leaves the rest in the socket, where the agent waits.
//
// The costs are what BenchmarkDispatch measures, rounded up. An agent that answers 150,000 calls a second comes to a fifth
// of the share.
const (
	frameCost = 300 * time.Nanosecond
	headCost  = 15 * time.Nanosecond // per byte: it is parsed
	bodyBytes = 2                    // of a body for a nanosecond

	readShare = 40                     // percent of one CPU, for one container
	readBurst = 100 * time.Millisecond // of work at once
	paceEvery = time.Millisecond       // of work between looks at the clock
)

// pace is a bucket of work that drains at readShare. It belongs to the reading goroutine.
type pace struct {
	spent time.Duration
	since time.Duration // after the last look at the clock, not in spent yet
	at    time.Time
}

func (p *pace) charge(f *Frame) {
	p.since += frameCost + time.Duration(len(f.Head))*headCost + time.Duration(len(f.Body)/bodyBytes)
}

// pause returns how long the reader has to wait before it goes on.
func (p *pace) pause(now func() time.Time) time.Duration {
	if p.since < paceEvery {
		return 0
	}
	t := now()
	drained := time.Duration(1 << 62)
	if d := t.Sub(p.at); d < time.Hour {
		drained = d * readShare / 100
	}
	p.spent = max(p.spent-drained, 0) + p.since
	p.since, p.at = 0, t
	return max(p.spent-readBurst, 0) * 100 / readShare
}
