package pool

import (
	"context"
	"time"
)

// A call that was given up may have left its container's event loop stuck; the link knows only when CANCEL has stayed
// unanswered for a while. Meanwhile the tenant's next calls would go down with the container. So it gets none until it has
// answered a PING, which a healthy one does at once; and its counters are read.

// suspicion is longer than the link takes to find a loop stuck.
const suspicion = 300 * time.Millisecond

func (p *Pool) suspectLocked(c *container) {
	if c.state != Assigned || c.fresh {
		return
	}
	c.suspected++
	p.laterLocked(func() { p.probe(c) })
}

// probe clears c of suspicion, or leaves it to those who end containers.
func (p *Pool) probe(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), suspicion)
	defer cancel()
	p.inspect(ctx, c)
	_ = c.conn.Ping(ctx) // no answer says only that the loop is busy: deadlines kill
	p.mu.Lock()
	defer p.unlock()
	c.suspected--
	if c.state == Assigned && c.suspected == 0 {
		now := time.Now()
		p.serveLocked(c.tenant, now)
		p.wantLocked(c.tenant, now)
		p.dispatchLocked(now)
	}
}

// suspects says whether a container that has room is under suspicion: waiting calls wait for that to clear up before they
// cost another container.
func (t *tenantState) suspects() bool {
	for _, c := range t.live {
		if c.suspected > 0 && c.inflight < t.policy.CallsPerContainer {
			return true
		}
	}
	return false
}
