package link

import "time"

// The agent ends a step whose time is over by itself. It cannot if the step holds the event loop: then nothing in the sandbox
// is heard, PING neither. So when a step of a pipeline has had its time, the host asks, and has the container killed if there
// is no answer. Who waits for the pipeline waits until all has been read that the agent had written: a refusal may be there.

const (
	stepSlack = 50 * time.Millisecond // past a step's time, in which the agent sees to it
	askAgain  = time.Second           // while the agent answers
	stuckEnd  = 5 * time.Second       // for a container to be gone whose loop is stuck
)

// stepClock is the time of the step that runs. It belongs to Do's goroutine; the zero value measures nothing.
type stepClock struct {
	timer *time.Timer
	step  int             // whose time it is
	begun time.Time       // since when
	pong  <-chan struct{} // PING is out
}

func (k *stepClock) c() <-chan time.Time {
	if k.timer == nil {
		return nil
	}
	return k.timer.C
}

func (k *stepClock) stop() {
	if k.timer != nil {
		k.timer.Stop()
	}
	*k = stepClock{step: k.step}
}

func (k *stepClock) set(d time.Duration) {
	if k.timer == nil {
		k.timer = time.NewTimer(d)
		return
	}
	k.timer.Reset(d)
}

// answered notes that the event loop turns.
func (k *stepClock) answered() {
	k.pong = nil
	k.set(askAgain)
}

// wind sets x's clock to the end of the step that runs now, if that has a time of its own.
func (c *Conn) wind(x *exchange) {
	if x.piped == nil || x.stuck {
		return
	}
	c.mu.Lock()
	p := x.piped
	i, begun, known := p.next, p.begun, p.known && !p.collecting && p.next < len(p.steps)
	c.mu.Unlock()
	k := &x.clock
	if known && k.timer != nil && k.step == i && k.begun.Equal(begun) {
		return // it is running
	}
	k.stop()
	if !known || x.req.Steps[i].Timeout <= 0 {
		return
	}
	k.step, k.begun = i, begun
	k.set(time.Until(begun.Add(x.req.Steps[i].Timeout + stepSlack)))
}

// strike is called when x's clock has run down, and says whether waiting has become pointless.
func (c *Conn) strike(x *exchange) (over bool) {
	k := &x.clock
	switch {
	case x.stuck:
		return true // and it is not gone
	case k.pong != nil:
		x.stuck, k.pong = true, nil
		c.mu.Lock()
		c.taintLocked(TaintStuck)
		c.mu.Unlock()
		k.set(stuckEnd)
		return false
	}
	pong, err := c.ping()
	if err != nil { // over, or asked too often: others see to it
		k.set(askAgain)
		return false
	}
	k.pong = pong
	k.set(cancelGrace)
	return false
}
