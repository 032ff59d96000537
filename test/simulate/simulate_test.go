package simulate

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/placement"
	"paddock/internal/tenant"
)

var (
	many  = flag.Int("simulate.controllers", 0, "so many controllers, with a thousand tenants each; 0: the small fleet")
	table = flag.String("simulate.table", "", "the file that the table goes to")
	seed  = flag.Uint64("simulate.seed", 1, "what is drawn follows from it")
)

// memoryLimit is what the large simulation may take of the machine's memory; the collector works harder near to it.
const memoryLimit = 7 << 30

// TestFleet is the simulation.
func TestFleet(t *testing.T) {
	s := smallSize
	if *many > 0 {
		s = sized(*many)
		debug.SetGCPercent(200)
		debug.SetMemoryLimit(memoryLimit)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s, *seed)
		defer w.close()
		r := &report{}
		if err := w.simulate(r); err != nil {
			t.Fatal(err)
		}
		if *table != "" {
			var text strings.Builder
			r.print(&text)
			if err := os.WriteFile(*table, []byte(text.String()), 0o644); err != nil {
				t.Error(err)
			}
		} else if testing.Verbose() {
			r.print(os.Stdout)
		}
		for _, l := range r.missed() {
			t.Error(l)
		}
	})
}

func (w *world) simulate(r *report) error {
	w.spread(r)
	w.moves(r)
	if err := w.settle(); err != nil {
		return err
	}
	if err := w.open(); err != nil {
		return err
	}
	w.room(r)
	w.routing(r)
	w.steady(r)
	if err := w.join(r); err != nil {
		return err
	}
	w.lose(r, "processes lost", w.machines[:w.few], func(m *machine) chan struct{} { return m.dead }, 2*time.Second)
	w.lose(r, "rack silent", w.machines[w.few:w.few+w.rack], func(m *machine) chan struct{} { return m.silent }, 5*time.Second)
	w.converged(r)
	r.timed(w, "this process: memory at its peak", peak()/(1<<30), "GiB", atMost(8))
	r.note("this process: CPU", cpu().Seconds(), "s")
	return nil
}

// spread finds every tenant's home.
func (w *world) spread(r *report) {
	began := wall()
	w.homes = homesOf(w.tenants, candidates(w.machines))
	took := wall() - began
	load := make([]float64, len(w.machines))
	for _, h := range w.homes {
		load[h]++
	}
	most, all, weight := 0.0, 0.0, 0.0
	fullest, expected := 0.0, math.Inf(1)
	for i, m := range w.machines {
		load[i] /= float64(m.capacity)
		fullest = max(fullest, load[i])
		all += load[i] * float64(m.capacity)
		weight += float64(m.capacity)
		expected = min(expected, float64(m.capacity))
	}
	mean := all / weight
	most = fullest / mean
	// The smallest machine is home to a binomial number: five standard deviations are never seen.
	r.add("homes: fullest machine, of the mean by weight", most, "x", atMost(1+5/math.Sqrt(expected*mean)))
	r.add("homes: fullest machine, of its capacity", 100*fullest, "%", atMost(100*mean*(1+5/math.Sqrt(expected*mean))))
	r.note("homes: real time for each tenant", float64(took.Microseconds())/float64(w.tenants), "us")
}

// moves compares homes before and after a hundredth of the machines leave, or as many join.
func (w *world) moves(r *report) {
	n := min(w.sample, w.tenants)
	all := candidates(w.machines)
	share := func(some []*machine) float64 {
		part, whole := 0, 0
		for _, m := range w.machines {
			whole += m.capacity
		}
		for _, m := range some {
			part += m.capacity
		}
		return float64(part) / float64(whole)
	}
	slack := 5 / math.Sqrt(float64(n)*share(w.machines[:w.few]))
	left := homesOf(n, all[w.few:])
	moved, others := 0, 0
	for i := range n {
		if int(left[i])+w.few != int(w.homes[i]) {
			moved++
			if int(w.homes[i]) >= w.few {
				others++
			}
		}
	}
	want := share(w.machines[:w.few])
	r.add(fmt.Sprintf("%d machines leave: homes that move, of their share", w.few), float64(moved)/float64(n)/want, "x", atMost(1+slack))
	r.add("... homes that move although their machine stays", float64(others), "", exactly(0))
	var joined []*machine
	for i := range w.few {
		joined = append(joined, w.newMachine(w.controllers+1000+i, w.machines[i].capacity))
	}
	after := homesOf(n, append(slices.Clone(all), candidates(joined)...))
	moved, others = 0, 0
	for i := range n {
		if after[i] != w.homes[i] {
			moved++
			if int(after[i]) < len(all) {
				others++
			}
		}
	}
	r.add(fmt.Sprintf("%d machines join: homes that move, of their share", w.few), float64(moved)/float64(n)/(want/(1+want)), "x", atMost(1+slack))
	r.add("... homes that move between machines that were there", float64(others), "", exactly(0))
}

// room is what a router takes.
func (w *world) room(r *report) {
	s := w.view.Stats()
	r.add("router: tenants in its view", float64(s.Tenants), "", exactly(float64(w.tenants)))
	r.add("router: records that cannot be read", float64(s.Unreadable), "", exactly(0))
	r.timed(w, "router: heap for each tenant (key, function, version, container)", float64(w.bytes)/float64(w.tenants)/1024, "KiB", atMost(3))
	r.timed(w, "router: real time to take the store in", w.loaded.Seconds(), "s", atMost(90))
}

// routing is what it takes to find out who is asked: for tenants that this router does not know yet, and for those it does.
func (w *world) routing(r *report) {
	f := w.fronts[0].fleet
	n := min(10_000, w.tenants/2)
	for _, known := range []string{"a tenant's first call", "a later call"} {
		took := make([]time.Duration, n)
		for i := range n {
			id := name(w.tenants - 1 - i)
			began := wall()
			t, _ := w.view.Tenant(id)
			req := call.Request{Tenant: id, Policy: t.Policy, Runtime: "node"}
			node, ok := f.Route(&req)()
			took[i] = wall() - began
			if !ok || node == nil {
				r.add("router: tenants that nobody serves", 1, "", exactly(0))
			}
		}
		slices.Sort(took)
		bar := atMost(15)
		if known != "a later call" {
			bar = atMost(300)
		}
		r.timed(w, "router: real time to find who is asked, "+known+", p50", float64(took[n/2].Nanoseconds())/1000, "us", bar)
		r.note("... p99", float64(took[n*99/100].Nanoseconds())/1000, "us")
	}
}

// steady is the fleet on an ordinary minute.
func (w *world) steady(r *report) {
	const d = 30 * time.Second
	before, puts, made, burnt := w.etcd.Stats(), w.etcd.puts(), w.made(), cpu()
	all := w.load(d)
	after := w.etcd.Stats()
	writes, assigned := after.Writes-before.Writes, w.etcd.puts()-puts
	r.failures("steady", all)
	r.add("etcd: assignments written, of those that were made", float64(assigned)/float64(w.made()-made), "x", atMost(1))
	released := after.Deletes - before.Deletes
	r.add("etcd: writes for each container that is bound or released", float64(writes)/float64(assigned+released), "x", atMost(1))
	r.note("... bound", float64(assigned)/d.Seconds(), "/s")
	r.note("... released", float64(released)/d.Seconds(), "/s")
	r.add("etcd: writes a second", float64(writes)/d.Seconds(), "/s", atMost(float64(w.controllers)))
	r.note("... for each controller", float64(writes)/d.Seconds()/float64(w.controllers), "/s")
	r.note("... lease keepalives beside them (no writes)", float64(w.controllers)/(leaseTTL.Seconds()/3), "/s")
	r.note("real CPU of a call, machines and store included", float64((cpu()-burnt).Microseconds())/float64(len(all)), "us")
	r.latency("steady", all)
}

func (w *world) made() (n int) {
	for _, m := range w.machines {
		m.mu.Lock()
		n += m.made
		m.mu.Unlock()
	}
	return n
}

// join adds a hundredth of the machines. Nobody who has containers moves.
func (w *world) join(r *report) error {
	var joined []*machine
	for i := range w.few {
		m := w.add(w.controllers + i)
		joined = append(joined, m)
		if err := m.start(w.ctx); err != nil {
			return err
		}
	}
	burnt := cpu()
	all := w.load(10 * time.Second)
	r.failures("machines joined", all)
	moved, serve := 0, 0
	for _, m := range joined {
		m.mu.Lock()
		serve += len(m.held)
		for t := range m.held {
			for _, h := range w.view.Holdings(t) {
				if h.Controller != m.id && w.byID[h.Controller] != m {
					moved++
				}
			}
		}
		m.mu.Unlock()
	}
	r.add("machines joined: tenants that moved away from a container", float64(moved), "", atMost(float64(serve)/20))
	r.note("machines joined: tenants that came to them by themselves in 10 s", float64(serve), "")
	r.note("machines joined: real CPU of a call", float64((cpu()-burnt).Microseconds())/float64(len(all)), "us")
	asked, found := w.callHomes(joined)
	bar := atLeast(1)
	if w.controllers < 1000 {
		bar = nil // a small fleet may have none
	}
	r.add("machines joined: tenants without a container whose home they are, called", float64(asked), "", bar)
	r.add("... of them not served there", float64(asked-found), "", exactly(0))
	return nil
}

// callHomes calls tenants that have no container anywhere and whose home is one of some machines, ten for each, and says how many of them
// these then have.
func (w *world) callHomes(some []*machine) (asked, found int) {
	all := candidates(w.machines)
	want := map[int]*machine{}
	for i := 0; i < w.tenants && len(want) < 10*len(some); i++ {
		home := w.machines[placement.Top(name(i), all, 1)[0]]
		if slices.Contains(some, home) && len(w.view.Holdings(name(i))) == 0 {
			want[i] = home
		}
	}
	var over sync.WaitGroup
	for i := range want {
		f := w.fronts[i%len(w.fronts)]
		over.Go(func() { w.call(f, i) })
	}
	over.Wait()
	for i, m := range want {
		m.mu.Lock()
		if _, ok := m.held[name(i)]; ok {
			found++
		}
		m.mu.Unlock()
	}
	return len(want), found
}

// lose ends machines under load. within is how long after it a call may still fail.
func (w *world) lose(r *report, what string, lost []*machine, how func(*machine) chan struct{}, within time.Duration) {
	gone := map[tenant.ID]bool{}
	for _, m := range lost {
		m.mu.Lock()
		for t := range m.held {
			gone[t] = true
		}
		m.mu.Unlock()
	}
	touched := func(i int) bool { return gone[name(i)] || slices.Contains(lost, w.machines[w.homes[i]]) }
	at := time.Now()
	for _, m := range lost {
		m.end(how(m))
	}
	made, burnt := w.made(), cpu()
	all := w.load(15 * time.Second)
	var last time.Duration
	failed, others, called := 0, 0, 0
	served := map[int]time.Duration{} // since the loss
	for _, o := range all {
		ok := o.status == 200
		if !touched(o.tenant) {
			if !ok {
				others++
			}
			continue
		}
		called++
		if !ok {
			failed++
			last = max(last, o.began.Sub(at))
			continue
		}
		end := o.began.Add(o.took).Sub(at)
		if was, there := served[o.tenant]; !there || end < was {
			served[o.tenant] = end
		}
	}
	r.add(what+": calls of others that fail", float64(others), "", exactly(0))
	r.add(what+": last call that fails begins after", last.Seconds(), "s", atMost(within.Seconds()))
	r.note(fmt.Sprintf("... %d tenants lose a container; of their calls fail", len(gone)), 100*float64(failed)/float64(max(1, called)), "%")
	r.note("... of them were called and are served again in 15 s", float64(len(served)), "")
	r.note("... containers made meanwhile", float64(w.made()-made), "")
	r.note("... real CPU of a call", float64((cpu()-burnt).Microseconds())/float64(len(all)), "us")
	r.latency(what+", others", slices.DeleteFunc(all, func(o outcome) bool { return touched(o.tenant) || o.status != 200 }))
}

// converged compares what the store says of the machines that are left with what they have, when nothing has happened for a while.
func (w *world) converged(r *report) {
	quiet := time.Now()
	for time.Since(quiet) < 10*time.Second {
		time.Sleep(time.Second)
	}
	differ, refused, evicted, fullest := 0, 0, 0, 0.0
	load, weight := 0, 0
	for _, m := range w.machines[w.few+w.rack:] {
		kvs, _, _ := w.etcd.List(context.Background(), store.AssignmentsOf(m.id))
		stand := map[string]bool{}
		for _, kv := range kvs {
			stand[kv.Key] = true
		}
		m.mu.Lock()
		n := 0
		for t, h := range m.held {
			for _, a := range h.containers {
				n++
				if !stand[store.Assignment(m.id, t, a.Runtime, string(a.Container))] {
					differ++
				}
			}
		}
		// A container whose life ends in these seconds has its record for five more.
		differ += max(0, len(kvs)-n-m.all/100-5)
		refused, evicted = refused+m.refused, evicted+m.evicted
		load, weight = load+m.all, weight+m.capacity
		fullest = max(fullest, float64(m.all)/float64(m.capacity))
		m.mu.Unlock()
	}
	r.add("at the end: records that are not as the machines are", float64(differ), "", exactly(0))
	r.add("at the end: fullest machine, of the mean by weight", fullest/(float64(load)/float64(weight)), "x", atMost(1.5))
	r.note("calls refused by full machines and served elsewhere", float64(refused), "")
	r.note("containers evicted", float64(evicted), "")
	n := 0
	w.each(func(h catalog.Holding) { n += h.Containers })
	r.note("containers in the routers' view", float64(n), "")
}

func (w *world) each(f func(catalog.Holding)) {
	for i := range w.tenants {
		for _, h := range w.view.Holdings(name(i)) {
			f(h)
		}
	}
}
