package catalog

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"paddock/controller/store"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// moody is a store whose next commit may fail: before it is done, or after, so that nobody hears of it.
type moody struct {
	store.Store
	mu      sync.Mutex
	fate    fate
	commits int
}

type fate int

const (
	done    fate = iota
	lost         // nothing was written
	unheard      // it was written, and the answer was lost
)

func (m *moody) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits++
	if m.fate == lost {
		return 0, store.ErrUnavailable
	}
	rev, err := m.Store.Commit(ctx, txn)
	if err == nil && m.fate == unheard {
		return 0, store.ErrUnavailable
	}
	return rev, err
}

// modelFunction is what a function should be.
type modelFunction struct {
	source         map[int64]string
	active, newest int64
	split          int64
	percent        int
	former         []int64
	proven         map[int64]bool
}

func (f *modelFunction) clone() *modelFunction {
	c := *f
	c.source, c.proven, c.former = maps.Clone(f.source), maps.Clone(f.proven), slices.Clone(f.former)
	return &c
}

func (f *modelFunction) activate(n int64) {
	if f.active == n && f.split == 0 {
		return
	}
	if f.active != n && f.active != 0 {
		f.former = append(f.former, f.active)
		f.former = f.former[max(0, len(f.former)-MaxFormer):]
	}
	f.active, f.split, f.percent = n, 0, 0
}

// model is what the catalogue of a tenant should be. Its operations return the new state, or the kind of refusal.
type model struct {
	functions map[string]*modelFunction
	pipelines map[string][]string // references, in order
}

func (m model) clone() model {
	c := model{map[string]*modelFunction{}, maps.Clone(m.pipelines)}
	for name, f := range m.functions {
		c.functions[name] = f.clone()
	}
	return c
}

func (m model) deploy(name, source string, keep bool) {
	f := m.functions[name]
	if f == nil {
		f = &modelFunction{source: map[int64]string{}, proven: map[int64]bool{}}
		m.functions[name] = f
	}
	n := int64(0)
	for number, s := range f.source {
		if s == source {
			n = number
		}
	}
	if n == 0 {
		f.newest++
		n = f.newest
		f.source[n] = source
	}
	if !keep || f.active == 0 {
		f.activate(n)
	}
}

func (m model) rollback(name string) errs.Kind {
	f := m.functions[name]
	if f == nil {
		return errs.NotFound
	}
	if f.split != 0 {
		f.split, f.percent = 0, 0
		return ""
	}
	for n := len(f.former); n > 0; n-- {
		last := f.former[n-1]
		f.former = f.former[:n-1]
		if f.source[last] != "" && last != f.active {
			f.active = last
			return ""
		}
	}
	return errs.Conflict
}

func (m model) share(name string, n int64, percent int) errs.Kind {
	f := m.functions[name]
	switch {
	case f == nil || f.source[n] == "":
		return errs.NotFound
	case percent == 0:
		f.activate(n)
	case f.active == n:
		return errs.Invalid
	default:
		f.split, f.percent = n, percent
	}
	return ""
}

func (m model) named(name string, n int64) bool {
	for _, steps := range m.pipelines {
		for _, ref := range steps {
			if function, version, _ := parseRef(ref); function == name && (n == 0 || version == n) {
				return true
			}
		}
	}
	return false
}

func (m model) dropVersion(name string, n int64) errs.Kind {
	f := m.functions[name]
	switch {
	case f == nil || f.source[n] == "":
		return errs.NotFound
	case f.active == n, f.split == n, m.named(name, n):
		return errs.Conflict
	}
	delete(f.source, n)
	delete(f.proven, n)
	f.former = slices.DeleteFunc(f.former, func(one int64) bool { return one == n })
	return ""
}

func (m model) drop(name string) errs.Kind {
	switch {
	case m.functions[name] == nil:
		return errs.NotFound
	case m.named(name, 0):
		return errs.Conflict
	}
	delete(m.functions, name)
	return ""
}

func (m model) put(pipeline string, steps []string) errs.Kind {
	for _, ref := range steps {
		name, n, _ := parseRef(ref)
		if f := m.functions[name]; f == nil || n != 0 && f.source[n] == "" {
			return errs.NotFound
		}
	}
	m.pipelines[pipeline] = steps
	return ""
}

// history is one run: the catalogue, its moods, and what it should be.
type history struct {
	*world
	moods *moody
	model model
}

// try makes a change of the model's and of the catalogue's, and compares how they end.
func (h *history) try(rt *rapid.T, what string, change func(model) errs.Kind, do func(context.Context) error) {
	mood := rapid.SampledFrom([]fate{done, done, done, done, lost, unheard}).Draw(rt, "fate")
	next := h.model.clone()
	want := change(next)
	h.moods.mu.Lock()
	h.moods.fate, h.moods.commits = mood, 0
	h.moods.mu.Unlock()
	err := do(h.t.Context())
	h.moods.mu.Lock()
	h.moods.fate = done
	commits := h.moods.commits
	h.moods.mu.Unlock()
	if want == "" && commits > 0 && mood != done {
		want = errs.NoCapacity
		if started := errs.From(err).WhetherStarted(); err != nil && started != errs.StartedMaybe {
			rt.Errorf("%s: the store did not answer, and it says started: %s", what, started)
		}
	}
	if errs.KindOf(err) != want {
		rt.Errorf("%s: %v, want kind %q", what, err, want)
	}
	if want == "" || want == errs.NoCapacity && mood == unheard {
		h.model = next
	}
	_, rev, err := h.store.List(h.t.Context(), store.Root)
	must(h.t, err)
	h.sees(rev)
}

func (h *history) deploy(rt *rapid.T) {
	name, source, keep := drawName(rt), drawSource(rt), rapid.Bool().Draw(rt, "keep")
	h.try(rt, "deploy", func(m model) errs.Kind { m.deploy(name, source, keep); return "" }, func(ctx context.Context) error {
		_, err := h.service.DeployFunction(ctx, "acme", Deployment{Name: name, Source: []byte(source), KeepActive: keep})
		return err
	})
}

func (h *history) activate(rt *rapid.T) {
	name, n, percent := drawName(rt), drawVersion(rt), rapid.SampledFrom([]int{0, 0, 10, 50}).Draw(rt, "percent")
	h.try(rt, "activate", func(m model) errs.Kind { return m.share(name, n, percent) }, func(ctx context.Context) error {
		_, err := h.service.ActivateVersion(ctx, "acme", name, n, int32(percent), 0)
		return err
	})
}

func (h *history) rollback(rt *rapid.T) {
	name := drawName(rt)
	h.try(rt, "roll back", func(m model) errs.Kind { return m.rollback(name) }, func(ctx context.Context) error {
		_, err := h.service.RollbackFunction(ctx, "acme", name, 0)
		return err
	})
}

func (h *history) dropVersion(rt *rapid.T) {
	name, n := drawName(rt), drawVersion(rt)
	h.try(rt, "delete version", func(m model) errs.Kind { return m.dropVersion(name, n) }, func(ctx context.Context) error {
		_, err := h.service.DeleteVersion(ctx, "acme", name, n)
		return err
	})
}

func (h *history) drop(rt *rapid.T) {
	name := drawName(rt)
	h.try(rt, "delete function", func(m model) errs.Kind { return m.drop(name) }, func(ctx context.Context) error {
		_, err := h.service.DeleteFunction(ctx, "acme", name)
		return err
	})
}

func (h *history) prove(rt *rapid.T) {
	name, n := drawName(rt), drawVersion(rt)
	source := ""
	if f := h.model.functions[name]; f != nil {
		source = f.source[n]
	}
	h.try(rt, "prove", func(m model) errs.Kind {
		if source != "" {
			m.functions[name].proven[n] = true
		}
		return ""
	}, func(ctx context.Context) error {
		return h.service.MarkProven(ctx, "acme", name, n, hashCode([]byte(source)))
	})
}

func drawSteps(rt *rapid.T) (refs []string, steps []*pb.PipelineStep) {
	for range rapid.IntRange(1, 3).Draw(rt, "steps") {
		ref := drawName(rt)
		if rapid.Bool().Draw(rt, "pinned") {
			ref = showRef(ref, drawVersion(rt))
		}
		refs, steps = append(refs, ref), append(steps, &pb.PipelineStep{Function: ref})
	}
	return refs, steps
}

// publish puts a pipeline, with code of some of its functions or with none.
func (h *history) publish(rt *rapid.T) {
	pipeline := rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "pipeline")
	refs, steps := drawSteps(rt)
	code := map[string]string{}
	for range rapid.IntRange(0, 2).Draw(rt, "uploads") {
		code[drawName(rt)] = drawSource(rt)
	}
	var uploads []Deployment
	for _, name := range slices.Sorted(maps.Keys(code)) {
		uploads = append(uploads, Deployment{Name: name, Source: []byte(code[name])})
	}
	h.try(rt, "publish", func(m model) errs.Kind {
		for _, u := range uploads {
			m.deploy(u.Name, string(u.Source), false)
		}
		return m.put(pipeline, refs)
	}, func(ctx context.Context) error {
		_, err := h.service.PublishPipeline(ctx, "acme", NewPipeline{Name: pipeline, Steps: steps}, uploads)
		return err
	})
}

func (h *history) dropPipeline(rt *rapid.T) {
	name := rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "pipeline")
	h.try(rt, "delete pipeline", func(m model) errs.Kind {
		if m.pipelines[name] == nil {
			return errs.NotFound
		}
		delete(m.pipelines, name)
		return ""
	}, func(ctx context.Context) error {
		_, err := h.service.DeletePipeline(ctx, "acme", name)
		return err
	})
}

func drawName(rt *rapid.T) string { return rapid.SampledFrom([]string{"f", "g", "h"}).Draw(rt, "name") }
func drawSource(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "source")
}
func drawVersion(rt *rapid.T) int64 { return int64(rapid.IntRange(1, 4).Draw(rt, "version")) }

// stateOf is a view as a model. Everything that it names has to be there.
func (h *history) stateOf(rt *rapid.T, v *View) model {
	m := model{map[string]*modelFunction{}, map[string][]string{}}
	for _, f := range v.Functions("acme", "", 100) {
		one := &modelFunction{source: map[int64]string{}, proven: map[int64]bool{}, active: f.Active, newest: f.Newest, split: f.SplitVersion, percent: f.SplitPercent}
		for _, version := range f.Versions() {
			code, err := v.Source(h.t.Context(), "acme", version.Hash)
			if err != nil {
				rt.Errorf("%s@%d: %v", f.Name, version.Number, err)
			}
			one.source[version.Number] = string(code)
			if version.Proven {
				one.proven[version.Number] = true
			}
		}
		m.functions[f.Name] = one
	}
	for _, p := range v.Pipelines("acme", "", 100) {
		for _, s := range p.Steps {
			m.pipelines[p.Name] = append(m.pipelines[p.Name], showRef(s.Function, s.Version))
		}
		if _, err := v.ResolvePipeline("acme", p.Name, 7); err != nil {
			rt.Errorf("pipeline %s: %v", p.Name, err)
		}
	}
	return m
}

func (h *history) check(rt *rapid.T) { h.compare(rt, h.view) }

func (h *history) compare(rt *rapid.T, v *View) {
	want := h.model.clone()
	for _, f := range want.functions {
		f.former = nil // seen by what a rollback does
	}
	if got := h.stateOf(rt, v); !reflect.DeepEqual(got, want) {
		rt.Errorf("the catalogue is %s\nand should be %s", show(got), show(want))
	}
}

func show(m model) (text string) {
	for _, name := range slices.Sorted(maps.Keys(m.functions)) {
		text += fmt.Sprintf("%s %+v; ", name, *m.functions[name])
	}
	return text + fmt.Sprint(m.pipelines)
}

// TestAnyPublications runs random changes of versions and pipelines against a store that fails at random, and compares after each
// with what should be there: all of a change or nothing. At the end somebody who comes anew finds the same.
func TestAnyPublications(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		moods := &moody{Store: mem(t)}
		h := &history{openWorld(t, moods, dir), moods, model{map[string]*modelFunction{}, map[string][]string{}}}
		h.tenant("acme", nil)
		rt.Repeat(map[string]func(*rapid.T){
			"deploy": h.deploy, "deploy ": h.deploy, "activate": h.activate, "rollback": h.rollback, "delete version": h.dropVersion,
			"delete": h.drop, "prove": h.prove, "publish": h.publish, "publish ": h.publish, "delete pipeline": h.dropPipeline, "": h.check,
		})
		h.compare(rt, openWorld(t, moods, dir).view)
	})
}
