package cluster

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"paddock/controller/store"
	"paddock/internal/identity"
	"paddock/pool"
)

// TestAnyHistory runs random histories of three controllers and two routers. Whatever happens to processes, containers, leases
// and connections: no container has two tenants, a call's code begins at most once, every call is answered in time, a process
// writes an assignment at most once; and when it is over, every tenant is served through every router, no tenant has more
// containers than it may, and the records are what the machines have.
func TestAnyHistory(t *testing.T) {
	histories(t, func(w *world) map[string]func(*rapid.T) { return w.faults() })
}

// histories runs random sequences of actions, each in a world of its own.
func histories(t *testing.T, actions func(*world) map[string]func(*rapid.T)) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // rapid speaks by panics, which must not leave the bubble by themselves
		synctest.Test(t, func(*testing.T) {
			defer func() { failure = recover() }()
			w := newWorld(rt)
			defer w.close()
			all := actions(w)
			all[""] = w.check
			rt.Repeat(all)
			w.end()
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// machineOf draws a machine by its name: rapid prints what is drawn, and a machine is in use meanwhile.
func (w *world) machineOf(rt *rapid.T) *machine {
	return w.machines[rapid.IntRange(0, len(w.machines)-1).Draw(rt, "machine")]
}

func (w *world) frontOf(rt *rapid.T) *front {
	return w.fronts[rapid.IntRange(0, len(w.fronts)-1).Draw(rt, "router")]
}

// faults are calls, and what happens to machines, processes and what is between them.
func (w *world) faults() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"call":   w.call,
		"call ":  w.call, // most often
		"call  ": w.call,
		"wait": func(rt *rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 30).Draw(rt, "half seconds")) * 500 * time.Millisecond)
		},
		"crash": func(rt *rapid.T) { w.crash(rt, w.machineOf(rt)) },
		"kill": func(rt *rapid.T) {
			if m := w.machineOf(rt); m.runs() {
				m.kill()
			}
		},
		"start": func(rt *rapid.T) {
			if m := w.machineOf(rt); !m.runs() && !w.away {
				m.start()
			}
		},
		"lease lost": func(rt *rapid.T) { w.store.Expire(w.machineOf(rt).store.granted()) },
		"zombie": func(rt *rapid.T) { // out of everybody's reach for longer than its lease
			if m := w.machineOf(rt); m.runs() {
				m.store.setCut(true)
				m.setUnheard(true)
				w.store.Expire(m.store.granted())
			}
		},
		"cut":          func(rt *rapid.T) { w.machineOf(rt).store.setCut(true) },
		"cut a router": func(rt *rapid.T) { w.frontOf(rt).store.setCut(true) },
		"unheard":      func(rt *rapid.T) { w.machineOf(rt).setUnheard(true) },
		"heal":         func(*rapid.T) { w.heal() },
		"etcd":         func(rt *rapid.T) { w.setAway(rapid.Bool().Draw(rt, "away")) },
		"drain":        func(rt *rapid.T) { w.drain(w.machineOf(rt)) },
		"undrain":      func(rt *rapid.T) { w.undrain(w.machineOf(rt)) },
		"maximum":      w.maximum,
	}
}

// call makes one call in the background.
func (w *world) call(rt *rapid.T) {
	f := w.frontOf(rt)
	tenant, program := rapid.SampledFrom(someTenants).Draw(rt, "tenant"), rapid.SampledFrom(somePrograms).Draw(rt, "program")
	timeout := time.Duration(rapid.IntRange(1, 10).Draw(rt, "timeout")) * time.Second
	w.begin(f, tenant, program, timeout)
	if rapid.Bool().Draw(rt, "at once") {
		synctest.Wait()
	}
}

// begin makes a call beside everything else.
func (w *world) begin(f *front, tenant, program string, timeout time.Duration) {
	w.made++
	w.calls.Go(func() {
		w.ask(f, tenant, program, timeout)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.answered++
	})
}

func (w *world) crash(rt *rapid.T, m *machine) {
	if live := m.engine.Live(); len(live) > 0 {
		live[rapid.IntRange(0, len(live)-1).Draw(rt, "which")].End(pool.Exit{Code: -1, Signal: 11, Known: true})
	}
}

// record is what is known of one assignment's record.
type record struct {
	stands bool
	by     []*access // processes that have written it
}

// wrote judges the writes of assignments. A process that adopts a container that a former one had let go of, and not yet ended, writes
// its record again; nobody else has a reason to.
func (w *world) wrote(a *access, txn store.Txn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range txn.Puts {
		if !strings.HasPrefix(p.Key, store.AssignmentsPrefix) {
			continue
		}
		r := w.records[p.Key]
		if r == nil {
			r = &record{}
			w.records[p.Key] = r
		}
		if r.stands || slices.Contains(r.by, a) {
			w.wrong = append(w.wrong, fmt.Sprintf("%s was written %d times (it stood: %v)", p.Key, len(r.by)+1, r.stands))
		}
		r.stands, r.by = true, append(r.by, a)
	}
	for _, key := range txn.Deletes {
		if r := w.records[key]; r != nil {
			r.stands = false
		}
	}
}

// check is what holds at any time.
func (w *world) check(*rapid.T) {
	synctest.Wait()
	for _, m := range w.machines {
		for _, v := range m.engine.Violations() {
			w.rt.Error(v)
		}
		if n := len(m.engine.Live()); n > perMachine {
			w.rt.Errorf("%s has %d containers", m.id, n)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.wrong {
		w.rt.Error(v)
	}
}

// end lets everything come back, and looks at what has become of it.
func (w *world) end() {
	w.heal()
	for _, m := range w.machines {
		if !m.runs() {
			m.start()
		}
		w.undrain(m)
	}
	time.Sleep(20 * time.Second)
	w.calls.Go(func() {}) // a group that was never used may be waited for
	for _, t := range someTenants {
		for i, f := range w.fronts {
			if a := w.ask(f, t, "value 1", 10*time.Second); a.Code != http.StatusOK {
				w.rt.Errorf("when all is well again, %s is not served by router %d: %d %s", t, i, a.Code, a.Body)
			}
		}
	}
	time.Sleep(20 * time.Second)
	w.check(nil)
	w.mu.Lock()
	if w.made != w.answered {
		w.rt.Errorf("%d calls made, %d answered", w.made, w.answered)
	}
	w.mu.Unlock()
	w.compareRecords()
	w.checkMaxima()
}

// compareRecords compares what the store says with what the machines have.
func (w *world) compareRecords() {
	for _, m := range w.machines {
		keys, _ := m.has()
		kvs, _, err := w.store.List(w.ctx, store.AssignmentsOf(m.id))
		if err != nil {
			w.rt.Fatal(err)
		}
		for _, kv := range kvs {
			if !keys[kv.Key] {
				w.rt.Errorf("%s: the record %s has no container", m.id, kv.Key)
			}
			delete(keys, kv.Key)
		}
		for key := range keys {
			w.rt.Errorf("%s: no record says %s", m.id, key)
		}
		if _, err := w.store.Get(w.ctx, store.Controller(m.id)); err != nil {
			w.rt.Errorf("%s is not registered: %v", m.id, err)
		}
	}
}

// holds returns how many containers of a tenant's each machine has, in words and in all.
func (w *world) holds(tenant string) (where string, n int) {
	for _, m := range w.machines {
		_, all := m.has()
		where += fmt.Sprintf(" %s %d", m.id, all[tenant])
		n += all[tenant]
	}
	return where, n
}

func (w *world) checkMaxima() {
	for _, t := range someTenants {
		if where, n := w.holds(t); n > w.most[t] {
			w.rt.Errorf("%s has %d containers, at most %d:%s", t, n, w.most[t], where)
		}
	}
}

// operator is a context of somebody who may do everything.
func (w *world) operator() context.Context {
	return identity.With(w.ctx, identity.Identity{Role: identity.RoleOperator, KeyID: keyID})
}
