package link

import (
	"time"

	"paddock/internal/call"
)

// logCredit meters LOG frames: what was taken comes back as WINDOW on stream 0, no faster than the rate. Guarded by Conn.mu.
type logCredit struct {
	credit int64 // what the agent may still send
	owed   int64 // taken and not granted again
	last   time.Time
	timer  *time.Timer
}

const (
	logRefill = 100 * time.Millisecond // how often credit is granted while some is owed
	mostLines = 4096                   // that wait for a caller whose sink is busy
)

func (l *logCredit) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

func knownLevel(s string) bool {
	switch s {
	case "debug", "info", "warn", "error":
		return true
	}
	return false
}

// logTime believes the agent's clock as far as it can be true.
func (c *Conn) logTime(ms float64) time.Time {
	const skew = 10 * time.Second
	now := time.Now()
	t := time.UnixMilli(int64(min(max(ms, 0), 1<<50)))
	if d := now.Sub(t); d > skew || d < -skew {
		return now
	}
	return t
}

// logLocked takes credit for a line, names its call, leaves it for the caller, and says whether it counts.
func (c *Conn) logLocked(f *Frame, line *call.LogLine) (keep bool, err error) {
	if f.Stream >= c.next {
		return false, breach("LOG on stream %d, which was never opened", f.Stream)
	}
	c.logs.credit -= int64(f.Size)
	if c.logs.credit < 0 {
		return false, breach("LOG beyond its credit")
	}
	c.owedLocked(int64(f.Size))
	line.Tenant = c.tenant
	x := c.table[f.Stream]
	if x == nil {
		line.Call, line.Function = c.past.call(f.Stream)
		line.Step = 0
		return true, nil
	}
	line.Call, line.Function = x.id, x.function
	if x.piped == nil || line.Step < 1 || line.Step > len(x.piped.steps) {
		line.Step = 0
	} else {
		line.Function = x.piped.steps[line.Step-1].Function
	}
	const slack = 64 << 10 // agents may count characters or heads otherwise than we do
	if x.logBytes += int64(len(line.Text)); x.logBytes > x.limits.maxLog+slack {
		c.stats.LogsDropped++
		return false, nil
	}
	if x.sink != nil && !x.returned {
		if len(x.logs) < mostLines {
			x.logs = append(x.logs, *line)
		} else {
			c.stats.LogsDropped++
		}
		x.wakeUp()
	}
	return true, nil
}

// owedLocked notes taken credit and sees to it that it comes back.
func (c *Conn) owedLocked(n int64) {
	l := &c.logs
	if l.owed += n; l.owed > n || c.err != nil {
		return // the timer is running
	}
	l.last = time.Now()
	if l.timer == nil {
		l.timer = time.AfterFunc(logRefill, c.refillLogs)
		return
	}
	l.timer.Reset(logRefill)
}

func (c *Conn) refillLogs() {
	c.mu.Lock()
	l := &c.logs
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	now := time.Now()
	grant := min(l.owed, int64(now.Sub(l.last).Seconds()*float64(c.o.LogRate)))
	l.last = now
	if grant > 0 {
		l.owed -= grant
		l.credit += grant
		c.w.pending = AppendWindow(c.w.pending, 0, uint32(grant))
	}
	if l.owed > 0 {
		l.timer.Reset(logRefill)
	}
	flush := c.w.startLocked()
	c.mu.Unlock()
	if flush {
		c.flush()
	}
}
