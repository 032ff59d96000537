package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// mostLogLine bounds one line of the operator's log, whatever attackers put into it.
const mostLogLine = 16 << 10

// wellFormed checks that the operator's log is made of bounded JSON objects, one a line: nothing that an attacker wrote
// makes a line of its own. A crash of the service shows as well.
func wellFormed(log string) (wrong []string) {
	for line := range strings.Lines(log) {
		if !strings.HasSuffix(line, "\n") {
			continue // being written
		}
		var record struct{ Msg, Level string }
		switch {
		case len(line) > mostLogLine:
			wrong = append(wrong, fmt.Sprintf("a line of %d bytes in the operator's log: %.300s", len(line), line))
		case json.Unmarshal([]byte(line), &record) != nil || record.Msg == "":
			wrong = append(wrong, fmt.Sprintf("no record in the operator's log: %.300q", line))
		}
	}
	return wrong
}

// table writes one line per attack.
func table(w io.Writer, results []result) {
	const line = "%-11s %-19s %-34s %-34s %9s %9s %9s  %s\n"
	fmt.Fprintf(w, line, "engine", "attack", "expected", "got", "answer", "gone", "host CPU", "verdict")
	for _, r := range results {
		verdict := "stopped"
		switch {
		case r.sort == check && r.stopped():
			fmt.Fprintf(w, "%-11v %-19s %s\n", r.engine, r.id, r.kind)
			continue
		case r.sort == weakened && r.stopped():
			verdict = "weakened: noticed"
		case r.sort == weakened:
			verdict = "weakened: NOT NOTICED"
		case !r.stopped():
			verdict = "MISSED: " + strings.Join(r.wrong, "; ")
		}
		fmt.Fprintf(w, line, r.engine.String(), r.id, shorter(strings.Join(r.want, "|")), r.kind, millis(r.took), millis(r.gone), millis(r.hostCPU), verdict)
	}
}

func shorter(kinds string) string {
	const most = 34
	kinds = strings.ReplaceAll(kinds, "sandbox_lost/", "lost/")
	if len(kinds) > most {
		return kinds[:most-1] + "…"
	}
	return kinds
}

func millis(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// tally counts what came out on one engine, or on all.
type tally struct {
	attacks, missed   int
	controls, noticed int
	gone              []time.Duration // from a breach's answer until nothing was left of its container
	engines           map[engine]bool
}

func count(results []result) tally {
	n := tally{engines: map[engine]bool{}}
	for _, r := range results {
		n.engines[r.engine] = true
		switch {
		case r.sort == weakened:
			n.controls++
			if r.stopped() {
				n.noticed++
			}
		case r.sort == hostile:
			n.attacks++
		}
		if r.gone > 0 && r.sort == hostile {
			n.gone = append(n.gone, r.gone)
		}
		if !r.stopped() {
			n.missed++
		}
	}
	slices.Sort(n.gone)
	return n
}

// figures writes what came out on one engine, if it was tried.
func figures(w io.Writer, e engine, results []result) {
	n := count(slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.engine != e }))
	if len(n.engines) == 0 {
		return
	}
	fmt.Fprintf(w, "%v: %d attacks tried, %d missed; controls noticed %d of %d", e, n.attacks, n.missed, n.noticed, n.controls)
	if len(n.gone) > 0 {
		fmt.Fprintf(w, "; breach to container gone: p50 %s, max %s (%d times)", millis(n.gone[len(n.gone)/2]), millis(n.gone[len(n.gone)-1]), len(n.gone))
	}
	fmt.Fprintln(w)
}

// summary is the last line. A control that the oracle did not notice and a canary that suffered count with the missed.
func summary(results []result, took time.Duration) string {
	n := count(results)
	return fmt.Sprintf("hostile: %d attacks, %d engines, %d missed, %d of %d controls noticed, %v", n.attacks, len(n.engines), n.missed, n.noticed,
		n.controls, took.Round(time.Second))
}
