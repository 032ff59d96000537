package chaos

import (
	"fmt"
	"maps"
	"sync"
	"syscall"
	"time"
)

// begun makes a call of the victim's and returns when it runs, with its container.
func (x *chaos) begun(o options) (done <-chan sample, n *node, container string, err error) {
	if s := x.caller.call(victim, x.keys[victim], options{router: -1}); failed(s) {
		return nil, nil, "", fmt.Errorf("the victim is not served: %v", s)
	}
	ends := make(chan sample, 1)
	o.router = -1
	go func() { ends <- x.caller.call(victim, x.keys[victim], o) }()
	time.Sleep(500 * time.Millisecond) // it runs: the container was warm
	for n, ids := range x.holders(victim) {
		if len(ids) == 1 {
			return ends, n, ids[0], nil
		}
	}
	return ends, nil, "", fmt.Errorf("the victim's containers are %v", x.holders(victim))
}

// served adds a row: the victim is served, soon.
func (x *chaos) served(limit time.Duration) {
	var last sample
	took, ok := x.await(limit, func() bool {
		last = x.caller.call(victim, x.keys[victim], options{router: -1})
		return !failed(last)
	})
	x.promise(fmt.Sprintf("the tenant's next call is served, ≤ %v", stretch(limit)), fmt.Sprint(took.Round(time.Millisecond)), ok, fmt.Sprint(last))
}

// F1: the call ends at once and says why; nobody else notices.
func (x *chaos) killSandbox() {
	done, n, container, err := x.begun(options{ms: 8000, timeout: 12 * time.Second})
	if err != nil {
		x.fail("a call runs", err)
		return
	}
	began := x.h.now()
	if err := x.strike(n, container, syscall.SIGKILL); err != nil {
		x.fail("a sandbox is killed", err)
		return
	}
	s := <-done
	x.promise("its call ends as sandbox_lost, crashed", s.outcome+" "+s.cause, s.outcome == "sandbox_lost" && (s.cause == "crashed" || s.cause == "killed"), fmt.Sprint(s))
	x.in("it ends soon", s.ended-began, 200*time.Millisecond, fmt.Sprint(s))
	x.served(5 * time.Second)
	x.untouched("other calls untouched", began, nil)
}

// F2: the call ends by its deadline, and the sandbox goes.
func (x *chaos) stopSandbox() {
	const timeout, grace = 3 * time.Second, 500 * time.Millisecond
	done, n, container, err := x.begun(options{ms: 8000, timeout: timeout})
	if err != nil {
		x.fail("a call runs", err)
		return
	}
	began := x.h.now()
	if err := x.strike(n, container, syscall.SIGSTOP); err != nil {
		x.fail("a sandbox is stopped", err)
		return
	}
	s := <-done
	x.promise("its call ends as timeout", s.outcome, s.outcome == "timeout", fmt.Sprint(s))
	x.in("it ends by its deadline", s.ended-s.began, timeout+grace, fmt.Sprint(s))
	x.eventually("the sandbox is gone", 10*time.Second, func() bool {
		_, there := x.latches(n)[container]
		return !there
	})
	x.served(5 * time.Second)
	x.untouched("other calls untouched", began, nil)
}

// bomb takes more memory than there is.
const bomb = `module.exports = () => { const all = []; for (;;) all.push(Buffer.alloc(16 << 20, 1)); };`

// F17: what one tenant wants too much of is refused to it; the others do not notice.
func (x *chaos) burst() {
	name, key := x.newTenant()
	began := x.h.now()
	const calls = 500
	var all sync.WaitGroup
	results := make(chan sample, calls)
	for range calls {
		all.Go(func() { results <- x.caller.call(name, key, options{router: -1, ms: 100}) })
	}
	all.Wait()
	close(results)
	answered, wrong := 0, []sample(nil)
	for s := range results {
		switch s.outcome {
		case "ok":
			answered++
		case "limited", "no_capacity":
		default:
			wrong = append(wrong, s)
		}
	}
	x.promise("a burst is answered or refused", fmt.Sprintf("%d of %d answered, %d otherwise", answered, calls, len(wrong)), answered > 0 && len(wrong) == 0, notes(wrong)...)
	x.untouched("other tenants: 0 failed calls in the burst", began, nil)

	looping := x.h.now()
	if _, err := x.management(0).deploy(x.t.Context(), name, "bomb", bomb, 0); err != nil {
		x.fail("code that crashes is deployed", err)
		return
	}
	var last sample
	for i := 0; i < 12 && last.cause != "quarantine"; i++ {
		last = x.caller.call(name, key, options{router: -1, name: "bomb"})
	}
	x.promise("code that crashes again and again is quarantined", last.outcome+" "+last.cause, last.outcome == "limited" && last.cause == "quarantine", fmt.Sprint(last))
	x.untouched("other tenants: 0 failed calls meanwhile", looping, nil)
	p99 := quantile(latencies(x.h.between(began, endless, ofLoad)), 0.99)
	x.promise("(for comparison) other tenants' p99", fmt.Sprint(p99.Round(time.Millisecond)), true)
}

// F19: at five times what fits, most of what fits is still done.
func (x *chaos) overload() {
	const (
		perContainer, ms = 4, 100
		capacity         = perContainer * 1000 / ms // calls a second
		span             = 30 * time.Second
	)
	x.fresh++
	name := fmt.Sprintf("fresh-%d", x.fresh)
	policy := maps.Clone(loadPolicy)
	policy["callsPerContainer"] = perContainer
	key, err := x.management(0).admit(name, policy)
	if err != nil {
		x.fail("a tenant is admitted", err)
		return
	}
	began := x.h.now()
	tick := time.NewTicker(time.Second / (5 * capacity))
	defer tick.Stop()
	var all sync.WaitGroup
	for x.h.now()-began < span {
		<-tick.C
		all.Go(func() { x.caller.call(name, key, options{router: -1, ms: ms, timeout: time.Second}) })
	}
	all.Wait()
	mine := x.h.between(began, endless, func(s sample) bool { return s.tenant == name })
	good := x.h.between(began, endless, func(s sample) bool { return s.tenant == name && !failed(s) })
	share := float64(len(good)) / (capacity * span.Seconds())
	x.promise("goodput ≥ 80 % of what fits", fmt.Sprintf("%.0f %%: %d answered of %d, %d fit", 100*share, len(good), len(mine), int(capacity*span.Seconds())), share >= 0.8)
	x.untouched("other tenants: 0 failed calls", began, nil)
}
