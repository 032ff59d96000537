package pool_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
	"paddock/runtimes"
)

// world is one run of the property test: a pool over an engine that fails at random, and all calls that were made.
type world struct {
	*rig
	rt    *rapid.T
	calls sync.WaitGroup
	flaky *flaky
	// Whose containers were, in the lives before this one.
	owners map[pool.ContainerID]tenant.ID

	mu       sync.Mutex
	made     int
	answered int
	wrong    []string
}

// flaky decides by a counter, not by chance, so that a run can be repeated.
type flaky struct {
	mu       sync.Mutex
	every    int // one in so many engine calls fails; 0 = none
	n        int
	creating time.Duration
}

func (f *flaky) fails() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.every > 0 && f.n%f.every == 0 {
		return errors.New("the engine failed")
	}
	return nil
}

func (f *flaky) set(every int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.every = every
}

// moment is the grain of time: coarse, so that things happen at the same instant.
const moment = 500 * time.Millisecond

func moments(rt *rapid.T, what string, least, most int) time.Duration {
	return time.Duration(rapid.IntRange(least, most).Draw(rt, what)) * moment
}

// TestAnyHistory runs random operations against a pool and checks after each what must always hold, and at the end that
// nothing is left.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // rapid speaks by panics, which must not leave the bubble by themselves
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			history(t, rt)
		})
		if failure != nil {
			panic(failure)
		}
	})
}

func history(t *testing.T, rt *rapid.T) {
	w := newWorld(t, rt)
	defer w.over()
	rt.Repeat(w.actions())
	w.end()
}

// over ends what is left, since the bubble ends when its last goroutine has.
func (w *world) over() {
	w.flaky.set(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w.Shutdown(ctx)
	w.calls.Wait()
}

func (w *world) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"call":   w.call,
		"call ":  w.call, // most often
		"call  ": w.call,
		"wait": func(rt *rapid.T) {
			time.Sleep(moments(rt, "wait", 1, 30))
		},
		"crash":     w.crash,
		"drain":     w.drain,
		"resize":    w.resize,
		"policy":    w.policy,
		"remove":    w.remove,
		"break":     func(rt *rapid.T) { w.flaky.set(rapid.SampledFrom([]int{0, 2, 5}).Draw(rt, "every")) },
		"restart":   w.restart,
		"open gate": func(*rapid.T) { w.engine.Open("g") },
		"":          w.check,
	}
}

func newWorld(t *testing.T, rt *rapid.T) *world {
	f := &flaky{creating: moments(rt, "creation", 0, 4)}
	e := fake.New(fake.Options{
		InMemory: true, OverheadBytes: 10 << 20,
		Isolation: rapid.SampledFrom([]tenant.Isolation{tenant.IsolationRunc, tenant.IsolationGVisor}).Draw(rt, "isolation"),
		Create: func(ctx context.Context, s pool.Spec) error {
			if err := slowly(f.creating)(ctx, s); err != nil {
				return err
			}
			return f.fails()
		},
		Freeze:  func(context.Context, pool.ContainerID) error { time.Sleep(moment); return f.fails() },
		Thaw:    func(context.Context, pool.ContainerID) error { time.Sleep(moment); return f.fails() },
		Destroy: func(context.Context, pool.ContainerID) error { return f.fails() },
		List:    func(context.Context) error { return f.fails() },
		SetCPU:  func(context.Context, pool.ContainerID, int64) error { return f.fails() },
	})
	dir, err := os.MkdirTemp("", "pool")
	if err != nil {
		rt.Fatal(err)
	}
	rt.Cleanup(func() { os.RemoveAll(dir) })
	cfg := pool.Config{
		Engine: e, Listen: e.Listen, Image: runtimes.Image{Runtime: "node", Digest: "image-1"}, RunDir: dir,
		MinReady: rapid.IntRange(-1, 3).Draw(rt, "min"), MaxContainers: rapid.IntRange(2, 8).Draw(rt, "max"),
		UIDCount: 64, NapAfter: 3 * moment,
	}
	if rapid.Bool().Draw(rt, "budget") {
		cfg.MemoryBudgetBytes = int64(rapid.IntRange(200, 1000).Draw(rt, "MiB")) << 20
	}
	w := &world{rig: &rig{t: t, engine: e, cfg: cfg}, rt: rt, flaky: f, owners: map[pool.ContainerID]tenant.ID{}}
	w.start()
	return w
}

var (
	someTenants  = []tenant.ID{"a", "b", "c", "d", "e"}
	somePrograms = []string{
		"value 1", "value 1", "value 1", "id", "sleep 500ms", "sleep 1s", "sleep 20s", "gate g", "hang", "spin", "crash", "oom", "dying", "breach", "throw x",
		"burn; value 1", "stream x y", "refuse; value 1", "refuse; sleep 20s", "child; throw x",
	}
)

func (w *world) call(rt *rapid.T) { w.make(rt, nil) }

// make makes one call in the background, changed by edit; its caller may go away.
func (w *world) make(rt *rapid.T, edit func(*call.Request)) {
	who := rapid.SampledFrom(someTenants).Draw(rt, "tenant")
	req := w.req(who, rapid.SampledFrom(somePrograms).Draw(rt, "program"))
	req.Policy = policy(func(p *tenant.Policy) {
		p.CallsPerContainer, p.MaxContainers, p.IdleTTL, p.MaxLife, p.MaxCalls = 2, 3, 30*time.Second, 2*time.Minute, 7
		p.DrainTimeout = 5 * time.Second
		switch who {
		case "d":
			p.MemoryBytes = 64 << 20
		case "e":
			p.MemoryBytes, p.CPUMillis = 256<<20, 500
		}
	})
	req.Fresh = rapid.IntRange(0, 5).Draw(rt, "fresh") == 0
	req.Idempotent = rapid.Bool().Draw(rt, "idempotent")
	req.Deadline = time.Now().Add(moments(rt, "deadline", 1, 60))
	if edit != nil {
		edit(req)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if rapid.IntRange(0, 3).Draw(rt, "goes away") == 0 {
		time.AfterFunc(moments(rt, "after", 0, 8), cancel)
	}
	w.made++
	p := w.Pool
	w.calls.Go(func() {
		defer cancel()
		_, err := p.Do(ctx, req, &collect{})
		w.mu.Lock()
		defer w.mu.Unlock()
		w.answered++
		late := time.Since(req.Deadline)
		starts := w.engine.Starts(req.ID)
		switch {
		case late > 500*time.Millisecond:
			w.wrong = append(w.wrong, fmt.Sprintf("%q answered %s after its deadline: %v", req.Code.Source, late, err))
		case starts > 1 && !req.Idempotent || starts > 2:
			w.wrong = append(w.wrong, fmt.Sprintf("%q began %d times", req.Code.Source, starts))
		case err != nil && errs.From(err).WhetherStarted() == errs.StartedNo && starts > 0 && !req.Idempotent:
			w.wrong = append(w.wrong, fmt.Sprintf("%q began and says that it did not: %v", req.Code.Source, err))
		case err == nil && starts == 0:
			w.wrong = append(w.wrong, fmt.Sprintf("%q was answered and never began", req.Code.Source))
		case errs.Is(err, errs.Internal):
			w.wrong = append(w.wrong, fmt.Sprintf("%q: %v", req.Code.Source, err))
		}
	})
	if rapid.Bool().Draw(rt, "at once") {
		synctest.Wait()
	}
}

func (w *world) crash(rt *rapid.T) {
	live := w.engine.Live()
	if len(live) == 0 {
		return
	}
	live[rapid.IntRange(0, len(live)-1).Draw(rt, "which")].End(pool.Exit{Code: -1, Signal: 11, Known: true})
}

func (w *world) drain(rt *rapid.T) {
	w.Drain(pool.Selector{Tenant: rapid.SampledFrom(someTenants).Draw(rt, "tenant")}, pool.CauseAdmin)
}

func (w *world) resize(rt *rapid.T) {
	lo := rapid.IntRange(0, 3).Draw(rt, "min")
	hi, all := lo+rapid.IntRange(0, 3).Draw(rt, "more"), rapid.IntRange(1, 8).Draw(rt, "all")
	w.Resize(&lo, &hi, &all)
}

func (w *world) policy(rt *rapid.T) {
	w.SetPolicy(rapid.SampledFrom(someTenants).Draw(rt, "tenant"), policy(func(p *tenant.Policy) {
		p.CallsPerContainer = rapid.IntRange(1, 3).Draw(rt, "calls")
		p.MaxContainers = rapid.IntRange(1, 4).Draw(rt, "containers")
		p.FreezeAfter = time.Duration(rapid.IntRange(0, 10).Draw(rt, "freeze")) * time.Second
		p.Isolation = rapid.SampledFrom([]tenant.Isolation{"", "", "", "runc", "gvisor"}).Draw(rt, "isolation")
		p.MemoryBytes = int64(rapid.SampledFrom([]int{64, 128, 128, 256}).Draw(rt, "memory")) << 20
		p.CPUMillis = rapid.SampledFrom([]int{500, 1000}).Draw(rt, "cpu")
	}))
}

func (w *world) remove(rt *rapid.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w.RemoveTenant(ctx, rapid.SampledFrom(someTenants).Draw(rt, "tenant"))
}

// restart lets go of everything and adopts it again: with time for the calls in flight, or none, as after a kill. Whoever a container
// belonged to, it is still his, or gone. One that was being bound has its latch or none: nobody had been told.
func (w *world) restart(rt *rapid.T) {
	patience := time.Second
	if rapid.Bool().Draw(rt, "killed") {
		patience = 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.Release(ctx); err != nil {
		w.rt.Fatal(err)
	}
	w.heard.mu.Lock()
	maps.Copy(w.owners, w.heard.assigned)
	w.heard.mu.Unlock()
	w.flaky.set(0)
	w.start()
	for _, c := range w.Containers("") {
		if was, told := w.owners[c.ID]; told && c.Tenant != was && (c.State == pool.Ready || c.State == pool.Assigned) {
			w.rt.Errorf("%s was %q's before a restart and is %q's", c.ID, was, c.Tenant)
		}
	}
}

// check is what holds at any time.
func (w *world) check(*rapid.T) {
	synctest.Wait()
	for _, v := range w.engine.Violations() {
		w.rt.Error(v)
	}
	w.heard.mu.Lock()
	for _, v := range w.heard.wrong {
		w.rt.Error(v)
	}
	w.heard.mu.Unlock()
	w.mu.Lock()
	for _, v := range w.wrong {
		w.rt.Error(v)
	}
	w.mu.Unlock()
	s := w.Stats()
	sum := s.Creating + s.Ready + s.Assigned + s.Draining + s.Failed
	all := w.Containers("")
	inflight := 0
	charge := int64(0)
	for _, c := range all {
		inflight += c.InFlight
		charge += c.MemoryCharge
		if c.InFlight < 0 || c.Running < 0 || c.InFlight > c.Running {
			w.rt.Errorf("slots: %+v", c)
		}
	}
	if sum != len(all) || inflight != s.InFlight || charge != s.MemoryCommittedBytes || s.Waiting < 0 || s.Demand < 0 || s.Leaking < 0 {
		w.rt.Errorf("gauges do not fit: %d containers, %d calls, %d bytes; %+v", len(all), inflight, charge, s)
	}
	if s.UIDs < len(all) {
		w.rt.Errorf("%d uids for %d containers", s.UIDs, len(all))
	}
	if n := len(w.engine.Live()); n > 8 {
		w.rt.Errorf("%d containers", n)
	}
}

// end ends the world: every call is answered, and nothing is left.
func (w *world) end() {
	w.check(nil)
	w.flaky.set(0)
	time.Sleep(time.Minute)
	w.calls.Wait()
	w.check(nil)
	if w.made != w.answered {
		w.rt.Errorf("%d calls made, %d answered", w.made, w.answered)
	}
	if s := w.Stats(); s.InFlight != 0 || s.Waiting != 0 || s.Demand != 0 {
		w.rt.Errorf("after all calls: %+v", s)
	}
	w.stop()
	if w.t.Failed() {
		w.rt.Error("see above")
	}
}
