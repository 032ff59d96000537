package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/catalog"
	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes"
)

// What the checkers say is worth something only if they object to a service that is broken. Each of these is tried whole and with its
// one guard taken away. `make chaos-broken` does the same with a binary that was built without them, in a whole cluster.

// hand runs a pool over the fake engine, ends its process, and starts the next one, as a restart does.
type hand struct {
	t      *testing.T
	engine *fake.Engine
	dir    string
	pool   *pool.Pool
	h      *history
	b      *bindings
	nonce  int64
	last   time.Duration
}

func (r *hand) start() {
	p, err := pool.New(pool.Config{Engine: r.engine, Image: runtimes.Image{Runtime: "node", Digest: "image"}, RunDir: r.dir, MinReady: 1, MaxReady: 1,
		MaxContainers: 8, AdoptTimeout: 5 * time.Second, Observer: deaf{}})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := p.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.pool = p
}

// deaf hears nothing of what happens to containers.
type deaf struct{}

func (deaf) Assigned(pool.Assignment)                 {}
func (deaf) Released(pool.Assignment, pool.Cause)     {}
func (deaf) Recycled(pool.Recycled)                   {}
func (deaf) Quarantined(tenant.ID, string, time.Time) {}
func (deaf) LogLine(call.LogLine)                     {}

// look reads the latches, as the harness does on the host.
func (r *hand) look() {
	began, found := r.h.now(), map[string]string{}
	dirs, err := filepath.Glob(filepath.Join(r.dir, "s/pool", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range dirs {
		text, _ := os.ReadFile(filepath.Join(d, "tenant"))
		found[filepath.Base(d)], _, _ = strings.Cut(string(text), "\n")
	}
	r.b.looked(0, found, r.last, r.h.now())
	r.last = began
}

// serve makes a call of a tenant's.
func (r *hand) serve(t string) {
	r.nonce++
	s := sample{tenant: t, nonce: r.nonce, began: r.h.now(), outcome: "ok"}
	res, err := r.pool.Do(r.t.Context(), &call.Request{ID: call.ID(fmt.Sprint(r.nonce)), Tenant: tenant.ID(t), Runtime: "node",
		Code: call.Code{Hash: "id", Source: []byte("id")}, Body: []byte("{}"), Deadline: time.Now().Add(30 * time.Second)}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	s.container, s.ended = string(res.Container), r.h.now()
	r.h.add(s, nil)
	r.look()
}

// A process dies and the next one adopts its containers; without the latch it takes a tenant's container for a new one.
func TestCheckersSeeThatTheLatchIsOff(t *testing.T) {
	for name, off := range map[string]bool{"whole": false, "latch off": true} {
		t.Run(name, func(t *testing.T) {
			r := &hand{t: t, engine: fake.New(fake.Options{}), dir: t.TempDir(), h: newHistory()}
			r.b = newBindings(r.h)
			r.start()
			r.serve("a")
			r.serve("b")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := r.pool.Release(ctx); err != nil {
				t.Fatal(err)
			}
			latches, err := filepath.Glob(filepath.Join(r.dir, "s/pool", "*", "tenant"))
			if err != nil || len(latches) != 2 {
				t.Fatalf("the latches are %v, %v", latches, err)
			}
			for _, l := range latches {
				if off {
					if err := os.Remove(l); err != nil {
						t.Fatal(err)
					}
				}
			}
			r.start()
			for _, tenant := range []string{"c", "d", "e"} {
				r.serve(tenant)
			}
			if err := r.pool.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
			r.look()
			_, wrong := linearizable(bindingModel, r.b.histories(), t.TempDir())
			if noticed := len(wrong) > 0 && len(r.h.mixed) > 0; noticed != off || !off && len(wrong)+len(r.h.mixed) > 0 {
				t.Errorf("latch off: %v; porcupine says %v, the plain check %v", off, wrong, r.h.mixed)
			}
		})
	}
}

// meeting is a store whose writers meet before each one's first write of a round, so that all have decided on the same revision.
// Unguarded, it writes whatever its guards say.
type meeting struct {
	store.Store
	unguarded bool
	meet      chan struct{} // unbuffered, of two
	first     bool
}

func (m *meeting) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if m.first {
		m.first = false
		select {
		case m.meet <- struct{}{}:
		case <-m.meet:
		case <-ctx.Done():
		}
	}
	if m.unguarded {
		txn.Guards = nil
	}
	return m.Store.Commit(ctx, txn)
}

// writer is one of two routers that write to the same store.
type writer struct {
	store   *meeting
	service *catalog.Service
}

func newWriter(t *testing.T, dir string, m *meeting) *writer {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	kek, err := catalog.LoadKEK(filepath.Join(dir, "kek"))
	must(err)
	pepper, err := catalog.LoadPepper(filepath.Join(dir, "pepper"))
	must(err)
	blobs, err := catalog.OpenBlobs(filepath.Join(dir, "blobs"))
	must(err)
	view, err := catalog.NewView(catalog.ViewOptions{Store: m, Blobs: blobs, KEK: kek})
	must(err)
	t.Cleanup(func() { must(view.Close()); must(blobs.Close()) })
	s, err := catalog.NewService(catalog.Options{Store: m, View: view, Blobs: blobs, KEK: kek, Pepper: pepper, Remover: nobody{}})
	must(err)
	<-view.Ready()
	return &writer{m, s}
}

type nobody struct{}

func (nobody) RemoveTenant(context.Context, tenant.ID) (int, error) { return 0, nil }

// Two routers decide on the same revision and write: without the guards both are told that they did.
func TestCheckersSeeThatGuardsAreOff(t *testing.T) {
	for name, off := range map[string]bool{"whole": false, "guards off": true} {
		t.Run(name, func(t *testing.T) {
			base, dir, meet := memstore.New(), t.TempDir(), make(chan struct{})
			defer base.Close()
			var writers []*writer
			for range 2 {
				writers = append(writers, newWriter(t, dir, &meeting{Store: base, unguarded: off, meet: meet}))
			}
			if _, err := writers[0].service.CreateTenant(t.Context(), "acme", nil); err != nil {
				t.Fatal(err)
			}
			p := newPointers(newHistory())
			d, err := writers[0].service.DeployFunction(t.Context(), "acme", catalog.Deployment{Name: "f", Kind: call.KindAuto, Source: []byte("module.exports = 0")})
			if err != nil {
				t.Fatal(err)
			}
			p.keep("acme", 100, versionOp{what: "deploy"}, versionResult{pointer: pointer{d.Function.Active, d.Version.Number, d.Revision}}, 0, p.h.now())
			conflicts := 0
			for round := range 6 {
				at := readPointer(t, base)
				began := p.h.now()
				p.keep("acme", 100, versionOp{what: "read"}, versionResult{pointer: at}, began, p.h.now())
				var both sync.WaitGroup
				var mu sync.Mutex
				for i, w := range writers {
					w.store.first = true
					both.Go(func() {
						began := p.h.now()
						d, err := w.service.DeployFunction(t.Context(), "acme", catalog.Deployment{Name: "f", Kind: call.KindAuto, ExpectedRevision: at.revision,
							Source: fmt.Appendf(nil, "module.exports = () => '%d %d'", round, i)})
						res := versionResult{conflict: errs.KindOf(err) == errs.Conflict}
						if err == nil {
							res.pointer = pointer{d.Function.Active, d.Version.Number, d.Revision}
						}
						mu.Lock()
						defer mu.Unlock()
						switch {
						case res.conflict:
							conflicts++
						case err != nil:
							t.Error(err)
						}
						p.keep("acme", i, versionOp{what: "deploy", expected: at.revision}, res, began, p.h.now())
					})
				}
				both.Wait()
			}
			_, wrong := linearizable(versionModel, p.histories(), t.TempDir())
			if (len(wrong) > 0) != off || !off && conflicts == 0 {
				t.Errorf("guards off: %v; %d refused, porcupine says %v", off, conflicts, wrong)
			}
		})
	}
}

func readPointer(t *testing.T, s store.Store) pointer {
	t.Helper()
	kv, err := s.Get(t.Context(), store.Function("acme", "f"))
	if err != nil {
		return pointer{}
	}
	var rec pb.FunctionRecord
	if err := proto.Unmarshal(kv.Value, &rec); err != nil {
		t.Fatal(err)
	}
	return pointer{rec.GetActive(), rec.GetNewest(), kv.ModRevision}
}
