//go:build hostile

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
	fmt.Fprintf(w, "%-12s %-22s %-28s %8s %8s %8s  %s\n", "engine", "attack", "ended as", "answer", "gone", "host", "verdict")
	for _, r := range results {
		verdict := "stopped"
		switch {
		case r.control && r.stopped():
			verdict = "weakened: noticed"
		case r.control:
			verdict = "weakened: NOT NOTICED"
		case !r.stopped():
			verdict = "MISSED: " + strings.Join(r.wrong, "; ")
		}
		fmt.Fprintf(w, "%-12v %-22s %-28s %8s %8s %8s  %s\n", r.engine, r.id, r.kind, millis(r.took), millis(r.gone), millis(r.hostCPU), verdict)
	}
}

func millis(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// ends says how long poisoned containers lived on after the answer: the median and the longest.
func ends(results []result) (n int, median, most time.Duration) {
	var all []time.Duration
	for _, r := range results {
		if r.gone > 0 && !r.control {
			all = append(all, r.gone)
		}
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	slices.Sort(all)
	return len(all), all[len(all)/2], all[len(all)-1]
}

// summary is the last line: attacks, stopped, missed. Controls count with the missed where the oracle saw nothing.
func summary(results []result) string {
	n, stopped, missed := 0, 0, 0
	for _, r := range results {
		switch {
		case !r.stopped():
			missed++
			n++
		case !r.control:
			stopped++
			n++
		}
	}
	return fmt.Sprintf("hostile: %d attacks, %d stopped, %d missed", n, stopped, missed)
}
