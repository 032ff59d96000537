package link

import "time"

// Why a connection is tainted.
const (
	// TaintStuck: CANCEL stayed unanswered, the event loop stands still. Kill the container now.
	TaintStuck = "stuck"
	// TaintUnsettled: the code of answered calls goes on: too many of them, or one for too long. Drain.
	TaintUnsettled = "unsettled"
	// TaintExhausted: no stream numbers are left. Drain.
	TaintExhausted = "exhausted"
)

const (
	cancelGrace   = 250 * time.Millisecond // for the answer to CANCEL, or for any other sign that the agent gets on
	cancelMost    = 2 * time.Second        // for the answer to CANCEL, whatever else comes
	settleGrace   = 10 * time.Second       // past its deadline, for an answered call's code to end
	maxUnsettled  = 64                     // answered calls whose code goes on
	lastStream    = 1<<32 - 1<<16
	settleInspect = time.Second
)

// taint is what makes a container unfit though its link works. Guarded by Conn.mu.
type taint struct {
	reason    string
	lingering int         // calls whose caller has its answer and whose code goes on
	timer     *time.Timer // inspects them while there are any
}

func (t *taint) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

// Tainted is closed when the container should serve no new calls; TaintReason then says why.
func (c *Conn) Tainted() <-chan struct{} { return c.tainted }

// TaintReason is "" while the connection is not tainted. TaintStuck replaces a milder reason that came before it.
func (c *Conn) TaintReason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taint.reason
}

// Stuck is closed when TaintReason is TaintStuck, be it long after another reason.
func (c *Conn) Stuck() <-chan struct{} { return c.stuck }

func (c *Conn) taintLocked(reason string) {
	first := c.taint.reason == ""
	if reason == TaintStuck && c.taint.reason != reason {
		close(c.stuck)
	}
	if first || reason == TaintStuck {
		c.taint.reason = reason
	}
	if first {
		close(c.tainted)
	}
}

// lingerLocked counts a call whose caller is served and whose code has not ended.
func (c *Conn) lingerLocked(x *exchange) {
	if x.lingers || x.over {
		return
	}
	x.lingers = true
	if c.taint.lingering++; c.taint.lingering > maxUnsettled {
		c.taintLocked(TaintUnsettled)
	}
	if c.taint.lingering > 1 || c.err != nil {
		return // the timer is running
	}
	if c.taint.timer == nil {
		c.taint.timer = time.AfterFunc(settleInspect, c.inspect)
		return
	}
	c.taint.timer.Reset(settleInspect)
}

// inspect looks for code that goes on long after its deadline.
func (c *Conn) inspect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taint.lingering == 0 || c.err != nil {
		return
	}
	now := c.now()
	for _, x := range c.table {
		if x.lingers && now.Sub(x.deadline) > settleGrace {
			c.taintLocked(TaintUnsettled)
		}
	}
	c.taint.timer.Reset(settleInspect)
}

// watchCancel sees whether CANCEL is answered. Calls that came before it are in the agent's way: while it gets on with them, its event
// loop turns.
func (c *Conn) watchCancel(s StreamID) {
	c.watchCancelUntil(s, c.now().Add(cancelMost), c.reads.Load())
}

func (c *Conn) watchCancelUntil(s StreamID, end time.Time, heard uint64) {
	time.AfterFunc(cancelGrace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		x := c.table[s]
		if x == nil || x.answered || c.err != nil {
			return
		}
		if reads := c.reads.Load(); reads != heard && c.now().Before(end) {
			c.watchCancelUntil(s, end, reads)
			return
		}
		c.taintLocked(TaintStuck)
	})
}
