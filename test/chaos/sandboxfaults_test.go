package chaos

import (
	"fmt"
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
