package chaos

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// row is one promise, and what came of it.
type row struct {
	fault, what string
	promise     string
	measured    string
	kept        bool
	notes       []string // of what broke it
}

func (r row) verdict() string {
	if r.kept {
		return "pass"
	}
	return "FAIL"
}

// table writes one line per promise.
func table(w io.Writer, rows []row) {
	const line = "%-5s %-38s %-52s %-40s %s\n"
	fmt.Fprintf(w, line, "fault", "what was done", "promise", "measured", "verdict")
	last := ""
	for _, r := range rows {
		what, id := r.what, r.fault
		if last == r.fault+r.what {
			what, id = "", ""
		}
		last = r.fault + r.what
		fmt.Fprintf(w, line, id, what, r.promise, r.measured, r.verdict())
		for _, n := range r.notes {
			fmt.Fprintf(w, "      ! %s\n", strings.ReplaceAll(n, "\n", "\n        "))
		}
	}
}

// mostNotes of what broke a promise are printed.
const mostNotes = 5

// notes makes texts of what broke a promise.
func notes[T any](all []T) (texts []string) {
	for i, v := range all {
		if i == mostNotes {
			return append(texts, fmt.Sprintf("and %d more", len(all)-mostNotes))
		}
		texts = append(texts, fmt.Sprint(v))
	}
	return texts
}

// totals is what the last line tells.
type totals struct {
	seed           uint64
	isolation      string
	faults         int
	calls, failed  int
	containers     int
	writes, checks int
	took           time.Duration
}

func (t totals) summary(rows []row) string {
	broken := 0
	for _, r := range rows {
		if !r.kept {
			broken++
		}
	}
	return fmt.Sprintf("chaos: seed %d, %s, %d faults injected, %d promises, %d broken; %d calls (%d did not get their answer), %d containers, %d writes, "+
		"%d histories checked, %v", t.seed, t.isolation, t.faults, len(rows), broken, t.calls, t.failed, t.containers, t.writes, t.checks, t.took.Round(time.Second))
}

func brokenRows(rows []row) (found []row) {
	for _, r := range rows {
		if !r.kept {
			found = append(found, r)
		}
	}
	return found
}
