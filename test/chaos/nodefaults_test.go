package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
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
	var calls []sample
	var first map[string]time.Duration
	x.await(20*time.Second, func() bool {
		calls = x.h.between(0, endless, func(s sample) bool { return slices.Contains(tenants, s.tenant) && !s.stream && s.ended > lost })
		first = firstAnswer(calls, lost)
		return len(first) == len(tenants)
	})
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

// lostWithController says that a call failed as one does that ran on, or was on its way to, a machine that was lost; a stream breaks off.
func lostWithController(s sample) bool {
	return (s.outcome == "sandbox_lost" || s.outcome == "no_capacity") && s.cause == "controller" || s.stream && s.outcome == "lost"
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

// surplusGone adds a row: nobody has more than one container in use, which is what the tenants of the load may have.
func (x *chaos) surplusGone(limit time.Duration) {
	var wrong []string
	took, ok := x.await(limit, func() bool {
		boxes, err := x.management(0).boxes(context.Background(), "")
		if err != nil {
			wrong = []string{err.Error()}
			return false
		}
		wrong = nil
		count := map[string]int{}
		for _, b := range boxes {
			if b.State == "assigned" {
				count[b.Tenant]++
			}
		}
		for t, n := range count {
			if n > 1 && slices.Contains(loadNames(), t) {
				wrong = append(wrong, fmt.Sprintf("%s has %d", t, n))
			}
		}
		return len(wrong) == 0
	})
	x.promise(fmt.Sprintf("surplus containers drain, ≤ %v", stretch(limit)), fmt.Sprint(took.Round(time.Millisecond)), ok, wrong...)
}

// leaseTTL is how long a controller counts as alive that does not renew.
const leaseTTL = 10 * time.Second

// F5: its tenants are served elsewhere; when it wakes up it finds its place again, and nobody's container is another's.
func (x *chaos) zombie() {
	n, tenants := x.busiest()
	if err := n.signal(syscall.SIGSTOP); err != nil {
		x.fail("it is stopped", err)
		return
	}
	lost := x.h.now()
	x.h.mark("%s is stopped, with %v", n.name, tenants)
	time.Sleep(leaseTTL + 6*time.Second)
	there, err := x.store.registered()
	_, still := there[n.id]
	x.promise("its lease has run out", fmt.Sprintf("registered: %v", still), err == nil && !still)
	_ = n.signal(syscall.SIGCONT)
	x.h.mark("%s goes on", n.name)
	x.eventually("it is registered again", 10*time.Second, x.whole)
	x.surplusGone(10 * time.Second)
	x.in(fmt.Sprintf("its %d tenants are served elsewhere, p99", len(tenants)), quantile(x.elsewhere(tenants, lost, true), 0.99), 5*time.Second)
	x.untouched("only calls that were sent there failed", lost, func(s sample) bool {
		return slices.Contains(tenants, s.tenant) && (s.stream || s.began < lost+stretch(5*time.Second))
	})
}

// F21: what is sent arrives nowhere, and nothing says so.
func (x *chaos) halfOpen() {
	n, tenants := x.busiest()
	n.way.hold()
	lost := x.h.now()
	x.h.mark("%s is silent, with %v", n.name, tenants)
	time.Sleep(8 * time.Second)
	n.way.heal()
	x.settle()
	x.in(fmt.Sprintf("its %d tenants are served elsewhere, p99", len(tenants)), quantile(x.elsewhere(tenants, lost, true), 0.99), 5*time.Second)
	x.untouched("only calls that were sent there failed", lost, func(s sample) bool {
		return slices.Contains(tenants, s.tenant) && (s.stream || s.began < lost+stretch(5*time.Second))
	})
	x.surplusGone(10 * time.Second)

	began := x.h.now()
	at := x.random.IntN(members)
	for _, f := range x.routers {
		f.store[at].hold()
	}
	time.Sleep(5 * time.Second)
	x.eventually("routers leave a silent member of the store", 15*time.Second, x.inSight)
	for _, f := range x.routers {
		f.store[at].heal()
	}
	x.untouched("0 failed calls for a silent member of the store", began, nil)
}

// F15: what is warm goes on, and what dies is replaced: neither needs the disk.
func (x *chaos) fullDisk() {
	done, n, container, err := x.begun(options{ms: 500})
	if err != nil {
		x.fail("a call runs", err)
		return
	}
	<-done
	began := x.h.now()
	name := filepath.Join(n.data, "filler")
	filled, err := fill(name)
	x.promise("the disk is full", fmt.Sprintf("%d MiB", filled>>20), err == nil, fmt.Sprint(err))
	x.served(5 * time.Second)
	if err := x.strike(n, container, syscall.SIGKILL); err != nil {
		x.fail("a container dies", err)
	}
	x.served(10 * time.Second)
	time.Sleep(5 * time.Second)
	if err := os.Remove(name); err != nil {
		x.fail("there is room again", err)
	}
	x.untouched("0 failed calls", began, nil)
	x.promise("it runs on", fmt.Sprint(n.running()), n.running(), n.log.Tail(15))
}

// fill writes until nothing more goes in.
func fill(name string) (n int64, err error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 1} {
		block := make([]byte, size)
		for {
			k, err := f.Write(block)
			n += int64(k)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// F26: what runs may end; nobody is sent there any more; a second signal cuts short.
func (x *chaos) drain() {
	began := x.h.now()
	done, n, _, err := x.begun(options{ms: 5000, timeout: 15 * time.Second})
	if err != nil {
		x.fail("a call runs", err)
		return
	}
	if err := n.signal(syscall.SIGTERM); err != nil {
		x.fail("it is told to drain", err)
		return
	}
	x.h.mark("%s drains", n.name)
	s := <-done
	x.promise("the call in flight is answered", s.outcome, !failed(s), fmt.Sprint(s))
	err = n.awaitExit(stopLimit)
	x.promise("it ends with 0", fmt.Sprint(err), err == nil)
	x.promise("its sandboxes are gone", fmt.Sprintf("%d left", len(x.latches(n))), len(x.latches(n)) == 0)
	if err := n.start(); err == nil {
		err = n.awaitReady()
	}
	if err != nil {
		x.fail("it starts again", err)
		return
	}
	x.settle()
	x.untouched("0 failed calls (streams apart)", began, func(s sample) bool { return s.stream })
	cut := x.struck(began, func(s sample) bool { return !s.stream })
	x.promise("(apart) streams that outlast the drain", fmt.Sprintf("%d cut", len(cut)), true)

	again := x.h.now()
	n, _ = x.busiest()
	_ = n.signal(syscall.SIGTERM)
	time.Sleep(time.Second)
	_ = n.signal(syscall.SIGTERM)
	signalled := x.h.now()
	err = n.awaitExit(stopLimit)
	x.in("a second SIGTERM cuts short", x.h.now()-signalled, 10*time.Second)
	x.promise("it ends with 0, too", fmt.Sprint(err), err == nil)
	if err := n.start(); err == nil {
		err = n.awaitReady()
	}
	if err != nil {
		x.fail("it starts again", err)
	}
	x.untouched("only calls in flight there failed", again, func(s sample) bool { return lostWithController(s) && s.began < signalled+time.Second })
}
