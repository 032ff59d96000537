package chaos

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"paddock/controller/store"
)

// calm measures what is promised of a cluster that nobody breaks: what it writes to the store.
func (x *chaos) calm() {
	if !*long {
		return
	}
	x.current = &fault{id: "calm", what: "nothing, for ten seconds"}
	renewed := func() (sum float64) {
		for i := range x.members {
			v, err := x.store.metric(i, "etcd_debugging_lease_renewed_total")
			if err != nil {
				x.fail("leases are counted", err)
			}
			sum = max(sum, v) // the leader renews
		}
		return sum
	}
	const span = 10 * time.Second
	began := x.h.now()
	before, err := x.store.revision()
	leases := renewed()
	time.Sleep(span)
	changed, err2 := x.store.changed(before)
	calls := len(x.h.between(began, endless, nil))
	proofs, other := apart(changed)
	x.promise("no write to the store per call, one per proven version", fmt.Sprintf("%d and %d writes, %d calls", len(other), proofs, calls),
		err == nil && err2 == nil && len(other) == 0 && calls > 0, append(other, fmt.Sprint(err, err2))...)
	each := (renewed() - leases) / span.Seconds() / controllers
	x.promise("lease traffic ≤ 1 write/s per controller", fmt.Sprintf("%.2f/s", each), each > 0 && each <= 1)
	x.untouched("0 failed calls", began, nil)
	all := latencies(x.h.between(began, endless, func(s sample) bool { return ofLoad(s) && !failed(s) }))
	x.promise("(for comparison) calls of 0, 100 and 800 ms", fmt.Sprintf("p50 %v, p99 %v", quantile(all, 0.5).Round(100*time.Microsecond), quantile(all, 0.99).Round(time.Millisecond)), true)
	x.assignments()
}

// apart takes the versions that have proved themselves out of a list of changed keys: each once, since a proof is written down once.
func apart(changed []string) (proofs int, other []string) {
	seen := map[string]bool{}
	for _, key := range changed {
		if strings.HasPrefix(key, store.VersionsPrefix) && !seen[key] {
			seen[key] = true
			proofs++
			continue
		}
		other = append(other, key)
	}
	return proofs, other
}

// assignments counts what the first calls of tenants without containers write.
func (x *chaos) assignments() {
	const n = 3
	const lingers = 7 * time.Second // what is written behind, deletes above all, goes together after a while
	keys := map[string]string{}
	for range n {
		name, key := x.newTenant()
		keys[name] = key
		for at, ids := range x.holders(name) { // its code was compiled there
			for _, id := range ids {
				if err := x.strike(at, id, syscall.SIGKILL); err != nil {
					x.fail("a container is killed", err)
				}
			}
		}
	}
	time.Sleep(lingers)
	before, err := x.store.revision()
	made := 0
	for name, key := range keys {
		if len(x.holders(name)) == 0 && !failed(x.caller.call(name, key, options{router: -1})) {
			made++
		}
	}
	time.Sleep(lingers)
	after, err2 := x.store.revision()
	x.promise("≤ 1 write to the store per assignment", fmt.Sprintf("%d writes, %d assignments", after-before, made),
		err == nil && err2 == nil && made > 0 && after-before <= int64(made))
}

// atRest checks what must be so once nobody calls any more: every accepted call has ended once, every slot was given back.
func (x *chaos) atRest() {
	x.current = &fault{id: "rest", what: "the load has ended"}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var wrong []string
	_, ok := x.await(30*time.Second, func() bool {
		wrong = nil
		for _, f := range x.routers {
			accepted, err := readMetric(client, f.url+"/metrics", "paddock_calls_accepted_total")
			ended, err2 := readMetric(client, f.url+"/metrics", "paddock_calls_total")
			open, err3 := readMetric(client, f.url+"/metrics", "paddock_calls_in_flight")
			if err != nil || err2 != nil || err3 != nil || open != 0 || accepted != ended {
				wrong = append(wrong, fmt.Sprintf("%s: %.0f accepted, %.0f ended, %.0f in flight (%v, %v, %v)", f.name, accepted, ended, open, err, err2, err3))
			}
		}
		for _, n := range x.nodes {
			running, err := readMetric(client, "http://"+n.url+"/metrics", "paddock_pool_running")
			waiting, err2 := readMetric(client, "http://"+n.url+"/metrics", "paddock_pool_waiting")
			if err != nil || err2 != nil || running != 0 || waiting != 0 {
				wrong = append(wrong, fmt.Sprintf("%s: %.0f running, %.0f waiting (%v, %v)", n.name, running, waiting, err, err2))
			}
		}
		return len(wrong) == 0
	})
	x.promise("every accepted call ended once, every slot came back", fmt.Sprintf("%d parts out of balance", len(wrong)), ok, wrong...)
}

// What porcupine judges.
const (
	promiseContainers = "containers: created, bound once, gone (porcupine)"
	promiseVersions   = "versions of functions: linearizable (porcupine)"
)

// check judges the whole history.
func (x *chaos) check(dir string) (checked int) {
	x.current = &fault{id: "all", what: "the whole history"}
	add := func(promise string, total int, of string, wrong []string) {
		x.promise(promise, fmt.Sprintf("%d of %d %s", len(wrong), total, of), len(wrong) == 0 && total > 0, wrong...)
	}
	all := x.h.between(0, endless, nil)
	wrong := x.h.between(0, endless, func(s sample) bool { return s.outcome == "wrong" })
	add("every answer is its own call's, tenant's, version's", len(all), "calls are not", notes(wrong))
	x.h.mu.Lock()
	add("no call began twice", len(x.h.starts), "calls did", x.h.twice)
	add("no container served two tenants", len(x.h.tenants), "did", x.h.mixed)
	x.h.mu.Unlock()
	add("every answer came from a container with a latch", len(all), "calls did not", x.bindings.unseen())
	histories := x.bindings.histories()
	n, bad := linearizable(bindingModel, histories, dir)
	add(promiseContainers, n, "histories are not", bad)
	m, bad := linearizable(versionModel, x.pointers.histories(), dir)
	add(promiseVersions, m, "histories are not", bad)
	observed, stale := x.pointers.stale()
	if observed > 0 || *long {
		add("an acknowledged deploy is seen by calls that begin later", observed, "calls saw older", stale)
	}
	return n + m
}
