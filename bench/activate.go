package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The activate section: new versions one after the other, under calls. A function's versions are activated one by one; a pipeline's
// rules are published all at once, and no answer may have some of them old and some new.
const (
	activations  = 1000
	activateBar  = 100 // ms, p99
	activateLoad = 4   // connections that call the function all the time, and as many that call the pipeline
	activateName = "tagged"
)

var activateRules = []string{"first", "second", "third"}

// activate measures how long it takes from the request that activates a version to the first answer of that version.
func (b *bench) activate(ctx context.Context) error {
	s, err := b.startService(ctx, filepath.Join(b.dir, "activate"), cmp.Or(b.isolation, "gvisor"), "--min-ready", "1")
	if err != nil {
		return err
	}
	defer s.stop()
	a := &activation{service: s, publications: map[int64]publication{}, told: map[told]int{}}
	if err := a.prepare(); err != nil {
		return err
	}
	stop := a.load()
	err = a.functions(ctx, b)
	if err == nil {
		err = a.pipelines(ctx, b)
	}
	stop()
	if err != nil {
		return err
	}
	took := a.took
	slices.Sort(took)
	b.atMost(fmt.Sprintf("activate: to the first answer of the new version, p99 of %d, %s", len(took), s.isolation), ms(quantile(took, 0.99)),
		activateBar, " ms", fmt.Sprintf("(p50 %.1f, slowest %.1f ms, beside %.0f calls/s)", ms(quantile(took, 0.5)), ms(took[len(took)-1]),
			float64(a.calls.Load())/a.loaded.Seconds()))
	took = a.published
	slices.Sort(took)
	b.figure(fmt.Sprintf("activate: three rules published at once, p99 of %d, %s", len(took), s.isolation), ms(quantile(took, 0.99)),
		" ms", fmt.Sprintf("(p50 %.1f, slowest %.1f ms, upload and compiling included)", ms(quantile(took, 0.5)), ms(took[len(took)-1])))
	why := ""
	if len(a.failures) > 0 {
		why = fmt.Sprintf(": %.200v", a.failures[0])
	}
	b.atMost("activate: calls that failed", float64(len(a.failures)), 0, "", fmt.Sprintf("(of %d)%s", a.calls.Load(), why))
	stale, mixed := a.verify()
	b.atMost("activate: answers of an older version than was active", float64(a.stale.Load()), 0, "", "")
	b.atMost("activate: answers of a mixture of versions", float64(mixed), 0, "", fmt.Sprintf("(%d different pipelines seen)", len(a.told)))
	b.atMost("activate: answers with other versions than at their revision", float64(stale), 0, "", "")
	return nil
}

// activation is one run.
type activation struct {
	*service
	function, pipeline target
	active             atomic.Int64 // the newest version of the function whose activation was acknowledged
	begun              atomic.Int64 // and whose was asked for
	calls, stale       atomic.Int64
	loaded             time.Duration
	took, published    []time.Duration

	mu           sync.Mutex
	failures     []error
	told         map[told]int          // how often
	publications map[int64]publication // by the revision as of which they are in force
}

// publication is what the rules are after one: the number that each of them answers with, and its version.
type publication struct {
	tag      int
	versions [3]int64
}

// told is what a pipeline's answer said: which numbers its rules answered with, by what the service says in which versions.
type told struct {
	revision int64
	tags     [3]int
	versions [3]int64
}

func (a *activation) prepare() error {
	if err := a.tenant(activateName, map[string]any{"maxContainers": 1, "ratePerSecond": 1e6, "callsPerContainer": 64}); err != nil {
		return err
	}
	key, err := a.invokeKey(activateName)
	if err != nil {
		return err
	}
	a.function = target{"function", a.http, request(a.http, "/v1/functions/one/invoke", "0", "Authorization: Bearer "+key), nil}
	a.pipeline = target{"pipeline", a.http, request(a.http, "/v1/pipelines/all/invoke", `{"user":{},"context":{"tags":[]}}`, "Authorization: Bearer "+key), nil}
	if err := a.deploy(activateName, "one", taggedFunction(0)); err != nil {
		return err
	}
	return a.publish(0)
}

func taggedFunction(n int) string { return fmt.Sprintf("module.exports = () => %d;", n) }

func taggedRule(n int) string {
	return fmt.Sprintf("function (user, context, callback) { context.tags.push(%d); callback(null, user, context); }", n)
}

// functions activates one version after the other, each uploaded before.
func (a *activation) functions(ctx context.Context, b *bench) error {
	c, err := dial(a.function)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	for n := 1; n <= activations; n++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var made struct{ DeployedVersion json.Number }
		body := map[string]any{"source": []byte(taggedFunction(n)), "keepActive": true}
		if err := a.manage("PUT", "/v1/functions/one", activateName, body, &made); err != nil {
			return err
		}
		began := time.Now()
		a.begun.Store(int64(n))
		if err := a.manage("POST", "/v1/functions/one/activate", activateName, map[string]any{"version": made.DeployedVersion}, nil); err != nil {
			return err
		}
		a.active.Store(int64(n))
		if err := c.once(); err != nil {
			return err
		}
		a.took = append(a.took, time.Since(began))
		a.hearFunction(c.body, int64(n))
		if n%250 == 0 {
			b.progress("%d of %d activated", n, activations)
		}
	}
	return nil
}

// pipelines publishes all rules anew, again and again.
func (a *activation) pipelines(ctx context.Context, b *bench) error {
	c, err := dial(a.pipeline)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	for n := 1; n <= activations; n++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		began := time.Now()
		if err := a.publish(n); err != nil {
			return err
		}
		if err := c.once(); err != nil {
			return err
		}
		a.published = append(a.published, time.Since(began))
		if t, err := a.hearPipeline(c.body); err != nil || t.tags[0] != n {
			return fmt.Errorf("after publication %d: %.200s %w", n, c.body, err)
		}
		if n%250 == 0 {
			b.progress("%d of %d published", n, activations)
		}
	}
	return nil
}

func (a *activation) publish(n int) error {
	var steps, functions []map[string]any
	for _, name := range activateRules {
		steps = append(steps, map[string]any{"function": name})
		functions = append(functions, map[string]any{"name": name, "source": []byte(taggedRule(n)), "kind": "rule"})
	}
	body := map[string]any{"pipeline": map[string]any{"steps": steps}, "functions": functions}
	var made struct {
		Functions []struct {
			Name              string
			Version, Revision json.Number
		}
	}
	if err := a.manage("POST", "/v1/pipelines/all/publish", activateName, body, &made); err != nil {
		return err
	}
	p := publication{tag: n}
	var revision int64
	for i, name := range activateRules {
		for _, f := range made.Functions {
			if f.Name == name {
				p.versions[i], _ = f.Version.Int64()
				revision, _ = f.Revision.Int64()
			}
		}
		if p.versions[i] == 0 || revision == 0 {
			return fmt.Errorf("publication %d says nothing of %s: %+v", n, name, made)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.publications[revision] = p
	return nil
}

// load calls the function and the pipeline until it is stopped.
func (a *activation) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 2 * activateLoad {
		wg.Go(func() { a.keepCalling(ctx, i%2 == 0) })
	}
	return func() {
		cancel()
		wg.Wait()
		a.loaded = time.Since(began)
	}
}

func (a *activation) keepCalling(ctx context.Context, function bool) {
	t := a.pipeline
	if function {
		t = a.function
	}
	c, err := dial(t)
	if err != nil {
		a.fail(err)
		return
	}
	defer c.conn.Close()
	for ctx.Err() == nil {
		a.calls.Add(1)
		least := a.active.Load()
		if err := c.once(); err != nil {
			a.fail(err)
			return
		}
		if function {
			a.hearFunction(c.body, least)
		} else if _, err := a.hearPipeline(c.body); err != nil {
			a.fail(err)
			return
		}
	}
}

func (a *activation) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, err)
}

// hearFunction counts an answer of a version that was not active any more when the call began, or not yet when it ended.
func (a *activation) hearFunction(body []byte, least int64) {
	var n int64
	if err := json.Unmarshal(body, &n); err != nil {
		a.fail(fmt.Errorf("the function answered %.100s", body))
	}
	if n < least || n > a.begun.Load() {
		a.stale.Add(1)
	}
}

func (a *activation) hearPipeline(body []byte) (t told, err error) {
	var answer struct {
		Context  struct{ Tags []int }
		Steps    []struct{ Version int64 }
		Revision int64
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Steps) != len(t.versions) || len(answer.Context.Tags) != len(t.tags) {
		return t, fmt.Errorf("the pipeline answered %.200s", body)
	}
	t.revision = answer.Revision
	copy(t.tags[:], answer.Context.Tags)
	for i := range answer.Steps {
		t.versions[i] = answer.Steps[i].Version
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told[t]++
	return t, nil
}

// verify counts the answers that were no publication as a whole, and those that were another than the one in force at the revision
// that they say.
func (a *activation) verify() (wrong, mixed int) {
	var revisions []int64
	for rev := range a.publications {
		revisions = append(revisions, rev)
	}
	slices.Sort(revisions)
	for t, n := range a.told {
		if t.tags[0] != t.tags[1] || t.tags[0] != t.tags[2] {
			mixed += n
		}
		at, found := slices.BinarySearch(revisions, t.revision)
		if !found {
			at--
		}
		if at < 0 {
			wrong += n
			continue
		}
		if p := a.publications[revisions[at]]; t.versions != p.versions || t.tags != [3]int{p.tag, p.tag, p.tag} {
			wrong += n
		}
	}
	return wrong, mixed
}
