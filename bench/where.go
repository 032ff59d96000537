package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// visit is one call as its caller saw it, and as the service says that it went.
type visit struct {
	took   time.Duration // from when it was due
	late   time.Duration // until it was sent: the source's own doing
	stages map[string]time.Duration
}

// stagesOf reads Server-Timing.
func stagesOf(timing string) map[string]time.Duration {
	all := map[string]time.Duration{}
	for part := range strings.SplitSeq(timing, ",") {
		name, dur, ok := strings.Cut(strings.TrimSpace(part), ";dur=")
		if f, err := strconv.ParseFloat(dur, 64); ok && err == nil {
			all[name] = time.Duration(f * float64(time.Millisecond))
		}
	}
	return all
}

// where says on what the slowest fiftieth of the calls spent their time, on average: before they were sent, outside of the service,
// in its queue, in its own code and in the sandbox.
func where(all []visit) string {
	slow := slices.Clone(all)
	slices.SortFunc(slow, func(a, b visit) int { return int(b.took - a.took) })
	slow = slow[:max(1, len(slow)/50)]
	var late, outside, queue, own, run time.Duration
	for _, v := range slow {
		s := v.stages
		late += v.late
		outside += v.took - v.late - s["total"]
		queue += s["queue"] + s["assign"] + s["load"]
		own += s["total"] - s["queue"] - s["assign"] - s["load"] - s["run"]
		run += s["run"]
	}
	per := func(d time.Duration) float64 { return ms(d) / float64(len(slow)) }
	return fmt.Sprintf("late %.1f, outside %.1f, queue %.1f, own %.1f, run %.1f", per(late), per(outside), per(queue), per(own), per(run))
}
