package pool_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
	"paddock/runtimes"
)

// rig is a pool over a fake engine, and what its observer has heard.
type rig struct {
	*pool.Pool
	t      testing.TB
	engine *fake.Engine
	cfg    pool.Config
	heard  *ear
	next   atomic.Int64
}

// ear is an Observer.
type ear struct {
	mu          sync.Mutex
	assigned    map[pool.ContainerID]tenant.ID
	released    map[pool.ContainerID]pool.Cause
	recycled    map[pool.ContainerID]pool.Recycled
	lines       []call.LogLine
	wrong       []string
	quarantined []string
}

func newEar() *ear {
	return &ear{assigned: map[pool.ContainerID]tenant.ID{}, released: map[pool.ContainerID]pool.Cause{},
		recycled: map[pool.ContainerID]pool.Recycled{}}
}

func (e *ear) Assigned(a pool.Assignment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, twice := e.assigned[a.Container]; twice && other != a.Tenant {
		e.wrong = append(e.wrong, fmt.Sprintf("%s assigned to %s and to %s", a.Container, other, a.Tenant))
	}
	e.assigned[a.Container] = a.Tenant
}

func (e *ear) Released(a pool.Assignment, c pool.Cause) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.assigned[a.Container] != a.Tenant {
		e.wrong = append(e.wrong, fmt.Sprintf("%s released by %s, never assigned", a.Container, a.Tenant))
	}
	e.released[a.Container] = c
}

func (e *ear) Recycled(r pool.Recycled) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recycled[r.Container] = r
}

func (e *ear) Quarantined(t tenant.ID, hash string, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.quarantined = append(e.quarantined, fmt.Sprintf("%s %s %v", t, hash, until.After(time.Now())))
}

func (e *ear) LogLine(l call.LogLine) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, l)
}

// newRig starts a pool; edit may change the engine's options and the pool's.
func newRig(t testing.TB, edit func(*fake.Options, *pool.Config)) *rig {
	t.Helper()
	var o fake.Options
	cfg := pool.Config{
		Image:  runtimes.Image{Runtime: "node", Digest: "image-1"},
		RunDir: t.TempDir(), MinReady: 2, MaxReady: 4, MaxContainers: 16,
	}
	if edit != nil {
		edit(&o, &cfg)
	}
	e := fake.New(o)
	cfg.Engine = e
	if o.InMemory {
		cfg.Listen = e.Listen
	}
	r := &rig{t: t, engine: e, cfg: cfg}
	r.start()
	return r
}

// inMemory makes a rig fit for a bubble of synctest.
func inMemory(o *fake.Options, _ *pool.Config) { o.InMemory = true }

// start begins a pool over r's engine, as a new process would.
func (r *rig) start() {
	r.t.Helper()
	r.heard = newEar()
	cfg := r.cfg
	cfg.Observer = r.heard
	if cfg.Logger == nil && testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	p, err := pool.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := p.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.Pool = p
}

// stop shuts the pool down and checks that nothing is left and nothing bad has happened.
func (r *rig) stop() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.Shutdown(ctx); err != nil {
		r.t.Error(err)
	}
	if live := r.engine.Live(); len(live) != 0 {
		r.t.Errorf("%d containers are left", len(live))
	}
	r.check()
	s := r.Stats()
	if s.InFlight != 0 || s.Waiting != 0 || s.Demand != 0 || s.UIDs != 0 || s.MemoryCommittedBytes != 0 || s.Thaws != 0 || s.Leaking != 0 {
		r.t.Errorf("gauges are not zero after the end: %+v", s)
	}
	for _, pattern := range []string{"c", "s/pool"} {
		if left, _ := filepath.Glob(filepath.Join(r.cfg.RunDir, pattern)); len(left) != 0 {
			r.t.Errorf("directories are left: %v", left)
		}
	}
	r.heard.mu.Lock()
	defer r.heard.mu.Unlock()
	for id := range r.heard.assigned {
		if _, ok := r.heard.released[id]; !ok {
			r.t.Errorf("container %s was never released", id)
		}
		if _, ok := r.heard.recycled[id]; !ok {
			r.t.Errorf("container %s was never recycled", id)
		}
	}
}

// check reports what must never happen.
func (r *rig) check() {
	r.t.Helper()
	for _, v := range r.engine.Violations() {
		r.t.Error(v)
	}
	r.heard.mu.Lock()
	defer r.heard.mu.Unlock()
	for _, w := range r.heard.wrong {
		r.t.Error(w)
	}
}

// req makes a call of a program.
func (r *rig) req(t tenant.ID, source string) *call.Request {
	return &call.Request{
		ID: call.ID(fmt.Sprintf("call-%d", r.next.Add(1))), Tenant: t, Runtime: "node",
		Code:     call.Code{Hash: "hash of " + source, Source: []byte(source)},
		Body:     []byte(`{}`),
		Deadline: time.Now().Add(30 * time.Second),
	}
}

// policy returns the default policy, changed.
func policy(edit func(*tenant.Policy)) *tenant.Policy {
	p := tenant.DefaultPolicy()
	if edit != nil {
		edit(&p)
	}
	return &p
}

func (r *rig) run(req *call.Request) (*call.Result, *errs.Error) {
	res, err := r.Do(r.t.Context(), req, nil)
	if err != nil {
		return nil, errs.From(err)
	}
	return res, nil
}

// must runs a call that has to succeed.
func (r *rig) must(t tenant.ID, source string) *call.Result {
	r.t.Helper()
	res, err := r.run(r.req(t, source))
	if err != nil {
		r.t.Fatalf("%s: %q: %v", t, source, err)
	}
	return res
}

// fails runs a call that has to fail so.
func (r *rig) fails(req *call.Request, kind errs.Kind, cause string, started errs.Started) *errs.Error {
	r.t.Helper()
	res, err := r.run(req)
	if err == nil {
		r.t.Fatalf("%q answered %s, want %s", req.Code.Source, res.Value, kind)
	}
	if err.Kind != kind || cause != "" && err.Cause != cause || started != "" && err.WhetherStarted() != started {
		r.t.Fatalf("%q: got %s/%s started %s (%v), want %s/%s started %s", req.Code.Source, err.Kind, err.Cause, err.WhetherStarted(), err,
			kind, cause, started)
	}
	return err
}

// until waits for a condition on the statistics.
func (r *rig) until(what string, ok func(pool.Stats) bool) {
	r.t.Helper()
	end := time.Now().Add(30 * time.Second)
	for !ok(r.Stats()) {
		if time.Now().After(end) {
			r.t.Fatalf("never: %s; %+v", what, r.Stats())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// about is how long what should take d may take: no longer in a bubble, but on sockets a loaded machine draws it out.
func (r *rig) about(d time.Duration) time.Duration {
	if r.cfg.Listen != nil { // in memory
		return d
	}
	return d + 5*time.Second
}

func (r *rig) untilReady(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d ready", n), func(s pool.Stats) bool { return s.Ready >= n })
}

// collect is a Sink.
type collect struct {
	mu     sync.Mutex
	status int
	pieces []string
	onData func()
}

func (c *collect) Head(status int, _ []call.Header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
	return nil
}

func (c *collect) Data(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pieces = append(c.pieces, string(p))
	if c.onData != nil {
		c.onData()
	}
	return nil
}

func (c *collect) Log(call.LogLine) {}
