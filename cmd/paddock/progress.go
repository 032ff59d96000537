package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress shows what a start is doing: on a terminal one line per step, redrawn in place with the time it takes; else a
// line when a step begins to say something new. Safe for concurrent use.
type progress struct {
	out    io.Writer
	live   bool // a terminal
	redraw *time.Ticker
	done   chan struct{}
	gone   sync.WaitGroup

	mu    sync.Mutex
	began time.Time // of the whole
	step  string
	since time.Time
	said  string
	ended bool
}

// newProgress starts showing. Whoever makes it calls end.
func newProgress(out io.Writer, terminal bool) *progress {
	p := &progress{out: out, live: terminal, began: time.Now(), done: make(chan struct{})}
	if terminal {
		p.redraw = time.NewTicker(100 * time.Millisecond)
		p.gone.Go(p.run)
	}
	return p
}

func (p *progress) run() {
	for {
		select {
		case <-p.redraw.C:
			p.mu.Lock()
			p.drawLocked()
			p.mu.Unlock()
		case <-p.done:
			return
		}
	}
}

// begin ends the step before and begins another.
func (p *progress) begin(step string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finishLocked()
	p.step, p.since, p.said = step, time.Now(), ""
	if p.live {
		p.drawLocked()
	}
}

// say adds a remark to the step: "3/8 warm".
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	said := fmt.Sprintf(format, args...)
	if said == p.said || p.step == "" || p.ended {
		return
	}
	p.said = said
	if p.live {
		p.drawLocked()
	} else {
		fmt.Fprintf(p.out, "%6s  %s: %s\n", p.clockLocked(), p.step, said)
	}
}

// end finishes the last step and stops drawing. Idempotent.
func (p *progress) end() {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	p.finishLocked()
	p.ended = true
	close(p.done)
	p.mu.Unlock()
	if p.live {
		p.gone.Wait()
		p.redraw.Stop()
	}
}

// fail stops drawing with the step as it is: the error that follows names what went wrong.
func (p *progress) fail() {
	p.mu.Lock()
	if p.live && p.step != "" {
		fmt.Fprintln(p.out)
	}
	p.step = ""
	p.mu.Unlock()
	p.end()
}

func (p *progress) clockLocked() string { return fmt.Sprintf("%.1fs", time.Since(p.began).Seconds()) }

func (p *progress) textLocked() string {
	if p.said == "" {
		return p.step
	}
	return p.step + ": " + p.said
}

func (p *progress) drawLocked() {
	if p.step == "" || p.ended {
		return
	}
	fmt.Fprintf(p.out, "\r\x1b[K%6s  %s … %.1fs", p.clockLocked(), p.textLocked(), time.Since(p.since).Seconds())
}

// finishLocked leaves a line of the step, unless it was over at once and said nothing.
func (p *progress) finishLocked() {
	if p.step == "" || p.ended {
		return
	}
	took := time.Since(p.since)
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	switch {
	case p.said != "" && !p.live: // stands there already
		if took >= worthALine {
			fmt.Fprintf(p.out, "%6s  %s: done (%s)\n", p.clockLocked(), p.step, brief(took))
		}
	case p.said != "" || took >= worthALine:
		fmt.Fprintf(p.out, "%6s  %s (%s)\n", p.clockLocked(), p.textLocked(), brief(took))
	}
	p.step = ""
}

// worthALine is how long a silent step must take to leave a line behind.
const worthALine = 100 * time.Millisecond

// above returns a writer to the same terminal that does not run into the line that is redrawn.
func (p *progress) above(w io.Writer) io.Writer { return &aboveProgress{p, w} }

type aboveProgress struct {
	p *progress
	w io.Writer
}

func (a *aboveProgress) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	if a.p.live && a.p.step != "" && !a.p.ended {
		fmt.Fprint(a.p.out, "\r\x1b[K")
	}
	return a.w.Write(b)
}
