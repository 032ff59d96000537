package link

import (
	"encoding/binary"

	"paddock/internal/call"
)

// What each frame of the agent does to the call that it belongs to. All of it runs on the reading goroutine; an error is a
// breach.

// findLocked returns the call on f's stream; nil with a nil error means that f is late and to be dropped.
func (c *Conn) findLocked(f *Frame) (*exchange, error) {
	x := c.table[f.Stream]
	switch {
	case x != nil && !x.sent:
		return nil, breach("%v on stream %d, which was never opened", f.Type, f.Stream)
	case x != nil && x.cancelled.IsZero():
		return x, nil
	case x != nil && c.now().Sub(x.cancelled) < lateFrames:
		return x, nil
	case x == nil && c.past.closedLately(f.Stream, c.now()):
		c.stats.LateFrames++
		return nil, nil
	case x != nil:
		return nil, breach("%v on stream %d, which was closed long ago", f.Type, f.Stream)
	case f.Stream == 0 || f.Stream >= c.next:
		return nil, breach("%v on stream %d, which was never opened", f.Type, f.Stream)
	}
	return nil, breach("%v on stream %d, which is finished", f.Type, f.Stream)
}

func (c *Conn) onResult(f *Frame) error {
	h, err := parseResult(f.Head)
	if err != nil {
		return err
	}
	body := append([]byte(nil), f.Body...)
	c.mu.Lock()
	x, err := c.findLocked(f)
	if x == nil {
		c.mu.Unlock()
		return err
	}
	if err := c.resultLocked(x, f, h, body); err != nil {
		c.mu.Unlock()
		return err
	}
	settled := c.progressLocked(x, f.Flags&FlagSettled != 0)
	c.mu.Unlock()
	if settled != nil {
		settled()
	}
	return nil
}

// resultLocked takes x's one RESULT. It is let through without credit: it is one frame.
func (c *Conn) resultLocked(x *exchange, f *Frame, h ResultHead, body []byte) error {
	if x.answered {
		return breach("a second RESULT on stream %d", f.Stream)
	}
	if h.Outcome == outcomeCancelled && x.cancelled.IsZero() {
		return breach("RESULT cancelled on stream %d, which was not", f.Stream)
	}
	if x.headSeen && len(body) > 0 {
		return breach("RESULT with a body after HEAD on stream %d", f.Stream)
	}
	if !knownOutcome(h.Outcome, x.piped != nil) {
		return breach("RESULT with outcome %.40q", h.Outcome)
	}
	if x.piped != nil {
		if err := x.piped.answer(&h); err != nil {
			return err
		}
	}
	x.answered, x.result = true, h
	x.credit -= int64(f.Size)
	x.bodyDone = f.End() || x.headSeen || !succeeded(h.Outcome)
	if !x.bodyDone {
		x.ungranted += int64(f.Size)
	}
	if x.returned {
		c.stats.LateFrames++
	} else if succeeded(h.Outcome) && !x.headSeen {
		c.collectLocked(x, body)
	}
	if c.w.dropBodyLocked(x) && f.Flags&FlagSettled == 0 && x.cancelled.IsZero() {
		c.cancelLocked(x, reasonGone) // the code may wait for input that will not come
	}
	return nil
}

// collectLocked adds to a collected value, within the call's limit.
func (c *Conn) collectLocked(x *exchange, p []byte) {
	if x.tooLarge {
		return
	}
	if int64(len(x.value)+len(p)) > x.limits.maxOutput {
		x.value, x.tooLarge = nil, true
		return
	}
	if x.value == nil {
		x.value = p
		return
	}
	x.value = append(x.value, p...)
}

// progressLocked notes that the code has ended, if so, and lets the caller see what came. A function that it returns is to
// be called after unlocking.
func (c *Conn) progressLocked(x *exchange, ended bool) (settled func()) {
	x.ended = x.ended || ended
	x.wakeUp()
	// Where nobody waits, a call is over with RESULT and SETTLED, however much of its body is still to come.
	if x.answered && x.ended && (x.bodyDone || x.returned) {
		return c.settleLocked(x) // x may be somebody else's now
	}
	if x.answered {
		c.lingerLocked(x)
	}
	return nil
}

func (c *Conn) onSettled(f *Frame) error {
	c.mu.Lock()
	x := c.table[f.Stream]
	switch {
	case x == nil || x.ended || !x.answered:
		c.mu.Unlock()
		return breach("SETTLED on stream %d, which is not waiting for it", f.Stream)
	}
	settled := c.progressLocked(x, true)
	c.mu.Unlock()
	if settled != nil {
		settled()
	}
	return nil
}

func (c *Conn) onHead(f *Frame) error {
	h := new(ResponseHead)
	if err := parseHead(TypeHead, f.Head, h); err != nil {
		return err
	}
	if h.Status < 200 || h.Status > 599 {
		return breach("HEAD with status %d", h.Status)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x, err := c.findLocked(f)
	if x == nil {
		return err
	}
	if x.headSeen || x.answered || x.piped != nil {
		return breach("HEAD on stream %d out of its order", f.Stream)
	}
	x.headSeen = true
	x.credit -= int64(f.Size)
	x.ungranted += int64(f.Size)
	if x.returned {
		c.stats.LateFrames++
		return nil
	}
	c.stats.BadHeaders += h.clean()
	x.response = h
	x.wakeUp()
	return nil
}

func (c *Conn) onData(f *Frame) error {
	c.mu.Lock()
	x, err := c.findLocked(f)
	if x == nil {
		if err == nil {
			c.lateDataLocked(f)
		}
		c.mu.Unlock()
		return err
	}
	if err := x.mayData(f); err != nil {
		c.mu.Unlock()
		return err
	}
	var settled func()
	x.credit -= int64(f.Size)
	if x.piped != nil && x.piped.collecting {
		x.piped.collecting = !f.End()
		err := c.partLocked(x, f)
		c.mu.Unlock()
		return err
	}
	switch {
	case x.returned || x.tooLarge:
		c.stats.LateFrames++
		c.discardLocked(x, f.Size)
	case x.headSeen:
		x.data = append(x.data, f.Body...)
		x.wakeUp()
	default:
		c.collectLocked(x, f.Body)
		c.consumedLocked(x, f.Size)
	}
	if x.tooLarge {
		x.wakeUp()
	}
	if f.End() {
		x.dataEnded = true
		if x.answered {
			x.bodyDone = true
			settled = c.progressLocked(x, false)
		}
	}
	c.mu.Unlock()
	if settled != nil {
		settled()
	}
	return nil
}

// lateDataLocked drops a part of a body that the caller did not wait for, and lets an honest agent get rid of the rest.
func (c *Conn) lateDataLocked(f *Frame) {
	if c.past.mayGrant(f.Stream, int64(f.Size)) && !f.End() {
		c.w.pending = AppendWindow(c.w.pending, f.Stream, uint32(f.Size))
	}
}

// mayData says whether DATA may come on x now.
func (x *exchange) mayData(f *Frame) error {
	switch {
	case x.dataEnded || x.answered && x.bodyDone:
		return breach("DATA on stream %d after its end", f.Stream)
	case !x.headSeen && !x.answered && (x.piped == nil || !x.piped.collecting):
		return breach("DATA on stream %d before HEAD or RESULT", f.Stream)
	case int64(f.Size) > x.credit:
		return breach("%d bytes of DATA on stream %d with credit for %d", f.Size, f.Stream, x.credit)
	}
	return nil
}

func (c *Conn) onWindow(f *Frame) error {
	const most = 1 << 32
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.table[f.Stream]
	if x == nil {
		if f.Stream == 0 || f.Stream >= c.next {
			return breach("WINDOW on stream %d, which was never opened", f.Stream)
		}
		c.stats.LateFrames++ // the agent read the last of a body after its answer
		return nil
	}
	if x.body.credit += int64(f.Window()); x.body.credit > most {
		return breach("WINDOW on stream %d beyond all measure", f.Stream)
	}
	c.w.offerLocked(x)
	return nil
}

func (c *Conn) onNotLoaded(f *Frame) error {
	var h CodeHead
	if err := parseHead(f.Type, f.Head, &h); err != nil {
		return err
	}
	c.mu.Lock()
	x, err := c.findLocked(f)
	if x == nil {
		c.mu.Unlock()
		return err
	}
	if x.headSeen || x.answered || x.piped == nil && h.Hash != x.code || x.piped != nil && !x.piped.forgotten(&h, c.codes) {
		c.mu.Unlock()
		return breach("NOT_LOADED on stream %d out of its order", f.Stream)
	}
	c.stats.LoadsRepeated++
	x.notLoaded = true
	x.wakeUp()
	settled := c.settleLocked(x)
	c.mu.Unlock()
	if settled != nil {
		settled()
	}
	return nil
}

func (c *Conn) onPong(f *Frame) error {
	id := binary.BigEndian.Uint64(f.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	pong, ok := c.pings[id]
	if !ok || f.Stream != 0 {
		return breach("PONG without PING")
	}
	delete(c.pings, id)
	close(pong)
	return nil
}

func (c *Conn) onLog(f *Frame) error {
	var h LogHead
	if err := parseHead(TypeLog, f.Head, &h); err != nil {
		return err
	}
	if !knownLevel(h.Level) {
		return breach("LOG with level %.20q", h.Level)
	}
	line := call.LogLine{Container: c.o.Container, Level: h.Level, Time: c.logTime(h.T), Dropped: max(h.Dropped, 0)}
	if line.Text = withheld; !c.secrets.withholds(h.Former) {
		line.Text = c.redactLine(f.Stream, clip(string(f.Body), MaxBody))
	}
	if h.Step != nil {
		line.Step = *h.Step + 1
	}
	c.mu.Lock()
	keep, err := c.logLocked(f, &line)
	c.mu.Unlock()
	if keep {
		c.o.OnLog(line)
	}
	return err
}
