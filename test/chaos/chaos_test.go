package chaos

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seed      = flag.Uint64("chaos.seed", 1, "decides the order of the faults, and whom they strike")
	long      = flag.Bool("chaos.long", false, "inject every fault, with the time limits of what is promised; else a few, with generous ones")
	only      = flag.String("chaos.fault", "", "inject only these faults; several with commas")
	isolation = flag.String("chaos.isolation", "runc", "runc or gvisor")
	tableFile = flag.String("chaos.table", "", "write the table here as well")
	patience  = flag.Float64("chaos.patience", 1, "stretch the time limits, for machines that others use as well")
	broken    = flag.Bool("chaos.broken", false, "run a build without latch and guards, whose failures the checkers must notice")
	logDir    = flag.String("chaos.logs", "", "write what the processes say here")
)

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if built, err = os.MkdirTemp("", "paddock-chaos-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(built)
	os.Exit(code)
}

// fault is one way to break the cluster. inject breaks it, measures what was promised, and mends it.
type fault struct {
	id, what string
	quick    bool // make test injects it, too
	inject   func(*chaos)
}

// chaos is one run.
type chaos struct {
	*cluster
	h        *history
	b        *balancer
	caller   *caller
	bindings *bindings
	pointers *pointers
	keys     map[string]string
	random   *rand.Rand
	current  *fault
	rows     []row
	fresh    int // numbers tenants that have not called yet
}

// Faults in the order of the seed; nobody's promise is broken.
func TestChaos(t *testing.T) {
	bin, err := program()
	if *broken {
		bin, err = build("broken", "broken", "broken")
	}
	if err != nil {
		t.Fatal(err)
	}
	out := io.Writer(os.Stdout)
	if *tableFile != "" {
		f, err := os.Create(*tableFile)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		out = io.MultiWriter(out, f)
	}
	rows, sum := run(t, bin)
	table(out, rows)
	if sum.faults == 0 {
		t.Error("no fault was injected")
	}
	defer func() { fmt.Fprintln(out, sum.summary(rows)) }()
	if *broken {
		for _, what := range []string{promiseContainers, promiseVersions} {
			if !slices.ContainsFunc(brokenRows(rows), func(r row) bool { return r.promise == what }) {
				t.Errorf("a service without latch and guards passed: %s", what)
			}
		}
		return
	}
	for _, r := range brokenRows(rows) {
		t.Errorf("%s (%s): %s: %s\n\t%s", r.fault, r.what, r.promise, r.measured, strings.Join(r.notes, "\n\t"))
	}
}

// run does everything and returns what came of it.
func run(t *testing.T, bin string) (rows []row, sum totals) {
	began := time.Now()
	x := &chaos{cluster: startCluster(t, *isolation, bin), h: newHistory(), random: rand.New(rand.NewPCG(*seed, 0)), keys: map[string]string{}}
	if *logDir != "" {
		defer x.writeLogs(*logDir)
	}
	t.Logf("the cluster serves after %v", time.Since(began).Round(time.Second))
	x.b = newBalancer(x.cluster)
	defer x.b.close()
	x.caller, x.bindings, x.pointers = &caller{h: x.h, b: x.b}, newBindings(x.h), newPointers(x.h)
	x.prepare()
	stop := make(chan struct{})
	var watching, stewards sync.WaitGroup
	watching.Go(func() { x.bindings.watch(x.cluster, stop) })
	load := startLoad(x.caller, x.keys)
	if !x.settle() {
		t.Errorf("the load is not served: %v", notes(x.h.between(0, endless, failed)))
	}
	x.calm()
	turning := make(chan struct{})
	for i, tenant := range loadNames()[:4] {
		for j := range 2 { // against each other
			s := &steward{p: x.pointers, c: x.cluster, caller: x.caller, tenant: tenant, key: x.keys[tenant], random: rand.New(rand.NewPCG(*seed, uint64(10*i+j)))}
			stewards.Go(func() { s.run(turning) })
		}
	}
	sum.faults = x.injectAll()
	close(turning)
	stewards.Wait()
	load.end()
	x.atRest()
	close(stop)
	watching.Wait()
	x.current = &fault{id: "end", what: "everything is stopped"}
	left := x.stop()
	x.promise("every process ends well, and nothing is left", fmt.Sprintf("%d complaints", len(left)), len(left) == 0, left...)
	sum.checks = x.check(t.TempDir())
	all := x.h.between(0, endless, nil)
	sum.seed, sum.isolation, sum.took = *seed, *isolation, time.Since(began)
	sum.calls, sum.failed, sum.containers = len(all), len(x.h.between(0, endless, failed)), len(x.bindings.histories())
	sum.writes = x.pointers.counts["acknowledged"]
	return x.rows, sum
}

// prepare admits the tenants of the load, and those that faults are tried on.
func (x *chaos) prepare() {
	x.t.Helper()
	m := x.management(0)
	for _, tenant := range append(loadNames(), victim) {
		key, err := m.admit(tenant, loadPolicy)
		if err != nil {
			x.t.Fatal(err)
		}
		x.keys[tenant] = key
		began := x.h.now()
		f, err := m.deploy(x.t.Context(), tenant, "turning", echoSource(tenant, 1), 0)
		if err != nil {
			x.t.Fatal(err)
		}
		x.pointers.keep(tenant, x.pointers.client(), versionOp{what: "deploy"}, versionResult{pointer: pointer{f.Version, f.DeployedVersion, f.Revision}}, began, x.h.now())
	}
}

// victim is a tenant without load, for faults that concern one call or one container.
const victim = "victim"

// newTenant is one that has no container yet.
func (x *chaos) newTenant() (name, key string) {
	x.fresh++
	name = fmt.Sprintf("fresh-%d", x.fresh)
	key, err := x.management(0).admit(name, loadPolicy)
	if err != nil {
		x.fail("a new tenant can be admitted", err)
	}
	return name, key
}

// injectAll injects what is wanted, in the order of the seed.
func (x *chaos) injectAll() (injected int) {
	var wanted []*fault
	for i := range faults {
		f := &faults[i]
		if *only != "" && !slices.Contains(strings.Split(*only, ","), f.id) || *only == "" && !*long && !f.quick {
			continue
		}
		wanted = append(wanted, f)
	}
	x.random.Shuffle(len(wanted), func(i, j int) { wanted[i], wanted[j] = wanted[j], wanted[i] })
	for _, f := range wanted {
		x.current = f
		x.h.mark("%s %s", f.id, f.what)
		began := time.Now()
		f.inject(x)
		injected++
		calm := x.settle()
		x.promise("everything is served again, by everybody", fmt.Sprintf("%.1f s with the fault", time.Since(began).Seconds()), calm)
		x.t.Logf("%s %s: %v", f.id, f.what, time.Since(began).Round(100*time.Millisecond))
	}
	return injected
}

// promise adds a row.
func (x *chaos) promise(text, measured string, kept bool, broke ...string) {
	r := row{x.current.id, x.current.what, text, measured, kept, nil}
	if !kept {
		r.notes = notes(broke)
	}
	x.rows = append(x.rows, r)
}

// fail adds a row of a promise that could not even be measured.
func (x *chaos) fail(text string, err error) { x.promise(text, "-", false, err.Error()) }

// in adds a row about a time.
func (x *chaos) in(text string, took, limit time.Duration, broke ...string) {
	limit = stretch(limit)
	x.promise(fmt.Sprintf("%s, ≤ %v", text, limit), fmt.Sprint(took.Round(time.Millisecond)), took <= limit, broke...)
}

// stretch makes a time limit generous where not the promise is measured but whether it works at all.
func stretch(d time.Duration) time.Duration {
	d = time.Duration(float64(d) * *patience)
	if !*long {
		d = 4*d + 20*time.Second
	}
	return d
}

// await waits until something is so, and says how long that took.
func (x *chaos) await(limit time.Duration, what func() bool) (took time.Duration, ok bool) {
	began := time.Now()
	for {
		if what() {
			return time.Since(began), true
		}
		if time.Since(began) > stretch(limit) {
			return time.Since(began), false
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// eventually is await with a row.
func (x *chaos) eventually(text string, limit time.Duration, what func() bool) {
	took, ok := x.await(limit, what)
	x.promise(fmt.Sprintf("%s, ≤ %v", text, stretch(limit)), fmt.Sprint(took.Round(time.Millisecond)), ok)
}

const (
	// settleLimit bounds how long the cluster may take to be itself again.
	settleLimit = 60 * time.Second
	quiet       = 1500 * time.Millisecond
)

// settle waits until everybody is there and the load was answered without a failure for a while.
func (x *chaos) settle() bool {
	since := x.h.now()
	_, ok := x.await(settleLimit, func() bool {
		if !x.whole() {
			since = x.h.now()
			return false
		}
		bad := x.h.between(since, endless, func(s sample) bool { return failed(s) && !s.stream })
		if len(bad) > 0 {
			since = bad[len(bad)-1].began + 1
		}
		return x.h.now()-since > quiet && len(firstAnswer(x.h.between(since, endless, ofLoad), since)) == loadTenants
	})
	return ok
}

// whole says whether every part is there.
func (x *chaos) whole() bool {
	for _, l := range x.b.fronts {
		if !l.up.Load() || l.out.Load() {
			return false
		}
	}
	there, err := x.store.registered()
	if err != nil {
		return false
	}
	for _, n := range x.nodes {
		if _, ok := there[n.id]; !ok || !n.running() {
			return false
		}
	}
	return x.inSight()
}

// inSight says whether the routers hear of what is written.
func (x *chaos) inSight() bool {
	client := http.Client{Timeout: time.Second}
	for _, f := range x.routers {
		age, err := readMetric(&client, f.url+"/metrics", "paddock_catalog_age_seconds")
		if err != nil || age > sightLimit.Seconds() {
			return false
		}
	}
	return true
}

// sightLimit is how old a router's view of the store is at most whose watch lives.
const sightLimit = 3 * time.Second

// ofLoad says that a call is one of the constant ones.
func ofLoad(s sample) bool { return strings.HasPrefix(s.tenant, "tenant-") }

// struck returns the calls of the load that were under way at an instant, or began after it, and failed, except those that are
// allowed to.
func (x *chaos) struck(since time.Duration, allowed func(sample) bool) []sample {
	return x.h.between(0, endless, func(s sample) bool {
		return ofLoad(s) && s.ended > since && failed(s) && s.outcome != "cancelled" && (allowed == nil || !allowed(s))
	})
}

// untouched adds a row: nobody's calls but those that are allowed to have failed since.
func (x *chaos) untouched(text string, since time.Duration, allowed func(sample) bool) {
	bad := x.struck(since, allowed)
	n := len(x.h.between(since, endless, ofLoad))
	x.promise(text, fmt.Sprintf("%d of %d calls failed", len(bad), n), len(bad) == 0, notes(bad)...)
}

// writeLogs leaves what the processes said, and what was done when.
func (x *chaos) writeLogs(dir string) {
	_ = os.MkdirAll(dir, 0o755)
	for _, p := range x.processes() {
		_ = os.WriteFile(dir+"/"+p.name+".log", []byte(p.log.String()), 0o644)
	}
	x.h.mu.Lock()
	defer x.h.mu.Unlock()
	text := fmt.Sprintf("zero %v\n%s\n\n", x.h.zero, strings.Join(x.h.marks, "\n"))
	for _, s := range x.h.calls {
		if failed(s) {
			text += s.String() + "\n"
		}
	}
	_ = os.WriteFile(dir+"/failed.txt", []byte(text), 0o644)
}

func (c *cluster) processes() (all []*process) {
	for _, m := range c.members {
		all = append(all, m.process)
	}
	for _, n := range c.nodes {
		all = append(all, n.process)
	}
	for _, f := range c.routers {
		all = append(all, f.process)
	}
	return all
}
