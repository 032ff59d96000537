package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// busiest is the controller with most tenants of the load, and these tenants.
func (x *chaos) busiest() (n *node, tenants []string) {
	for _, candidate := range x.nodes {
		var there []string
		for _, t := range x.latches(candidate) {
			if slices.Contains(loadNames(), t) && !slices.Contains(there, t) {
				there = append(there, t)
			}
		}
		if n == nil || len(there) > len(tenants) {
			n, tenants = candidate, there
		}
	}
	return n, tenants
}

// elsewhere is when the tenants of a lost controller were served again: the last of them, since the loss. byBegin counts when the last
// call began that failed, which is what is promised where calls hang on until their deadlines; else when it ended.
func (x *chaos) elsewhere(tenants []string, lost time.Duration, byBegin bool) (all []time.Duration) {
	calls := x.h.between(0, endless, func(s sample) bool { return slices.Contains(tenants, s.tenant) && !s.stream && s.ended > lost })
	first := firstAnswer(calls, lost)
	for _, t := range tenants {
		at, ok := first[t]
		if !ok {
			at = time.Hour
		}
		for _, s := range calls {
			switch {
			case s.tenant != t || !failed(s):
			case byBegin:
				at = max(at, s.began-lost)
			case s.began >= lost:
				at = max(at, s.ended-lost)
			}
		}
		all = append(all, at)
	}
	return all
}

// F3: calls on it fail at once; its tenants are served elsewhere; what it left is taken over by the next process.
func (x *chaos) killController() {
	n, tenants := x.busiest()
	held := x.latches(n)
	n.kill()
	lost := x.h.now()
	x.h.mark("%s is dead, with %v", n.name, tenants)
	time.Sleep(3 * time.Second)
	during := x.h.now()
	if err := n.start(); err != nil {
		x.fail("it starts again", err)
		return
	}
	if err := n.awaitReady(); err != nil {
		x.fail("it starts again", err)
		return
	}
	x.adopted(n, held)
	mine := func(s sample) bool { return lostWithController(s) && s.began < during }
	x.in(fmt.Sprintf("its %d tenants are answered elsewhere, p99", len(tenants)), quantile(x.elsewhere(tenants, lost, false), 0.99), 2*time.Second)
	inFlight := x.h.between(0, lost, func(s sample) bool { return ofLoad(s) && s.ended > lost && failed(s) })
	x.in(fmt.Sprintf("its calls in flight (%d failed) are told", len(inFlight)), lastFailure(inFlight, lost), time.Second, notes(inFlight)...)
	var last time.Duration
	late := x.struck(lost, func(s sample) bool { return s.began < lost })
	for _, s := range late {
		last = max(last, s.began-lost)
	}
	x.in(fmt.Sprintf("the last of %d that failed began", len(late)), last, time.Second, notes(late)...)
	x.untouched("only calls on it failed, as sandbox_lost", lost, mine)
}

// lostWithController says that a call failed as one does that ran on a machine that was lost; a stream breaks off.
func lostWithController(s sample) bool {
	return s.outcome == "sandbox_lost" && s.cause == "controller" || s.stream && s.outcome == "lost"
}

// adopted adds a row: a restarted controller has the containers that it had, each its tenant's.
func (x *chaos) adopted(n *node, held map[string]string) {
	var boxes []box
	var err error
	x.await(5*time.Second, func() bool { // until the router reaches it again
		boxes, err = x.management(0).boxes(context.Background(), "")
		return err == nil
	})
	if err != nil {
		x.fail("it adopts its containers", err)
		return
	}
	kept, wrong := 0, []string(nil)
	for _, b := range boxes {
		t, before := held[b.ID]
		switch {
		case !before:
		case t != "" && t != b.Tenant:
			wrong = append(wrong, fmt.Sprintf("%s was %s's and is %s's", b.ID, t, b.Tenant))
		default:
			kept++
		}
	}
	x.promise("it adopts its containers with their tenants", fmt.Sprintf("%d of %d", kept, len(held)), len(wrong) == 0 && kept > 0, wrong...)
}
