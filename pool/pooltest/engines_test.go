package pooltest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/docker"
	"paddock/pool/oci"
	"paddock/pool/oci/keeper"
	"paddock/runtimes"
)

// keeperCommand makes the test binary be the keeper, which in production is a command of the controller's binary.
const keeperCommand = "be-the-keeper"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keeperCommand {
		if err := keeper.Main(context.Background(), os.Args[2:], nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// host is one controller's place on this machine.
type host struct {
	t      *testing.T
	make   func(*testing.T, *host) pool.Engine
	run    string
	id     string
	uid    uint32
	lock   string
	image  runtimes.Image
	engine pool.Engine
	*pool.Pool
	n int
}

func newOCI(iso tenant.Isolation, binary string) func(*testing.T, *host) pool.Engine {
	return func(t *testing.T, h *host) pool.Engine {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		e, err := oci.New(t.Context(), oci.Options{
			Runtime: testenv.Binary(t, binary), Isolation: iso, StateDir: filepath.Join(h.run, "s", "oci"), ControllerID: h.id,
			MemoryBudgetBytes: 4 << 30, Keeper: []string{self, keeperCommand}, LockFile: h.lock, Logger: logger(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

func newDocker(t *testing.T, h *host) pool.Engine {
	e, err := docker.New(t.Context(), docker.Options{ControllerID: h.id, MemoryBudgetBytes: 4 << 30, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func TestRunc(t *testing.T)   { testEngine(t, newOCI(tenant.IsolationRunc, "runc")) }
func TestGVisor(t *testing.T) { testEngine(t, newOCI(tenant.IsolationGVisor, "runsc")) }
func TestDocker(t *testing.T) { testEngine(t, newDocker) }

func testEngine(t *testing.T, engine func(*testing.T, *host) pool.Engine) {
	image := testenv.NodeImage(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *host)
	}{
		{"Calls", testCalls},
		{"HostileCode", testHostileCode},
		{"Sizes", testSizes},
		{"FreezeAndThaw", testFreezeAndThaw},
		{"Adoption", testAdoption},
		{"Naps", testNaps},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, engine, image)
			h.start()
			c.test(t, h)
			h.stop()
		})
	}
}

func newHost(t *testing.T, engine func(*testing.T, *host) pool.Engine, image runtimes.Image) *host {
	h := &host{t: t, make: engine, run: testenv.RunDir(t), id: testenv.ControllerID(t), uid: testenv.UID(t), image: image}
	for _, dir := range []string{"s", "s/oci"} {
		if err := os.Mkdir(filepath.Join(h.run, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.lock = filepath.Join(h.run, "lock")
	f, err := os.Create(h.lock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	return h
}

// start begins a pool, as a controller's process would.
func (h *host) start() {
	h.t.Helper()
	h.engine = h.make(h.t, h)
	p, err := pool.New(pool.Config{
		Engine: h.engine, Image: h.image, RunDir: h.run, UIDBase: h.uid, UIDCount: 64, MinReady: 2, MaxReady: 2, MaxContainers: 8,
		NapAfter: napAfter, Logger: logger(h.t),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := p.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.Pool = p
	select {
	case <-p.Ready():
	case <-time.After(testenv.Patience(time.Minute)):
		h.t.Fatal("no sandbox became warm within a minute")
	}
}

// stop ends the pool and checks that the engine has nothing left.
func (h *host) stop() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience(time.Minute))
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		h.t.Error(err)
	}
	left, err := h.engine.List(ctx)
	if err != nil || len(left) != 0 {
		h.t.Errorf("%d containers are left, %v", len(left), err)
	}
	if s := h.Stats(); s.InFlight != 0 || s.MemoryCommittedBytes != 0 || s.UIDs != 0 || s.Leaking != 0 || s.Orphans != 0 {
		h.t.Errorf("gauges after the end: %+v", s)
	}
	if err := h.engine.Close(); err != nil {
		h.t.Error(err)
	}
}

func (h *host) req(t tenant.ID, source string, limit time.Duration) *call.Request {
	h.n++
	sum := sha256.Sum256([]byte(source))
	return &call.Request{
		ID: call.ID(fmt.Sprintf("%032d", h.n)), Tenant: t, Runtime: "node", Body: []byte(`{"n":20}`), Deadline: time.Now().Add(testenv.Patience(limit)),
		Code: call.Code{Hash: hex.EncodeToString(sum[:]), Kind: call.KindAuto, Name: "code.js", Source: []byte(source)},
	}
}

const double = `(input) => input.n * 2`

func (h *host) must(t tenant.ID, source string) *call.Result {
	h.t.Helper()
	res, err := h.Do(h.t.Context(), h.req(t, source, 20*time.Second), nil)
	if err != nil {
		h.t.Fatalf("%s: %s: %v", t, source, err)
	}
	return res
}

func testCalls(t *testing.T, h *host) {
	first := h.must("acme", double)
	if string(first.Value) != "40" || first.Start != call.StartPooled {
		t.Errorf("%s, %+v", first.Value, first)
	}
	second := h.must("acme", double)
	if string(second.Value) != "40" || second.Start != call.StartWarm || second.Container != first.Container {
		t.Errorf("%s, %+v", second.Value, second)
	}
	if other := h.must("other", double); other.Container == first.Container {
		t.Error("two tenants in one container")
	}
	_, err := h.Do(t.Context(), h.req("acme", `() => { throw new TypeError("no") }`, time.Second), nil)
	if e := errs.From(err); !errs.Is(err, errs.UserError) || e.Thrown == nil || e.Thrown.Name != "TypeError" {
		t.Errorf("%v", err)
	}
	fresh := h.req("acme", double, 20*time.Second)
	fresh.Fresh = true
	res, err := h.Do(t.Context(), fresh, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := h.engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found {
		if c.ID() == res.Container {
			t.Error("the container of a fresh call is listed after the answer")
		}
	}
	var all sync.WaitGroup
	for range 64 {
		req := h.req("acme", double, 20*time.Second)
		all.Go(func() {
			if res, err := h.Do(t.Context(), req, nil); err != nil || string(res.Value) != "40" {
				t.Errorf("%v, %v", res, err)
			}
		})
	}
	all.Wait()
}

// eat keeps so many MiB of arrays and so many of buffers, and then says that it could.
const eat = `({ heap, buffers }) => {
  const keep = [];
  for (let i = 0; i < heap; i++) keep.push(new Array(131072).fill(i));
  for (let i = 0; i < buffers; i++) keep.push(Buffer.alloc(1048576, 1));
  return keep.length;
}`

// testSizes: a tenant has what its limit says, V8's heap included, and no more; its CPU limit is the kernel's before it runs.
func testSizes(t *testing.T, h *host) {
	of := func(id tenant.ID, mib, heap, buffers int) error {
		p := tenant.DefaultPolicy()
		p.MemoryBytes, p.CPUMillis = int64(mib)<<20, 1500
		req := h.req(id, eat, time.Minute)
		req.Policy, req.Body = &p, fmt.Appendf(nil, `{"heap":%d,"buffers":%d}`, heap, buffers)
		res, err := h.Do(t.Context(), req, nil)
		if err == nil && string(res.Value) != fmt.Sprint(heap+buffers) {
			t.Errorf("%s: %s", id, res.Value)
		}
		return err
	}
	for _, c := range []struct{ mib, heap, buffers int }{{64, 45, 10}, {128, 100, 20}, {256, 220, 25}} {
		if err := of(tenant.ID(fmt.Sprintf("within-%d", c.mib)), c.mib, c.heap, c.buffers); err != nil {
			t.Errorf("%d MiB of heap and %d of buffers in %d: %v", c.heap, c.buffers, c.mib, err)
		}
	}
	for _, c := range []struct{ mib, heap, buffers int }{{64, 75, 0}, {64, 0, 250}, {128, 140, 0}} {
		err := of(tenant.ID(fmt.Sprintf("above-%d-%d", c.mib, c.heap)), c.mib, c.heap, c.buffers)
		if e := errs.From(err); !errs.Is(err, errs.OutOfMemory) || !strings.Contains(e.Message, fmt.Sprint(c.mib, " MiB")) {
			t.Errorf("%d MiB of heap and %d of buffers in %d: %v", c.heap, c.buffers, c.mib, err)
		}
	}
	for _, i := range h.Containers("") {
		if i.State == pool.Assigned && i.CPUMillis != 1500 {
			t.Errorf("%s of %s has %d thousandths of a CPU", i.ID, i.Tenant, i.CPUMillis)
		}
	}
}

func testFreezeAndThaw(t *testing.T, h *host) {
	quick := tenant.DefaultPolicy()
	quick.FreezeAfter = 300 * time.Millisecond
	req := h.req("acme", double, 10*time.Second)
	req.Policy = &quick
	first, err := h.Do(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.untilFrozen("acme")
	if s := h.Stats(); s.FreezeFailures != 0 || s.MemoryCommittedBytes <= 0 {
		t.Errorf("%+v", s)
	}
	for range 5 {
		again := h.req("acme", double, 10*time.Second)
		again.Policy = &quick
		res, err := h.Do(t.Context(), again, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.Start != call.StartThawed || res.Container != first.Container || string(res.Value) != "40" {
			t.Errorf("%+v", res)
		}
		t.Logf("thawed and answered: queue %s, run %s", res.Stages.Queue, res.Stages.Run)
		h.untilFrozen("acme")
	}
}

func (h *host) untilFrozen(id tenant.ID) {
	h.t.Helper()
	testenv.Await(h.t, string(id)+" is frozen", func() bool {
		all := h.Containers(id)
		return len(all) == 1 && all[0].Frozen
	})
}

// A restart finds the containers, gives them to nobody else, and what they had in memory is there.
func testAdoption(t *testing.T, h *host) {
	const counter = `() => { globalThis.n = (globalThis.n || 0) + 1; return globalThis.n }`
	mine := h.must("acme", counter).Container
	h.must("acme", counter)
	quick := tenant.DefaultPolicy()
	quick.FreezeAfter = 200 * time.Millisecond
	frozen := h.req("sleeper", counter, 10*time.Second)
	frozen.Policy = &quick
	if _, err := h.Do(t.Context(), frozen, nil); err != nil {
		t.Fatal(err)
	}
	h.untilFrozen("sleeper")
	before := len(h.Containers(""))
	if err := h.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.engine.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.start()
	t.Logf("adopted %d of %d in %s", h.Stats().Adopted, before, time.Since(began).Round(time.Millisecond))
	res := h.must("acme", counter)
	if res.Container != mine || string(res.Value) != "3" || res.Start != call.StartWarm {
		t.Errorf("%s, %+v", res.Value, res)
	}
	if res := h.must("sleeper", counter); string(res.Value) != "2" {
		t.Errorf("the frozen one: %s, %+v", res.Value, res)
	}
	if res := h.must("new", counter); string(res.Value) != "1" || res.Container == mine {
		t.Errorf("another tenant: %s, %+v", res.Value, res)
	}
	if left := strings.Count(fmt.Sprint(h.Containers("")), string(mine)); left != 1 {
		t.Errorf("%d entries for the adopted container", left)
	}
}

const napAfter = 2 * time.Second

// Warm containers burn nothing while nobody wants them, and serve when somebody does.
func testNaps(t *testing.T, h *host) {
	cpu := func() (sum time.Duration) {
		all, err := h.engine.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			u, err := c.Usage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sum += u.CPU
		}
		return sum
	}
	time.Sleep(napAfter) // they are ready, and made
	for end := time.Now().Add(20 * time.Second); ; {
		before := cpu()
		time.Sleep(time.Second)
		burned := cpu() - before
		if burned < 10*time.Millisecond {
			t.Logf("two warm containers burn %s a second", burned)
			break
		}
		if time.Now().After(end) {
			t.Fatalf("two warm containers burn %s a second", burned)
		}
	}
	began := time.Now()
	if res := h.must("acme", double); string(res.Value) != "40" || res.Start != call.StartPooled {
		t.Errorf("%s, %+v", res.Value, res)
	}
	t.Logf("the first call took %s", time.Since(began).Round(10*time.Microsecond))
}
