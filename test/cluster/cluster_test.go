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
	"runtime"
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

	"paddock/controller/catalog"
	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/identity"
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

// TestMain makes fewer histories than rapid would by itself: each is a whole cluster. One processor, because the race detector of Go 1.26
// crashes where two goroutines of a bubble have timers that are due at once (runtime.(*timer).unlockAndRun uses the bubble's raceCtx
// without a lock), as all new connections of bufconn do.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	_ = flag.Set("rapid.checks", "25")
	flag.Parse()
	os.Exit(m.Run())
}

// world is one cluster and its history.
type world struct {
	rt       reporter
	dir      string
	ctx      context.Context
	store    *memstore.Store
	kek      catalog.KEK
	blobs    *catalog.Blobs
	machines []*machine
	fronts   []*front
	calls    sync.WaitGroup
	away     bool
	most     map[string]int // containers that each tenant may have

	writing  sync.Mutex // so that writes are judged in their order
	mu       sync.Mutex
	made     int
	answered int
	wrong    []string
	owner    map[string]string // by container
	records  map[string]*record
	log      diary
}

// diary keeps what the processes log, for the report of a failure.
type diary struct {
	mu    sync.Mutex
	lines []byte
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, p...)
	return len(p), nil
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.lines)
}

func (w *world) logger(who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(&w.log, nil)).With("process", who)
}

// reporter is a *rapid.T or a *testing.T.
type reporter interface {
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Cleanup(func())
}

// front is a router.
type front struct {
	store  *access
	view   *catalog.View
	fleet  *fleet.Fleet
	router *router.Router
}

func newWorld(rt reporter) *world {
	dir, err := os.MkdirTemp("", "cluster")
	if err != nil {
		rt.Fatal(err)
	}
	rt.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{rt: rt, dir: dir, ctx: context.Background(), store: memstore.New(), owner: map[string]string{}, records: map[string]*record{},
		most: map[string]int{}}
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
	h := hmac.New(sha256.New, pepper)
	h.Write([]byte(keyID + "." + keySecret))
	w.write(store.Key(keyID), &pb.KeyRecord{Id: keyID, Role: string(identity.RoleOperator), Mac: h.Sum(nil)})
	for _, t := range someTenants {
		w.writeTenant(t, mostOf)
	}
}

// writeTenant has a tenant have no more than most containers.
func (w *world) writeTenant(t string, most int) {
	w.most[t] = most
	w.write(store.TenantsPrefix+t, &pb.TenantRecord{Id: t, State: "active", WrappedKey: []byte("k"), Policy: &pb.Policy{
		MaxContainers: proto.Int32(int32(most)), CallsPerContainer: proto.Int32(2), RatePerSecond: proto.Float64(1000),
		ClaimBurst: proto.Int32(1000), ClaimsPerSecond: proto.Float64(1000),
	}})
}

func (w *world) write(key string, m proto.Message) {
	value, err := proto.Marshal(m)
	if err != nil {
		w.rt.Fatal(err)
	}
	old, _ := w.store.Get(w.ctx, key)
	_, err = w.store.Commit(w.ctx, store.Txn{Puts: []store.Put{{Key: key, Value: value}}, Guards: []store.Guard{{Key: key, ModRevision: old.ModRevision}}})
	if err != nil {
		w.rt.Fatal(err)
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
	logger := w.logger(fmt.Sprintf("r%d", len(w.fronts)))
	f.fleet, err = fleet.New(fleet.Options{Region: "r", Catalogue: f.view, Dial: w.dial, Logger: logger})
	if err != nil {
		w.rt.Fatal(err)
	}
	f.router, err = router.New(router.Config{
		Catalogue: f.view, Keyring: catalog.NewKeyring(f.view, pepper), Nodes: f.fleet, Registerer: prometheus.NewRegistry(),
		Logger: logger,
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
