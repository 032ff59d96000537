package simulate

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// report is the table of what was seen.
type report struct{ lines []line }

type line struct {
	what, unit string
	value      float64
	bar        *bar // nil: nothing is promised
}

type bar struct {
	how   string
	value float64
}

func atMost(v float64) *bar  { return &bar{"<=", v} }
func atLeast(v float64) *bar { return &bar{">=", v} }
func exactly(v float64) *bar { return &bar{"=", v} }

func (l line) ok() bool {
	switch {
	case l.bar == nil:
		return true
	case l.bar.how == "<=":
		return l.value <= l.bar.value
	case l.bar.how == ">=":
		return l.value >= l.bar.value
	}
	return l.value == l.bar.value
}

func (l line) String() string {
	text := fmt.Sprintf("%-72s %12.4g %-4s", l.what, l.value, l.unit)
	if l.bar == nil {
		return text
	}
	verdict := "ok"
	if !l.ok() {
		verdict = "MISSED"
	}
	return fmt.Sprintf("%s %2s %-9.4g %s", text, l.bar.how, l.bar.value, verdict)
}

func (r *report) add(what string, value float64, unit string, b *bar) {
	r.lines = append(r.lines, line{what, unit, value, b})
}

// note is for who reads it.
func (r *report) note(what string, value float64, unit string) { r.add(what, value, unit, nil) }

// timed is judged only where the figure means something: in the large simulation.
func (r *report) timed(w *world, what string, value float64, unit string, b *bar) {
	if !w.timings {
		b = nil
	}
	r.add(what, value, unit, b)
}

func (r *report) missed() (all []line) {
	for _, l := range r.lines {
		if !l.ok() {
			all = append(all, l)
		}
	}
	return all
}

func (r *report) print(to io.Writer) {
	judged := 0
	for _, l := range r.lines {
		fmt.Fprintln(to, l)
		if l.bar != nil {
			judged++
		}
	}
	fmt.Fprintf(to, "simulate: %d figures, %d with a bar, %d missed\n", len(r.lines), judged, len(r.missed()))
}

// failures counts the calls that were not answered.
func (r *report) failures(what string, all []outcome) {
	kinds := map[string]int{}
	for _, o := range all {
		if o.status != 200 {
			kinds[fmt.Sprintf("%d %s", o.status, o.kind)]++
		}
	}
	n := 0
	text := ""
	for kind, of := range kinds {
		n += of
		text += fmt.Sprintf(" (%d %s)", of, kind)
	}
	r.add(fmt.Sprintf("%s: calls that fail, of %d%s", what, len(all), text), float64(n), "", exactly(0))
}

// latency is in simulated time: what routing and placement add to a call, retries and binding included.
func (r *report) latency(what string, all []outcome) {
	if len(all) == 0 {
		return
	}
	took := make([]time.Duration, len(all))
	for i, o := range all {
		took[i] = o.took
	}
	slices.Sort(took)
	r.note(what+": simulated time of a call, p99 (calls take 20 ms on average)", float64(took[len(took)*99/100].Microseconds())/1000, "ms")
}
