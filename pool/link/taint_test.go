package link

import "testing"

// TestStuckIsToldAfterAMilderReason: a connection that drains because code goes on in it still says when its loop stands still.
func TestStuckIsToldAfterAMilderReason(t *testing.T) {
	c := &Conn{tainted: make(chan struct{}), stuck: make(chan struct{})}
	told := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	for _, step := range []struct {
		reason         string
		tainted, stuck bool
		is             string
	}{
		{TaintUnsettled, true, false, TaintUnsettled},
		{TaintStuck, true, true, TaintStuck},
		{TaintStuck, true, true, TaintStuck},
		{TaintExhausted, true, true, TaintStuck},
	} {
		c.taintLocked(step.reason)
		if told(c.Tainted()) != step.tainted || told(c.Stuck()) != step.stuck || c.TaintReason() != step.is {
			t.Errorf("after %q: tainted %v, stuck %v, %q", step.reason, told(c.Tainted()), told(c.Stuck()), c.TaintReason())
		}
	}
}
