package fake

import "time"

// What a connection in memory bears, as package link does.
const (
	cancelGrace  = 250 * time.Millisecond
	maxUnsettled = 64               // programs whose calls are over
	settleGrace  = 10 * time.Second // past a call's deadline, for its program to end
)

func (n *conn) taint(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := n.reason == ""
	if reason == "stuck" && n.reason != reason {
		close(n.seized)
	}
	if first || reason == "stuck" {
		n.reason = reason
	}
	if first {
		close(n.tainted)
	}
}

func (n *conn) isStuck() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stuck
}

func (n *conn) stick(stuck bool) {
	n.mu.Lock()
	n.stuck = stuck
	n.mu.Unlock()
}

// watchCancel taints the connection as package link does: at once if the loop stands still.
func (n *conn) watchCancel() {
	time.AfterFunc(cancelGrace, func() {
		if n.isStuck() {
			n.taint("stuck")
		}
	})
}

// watchUnsettled taints the connection when too many programs run.
func (n *conn) watchUnsettled() {
	n.mu.Lock()
	many := n.running > maxUnsettled
	n.mu.Unlock()
	if many {
		n.taint("unsettled")
	}
}

// watchSettled taints the connection when a program goes on for long after its call's deadline.
func (n *conn) watchSettled(over <-chan struct{}, deadline time.Time) {
	select {
	case <-over:
		return
	default:
	}
	time.AfterFunc(time.Until(deadline)+settleGrace, func() {
		select {
		case <-over:
		default:
			n.taint("unsettled")
		}
	})
}
