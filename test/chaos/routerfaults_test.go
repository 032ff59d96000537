package chaos

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// F4: its callers see a reset; nobody else notices.
func (x *chaos) killRouter() {
	at := x.random.IntN(routers)
	f := x.routers[at]
	f.kill()
	lost := x.h.now()
	time.Sleep(2 * time.Second)
	if err := f.start(); err != nil {
		x.fail("it starts again", err)
		return
	}
	if err := f.awaitReady(); err != nil {
		x.fail("it starts again", err)
		return
	}
	cut := x.h.between(0, endless, func(s sample) bool { return s.router == at && s.ended > lost && s.outcome == "lost" && !s.stream })
	var last time.Duration
	for _, s := range cut {
		last = max(last, s.began-lost)
	}
	x.in(fmt.Sprintf("its callers (%d) see a reset; the last began", len(cut)), max(0, last), time.Second, notes(cut)...)
	x.untouched("calls by other routers untouched", lost, func(s sample) bool { return s.router == at && s.outcome == "lost" })
}

// herdClients wait for everything to come back, and repeat.
const herdClients = 200

// F18: everything starts at once, with everybody waiting, and gets through it.
func (x *chaos) herd() {
	var all sync.WaitGroup
	for _, p := range x.processes()[members:] {
		all.Go(p.kill)
	}
	all.Wait()
	lost := x.h.now()
	x.h.mark("all controllers and routers are dead")
	stop := make(chan struct{})
	var waiting sync.WaitGroup
	ends := make(chan time.Duration, herdClients)
	names := loadNames()
	for i := range herdClients {
		waiting.Go(func() {
			for {
				if s := x.caller.call(names[i%len(names)], x.keys[names[i%len(names)]], options{router: -1}); !failed(s) {
					ends <- s.ended
					return
				}
				select {
				case <-stop:
					return
				case <-time.After(100*time.Millisecond + rand.N(200*time.Millisecond)):
				}
			}
		})
	}
	time.Sleep(2 * time.Second)
	for _, p := range x.processes()[members:] {
		if err := p.start(); err != nil {
			x.fail("everything starts again", err)
		}
	}
	for _, p := range x.processes()[members:] {
		if err := p.awaitReady(); err != nil {
			x.fail("everything starts again", err)
		}
	}
	ready := x.h.now()
	took, ok := x.await(30*time.Second, func() bool { return len(ends) == herdClients })
	x.promise(fmt.Sprintf("all %d clients are answered, ≤ %v after the start", herdClients, stretch(30*time.Second)),
		fmt.Sprintf("%d after %v", len(ends), took.Round(time.Millisecond)), ok)
	x.eventually("goodput of the load ≥ 90 %", 30*time.Second, func() bool {
		const span = 2 * time.Second
		if x.h.now() < ready+span {
			return false
		}
		calls := x.h.between(x.h.now()-span, endless, ofLoad)
		good := x.h.between(x.h.now()-span, endless, func(s sample) bool { return ofLoad(s) && !failed(s) })
		return len(calls) > 0 && len(good)*10 >= len(calls)*9
	})
	close(stop)
	waiting.Wait()
	x.promise("(for comparison) from the loss to all being ready", fmt.Sprint((ready - lost).Round(time.Millisecond)), true)
}

// rotate takes a router out while something is done to it, as whoever upgrades it behind a balancer does.
func (x *chaos) rotate(at int, do func(*front) error) error {
	l := x.b.fronts[at]
	l.out.Store(true)
	defer l.out.Store(false)
	time.Sleep(300 * time.Millisecond) // what was sent there has arrived
	return do(x.routers[at])
}

// F20: a new version of every binary, one after the other, under load; then the old one again.
func (x *chaos) upgrade() {
	next, err := build("next", "next", "")
	if err != nil {
		x.fail("another version is built", err)
		return
	}
	began := x.h.now()
	for _, bin := range []string{next, x.bin} {
		for _, m := range x.members {
			m.bin = bin
			if err := m.stop(stopLimit); err == nil {
				err = m.start()
			}
			if _, ok := x.await(20*time.Second, func() bool { return x.healthy(m) }); !ok || err != nil {
				x.fail("a member of the store is replaced", fmt.Errorf("%s: %v", m.name, err))
				return
			}
		}
		for _, n := range x.nodes {
			if err := x.replace(n.process, bin, syscall.SIGUSR2); err != nil {
				x.fail("a controller is replaced", err)
				return
			}
			if _, ok := x.await(10*time.Second, x.whole); !ok {
				x.fail("a controller is back", fmt.Errorf("%s is not registered", n.name))
			}
		}
		for i := range x.routers {
			if err := x.rotate(i, func(f *front) error { return x.replace(f.process, bin, syscall.SIGTERM) }); err != nil {
				x.fail("a router is replaced", err)
				return
			}
			x.await(10*time.Second, func() bool { return x.b.fronts[i].up.Load() })
		}
	}
	x.untouched("0 failed calls (streams apart)", began, func(s sample) bool { return s.stream })
	cut := x.struck(began, func(s sample) bool { return !s.stream })
	x.promise("(apart) streams that outlast a process", fmt.Sprintf("%d cut", len(cut)), true)
}

// replace stops a process by a signal and starts it as bin.
func (x *chaos) replace(p *process, bin string, s syscall.Signal) error {
	p.bin = bin
	if err := p.signal(s); err != nil {
		return err
	}
	if err := p.awaitExit(stopLimit); err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return err
	}
	return p.awaitReady()
}
