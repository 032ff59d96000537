package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"paddock/controller/catalog"
	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/identity"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
	"paddock/router"
	"paddock/router/fleet"
	"paddock/router/remote"
)

const (
	perMachine = 4 // containers
	mostOf     = 2 // containers of a tenant
)

var (
	someTenants  = []string{"ant", "bee", "cat", "dog"}
	somePrograms = []string{"value 1", "value 1", "value 1", "id", "sleep 500ms", "sleep 2s", "crash", "oom", "spin", "breach", "throw x"}
	pepper       = catalog.Pepper(strings.Repeat("p", 32))
)

const keyID = "0123456789abcdef"

var keySecret = base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("s", 32)))

// TestMain makes fewer histories than rapid would by itself: each is a whole cluster.
func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "25")
	flag.Parse()
	os.Exit(m.Run())
}

// world is one cluster and its history.
type world struct {
	rt       *rapid.T
	t        *testing.T
	dir      string
	ctx      context.Context
	store    *memstore.Store
	kek      catalog.KEK
	blobs    *catalog.Blobs
	machines []*machine
	fronts   []*front
	calls    sync.WaitGroup
	away     bool

	mu       sync.Mutex
	made     int
	answered int
	wrong    []string
	owner    map[string]string // by container
	written  map[string]int    // how often each assignment's record was
}

// front is a router.
type front struct {
	store  *access
	view   *catalog.View
	fleet  *fleet.Fleet
	router *router.Router
}

// TestAnyHistory runs random histories of three controllers and two routers. Whatever happens to processes, containers, leases
// and connections: no container has two tenants, a call's code begins at most once, every call is answered in time, an
// assignment is written at most once; and when it is over, every tenant is served through every router, no tenant has more
// containers than it may, and the records are what the machines have.
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
	defer w.close()
	machineOf := func(rt *rapid.T) *machine { return rapid.SampledFrom(w.machines).Draw(rt, "machine") }
	rt.Repeat(map[string]func(*rapid.T){
		"call":   w.call,
		"call ":  w.call, // most often
		"call  ": w.call,
		"wait": func(rt *rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 30).Draw(rt, "half seconds")) * 500 * time.Millisecond)
		},
		"crash": func(rt *rapid.T) { w.crash(rt, machineOf(rt)) },
		"kill": func(rt *rapid.T) {
			if m := machineOf(rt); m.runs() {
				m.kill()
			}
		},
		"start": func(rt *rapid.T) {
			if m := machineOf(rt); !m.runs() && !w.away {
				m.start()
			}
		},
		"lease lost": func(rt *rapid.T) { w.store.Expire(machineOf(rt).store.granted()) },
		"zombie": func(rt *rapid.T) { // out of everybody's reach for longer than its lease
			if m := machineOf(rt); m.runs() {
				m.store.setCut(true)
				m.setUnheard(true)
				w.store.Expire(m.store.granted())
			}
		},
		"cut":          func(rt *rapid.T) { machineOf(rt).store.setCut(true) },
		"cut a router": func(rt *rapid.T) { rapid.SampledFrom(w.fronts).Draw(rt, "router").store.setCut(true) },
		"unheard":      func(rt *rapid.T) { machineOf(rt).setUnheard(true) },
		"heal":         func(*rapid.T) { w.heal() },
		"etcd":         func(rt *rapid.T) { w.setAway(rapid.Bool().Draw(rt, "away")) },
		"":             w.check,
	})
	w.end()
}

func newWorld(t *testing.T, rt *rapid.T) *world {
	dir, err := os.MkdirTemp("", "cluster")
	if err != nil {
		rt.Fatal(err)
	}
	rt.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{rt: rt, t: t, dir: dir, ctx: context.Background(), store: memstore.New(), owner: map[string]string{}, written: map[string]int{}}
	if w.kek, err = catalog.LoadKEK(filepath.Join(dir, "kek")); err != nil {
		rt.Fatal(err)
	}
	if w.blobs, err = catalog.OpenBlobs(filepath.Join(dir, "blobs")); err != nil {
		rt.Fatal(err)
	}
	w.seed()
	for _, id := range []string{"c1", "c2", "c3"} {
		m := newMachine(w, id)
		m.start()
		w.machines = append(w.machines, m)
	}
	for range 2 {
		w.fronts = append(w.fronts, w.newFront())
	}
	synctest.Wait()
	return w
}

// seed writes the tenants and an operator's key.
func (w *world) seed() {
	p := &pb.Policy{
		MaxContainers: proto.Int32(mostOf), CallsPerContainer: proto.Int32(2), RatePerSecond: proto.Float64(1000),
		ClaimBurst: proto.Int32(1000), ClaimsPerSecond: proto.Float64(1000),
	}
	h := hmac.New(sha256.New, pepper)
	h.Write([]byte(keyID + "." + keySecret))
	records := map[string]proto.Message{store.Key(keyID): &pb.KeyRecord{Id: keyID, Role: string(identity.RoleOperator), Mac: h.Sum(nil)}}
	for _, t := range someTenants {
		records[store.TenantsPrefix+t] = &pb.TenantRecord{Id: t, State: "active", Policy: p, WrappedKey: []byte("k")}
	}
	for key, m := range records {
		value, err := proto.Marshal(m)
		if err != nil {
			w.rt.Fatal(err)
		}
		if _, err := w.store.Commit(w.ctx, store.Txn{Puts: []store.Put{{Key: key, Value: value}}}); err != nil {
			w.rt.Fatal(err)
		}
	}
}

func (w *world) newView(s store.Store) *catalog.View {
	v, err := catalog.NewView(catalog.ViewOptions{Store: s, Blobs: w.blobs, KEK: w.kek})
	if err != nil {
		w.rt.Fatal(err)
	}
	<-v.Ready()
	return v
}

func (w *world) newFront() *front {
	f := &front{store: newAccess(w)}
	f.view = w.newView(f.store)
	var err error
	f.fleet, err = fleet.New(fleet.Options{Region: "r", Catalogue: f.view, Dial: w.dial})
	if err != nil {
		w.rt.Fatal(err)
	}
	f.router, err = router.New(router.Config{
		Catalogue: f.view, Keyring: catalog.NewKeyring(f.view, pepper), Nodes: f.fleet, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.rt.Fatal(err)
	}
	return f
}

func (w *world) dial(id, _ string) (grpc.ClientConnInterface, io.Closer, error) {
	for _, m := range w.machines {
		if m.id != id {
			continue
		}
		conn, err := grpc.NewClient("passthrough:///"+id, grpc.WithTransportCredentials(insecure.NewCredentials()), remote.DialOption(),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.dial(ctx) }),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second, Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}}))
		return conn, conn, err
	}
	return nil, nil, fmt.Errorf("no machine %s", id)
}

// ask makes one call through a router and returns its answer.
func (w *world) ask(f *front, tenant, program string, timeout time.Duration) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/run?timeout="+timeout.String(), strings.NewReader(program))
	r.Header.Set("Authorization", "Bearer pdk_"+keyID+"."+keySecret)
	r.Header.Set("Paddock-Tenant", tenant)
	r.Header.Set("Content-Type", "text/plain")
	began, a := time.Now(), httptest.NewRecorder()
	f.router.ServeHTTP(a, r)
	w.judge(a, tenant, program, time.Since(began)-timeout)
	return a
}

// judge looks at what one call showed.
func (w *world) judge(a *httptest.ResponseRecorder, tenant, program string, late time.Duration) {
	starts := 0
	for _, m := range w.machines {
		starts += m.engine.Starts(call.ID(a.Header().Get("Paddock-Call-Id")))
	}
	container := a.Header().Get("Paddock-Container")
	w.mu.Lock()
	defer w.mu.Unlock()
	complain := func(format string, args ...any) {
		w.wrong = append(w.wrong, fmt.Sprintf("%q of %s: ", program, tenant)+fmt.Sprintf(format, args...)+fmt.Sprintf(" (%d %s)", a.Code, a.Body))
	}
	if late > 500*time.Millisecond {
		complain("answered %s after its deadline", late)
	}
	if starts > 1 {
		complain("began %d times", starts)
	}
	if a.Code == http.StatusOK && starts == 0 {
		complain("was answered and never began")
	}
	if a.Header().Get("Paddock-Started") == "no" && starts > 0 {
		complain("began and says that it did not")
	}
	if a.Code == http.StatusInternalServerError && a.Header().Get("Paddock-Error") == "internal" {
		complain("is an internal error")
	}
	if other, ok := w.owner[container]; ok && container != "" && other != tenant {
		complain("container %s has served %s as well", container, other)
	}
	w.owner[container] = tenant
}

// wrote counts the writes of each assignment.
func (w *world) wrote(txn store.Txn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range txn.Puts {
		if !strings.HasPrefix(p.Key, store.AssignmentsPrefix) {
			continue
		}
		if w.written[p.Key]++; w.written[p.Key] > 1 {
			w.wrong = append(w.wrong, fmt.Sprintf("%s was written %d times", p.Key, w.written[p.Key]))
		}
	}
}

// call makes one call in the background.
func (w *world) call(rt *rapid.T) {
	f := rapid.SampledFrom(w.fronts).Draw(rt, "router")
	tenant, program := rapid.SampledFrom(someTenants).Draw(rt, "tenant"), rapid.SampledFrom(somePrograms).Draw(rt, "program")
	timeout := time.Duration(rapid.IntRange(1, 10).Draw(rt, "timeout")) * time.Second
	w.made++
	w.calls.Go(func() {
		w.ask(f, tenant, program, timeout)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.answered++
	})
	if rapid.Bool().Draw(rt, "at once") {
		synctest.Wait()
	}
}

func (w *world) crash(rt *rapid.T, m *machine) {
	if live := m.engine.Live(); len(live) > 0 {
		live[rapid.IntRange(0, len(live)-1).Draw(rt, "which")].End(pool.Exit{Code: -1, Signal: 11, Known: true})
	}
}

func (w *world) setAway(away bool) {
	w.away = away
	w.store.SetAway(away)
}

// heal ends what keeps processes apart.
func (w *world) heal() {
	w.setAway(false)
	for _, m := range w.machines {
		m.setUnheard(false)
		if m.runs() {
			m.store.setCut(false)
		}
	}
	for _, f := range w.fronts {
		f.store.setCut(false)
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
	all := map[string]int{}
	for _, m := range w.machines {
		keys, tenants := m.has()
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
		for t, n := range tenants {
			all[t] += n
		}
		if _, err := w.store.Get(w.ctx, store.Controller(m.id)); err != nil {
			w.rt.Errorf("%s is not registered: %v", m.id, err)
		}
	}
	for t, n := range all {
		if n > mostOf {
			w.rt.Errorf("%s has %d containers, at most %d", t, n, mostOf)
		}
	}
}

func (w *world) close() {
	w.heal()
	for _, f := range w.fronts {
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		_ = f.router.Shutdown(ctx)
		cancel()
		_ = f.fleet.Close()
		_ = f.view.Close()
	}
	for _, m := range w.machines {
		if !m.runs() {
			m.start()
		}
		if err := m.stop(); err != nil {
			w.rt.Error(err)
		}
		if n := len(m.engine.Live()); n > 0 {
			w.rt.Errorf("%s: %d containers are left", m.id, n)
		}
	}
	w.calls.Wait()
	time.Sleep(time.Minute) // leases of those that were killed run out
	_ = w.store.Close()
	_ = w.blobs.Close()
}
