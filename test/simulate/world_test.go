package simulate

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/identity"
	"paddock/internal/placement"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
	"paddock/router"
	"paddock/router/fleet"
)

// size is how large a fleet is simulated.
type size struct {
	controllers, tenants int
	routers              int
	perSecond            float64 // calls
	few                  int     // machines that are lost or join at a time: 1 %
	rack                 int     // machines that fall silent together
	sample               int     // tenants whose homes are compared
	timings              bool    // real time is judged, too
}

var smallSize = size{controllers: 50, tenants: 10_000, routers: 2, perSecond: 300, few: 1, rack: 2, sample: 10_000}

// sized is a fleet whose figures mean something.
func sized(controllers int) size {
	return size{
		controllers: controllers, tenants: 1000 * controllers, routers: 2, perSecond: float64(2 * controllers),
		few: max(1, controllers/100), rack: max(1, controllers/50), sample: min(100_000, 1000*controllers), timings: true,
	}
}

// world is the fleet.
type world struct {
	size
	t        *testing.T
	seed     uint64
	rnd      *rand.Rand
	zipf     *rand.Zipf
	etcd     *etcd
	view     *catalog.View
	fronts   []*front
	machines []*machine
	byID     map[string]*machine
	homes    []int32
	token    string
	tasks    sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc
	loaded   time.Duration // real time that the view took, without the store's
	bytes    uint64        // of the view
	began    time.Time
}

// front is a router.
type front struct {
	fleet  *fleet.Fleet
	router *router.Router
}

// wall is real time, which stands still for nobody here.
func wall() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// cpu is what this process has burnt.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the most memory that this process has had, in bytes.
func peak() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return float64(u.Maxrss) * 1024
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func name(i int) tenant.ID { return tenant.ID(fmt.Sprintf("t%07d", i)) }

func newWorld(t *testing.T, s size, seed uint64) *world {
	w := &world{size: s, t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), byID: map[string]*machine{}, began: time.Now()}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.zipf = rand.NewZipf(rand.New(rand.NewPCG(seed, 2)), 1.07, 50, uint64(s.tenants-1))
	pepper := catalog.Pepper(strings.Repeat("p", 32))
	w.etcd = newEtcd(w.records(pepper))
	for i := range s.controllers {
		w.add(i)
	}
	return w
}

// add makes a machine, of a capacity that makes all together a quarter larger than all tenants need.
func (w *world) add(i int) *machine {
	mean := w.tenants * 5 / 4 / w.controllers
	m := w.newMachine(i, mean/2+w.rnd.IntN(mean))
	w.machines = append(w.machines, m)
	w.byID[m.id] = m
	return m
}

func candidates(all []*machine) []placement.Candidate {
	var cs []placement.Candidate
	for _, m := range all {
		cs = append(cs, placement.Candidate{ID: m.id, Weight: m.capacity})
	}
	return cs
}

// homesOf is the homes of the first n tenants.
func homesOf(n int, cs []placement.Candidate) []int32 {
	homes := make([]int32, n)
	var over sync.WaitGroup
	const parts = 4
	for p := range parts {
		over.Go(func() {
			for i := p; i < n; i += parts {
				homes[i] = int32(placement.Top(name(i), cs, 1)[0])
			}
		})
	}
	over.Wait()
	return homes
}

// records are what the store has of the tenants: each has a key and one function of one version.
func (w *world) records(pepper catalog.Pepper) func(func(string, []byte)) {
	secret := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("s", 32)))
	const id = "0123456789abcdef"
	w.token = "pdk_" + id + "." + secret
	h := hmac.New(sha256.New, pepper)
	h.Write([]byte(id + "." + secret))
	mac := h.Sum(nil)
	rate := 10_000.0
	concurrency := int32(1000)
	busy := &pb.Policy{RatePerSecond: &rate, Concurrency: &concurrency}
	return func(yield func(string, []byte)) {
		put := func(key string, m proto.Message) {
			value, err := proto.Marshal(m)
			if err != nil {
				panic(err)
			}
			yield(key, value)
		}
		made := timestamppb.New(w.began)
		put(store.Key(id), &pb.KeyRecord{Id: id, Role: string(identity.RoleOperator), Mac: mac, Created: made})
		wrapped := make([]byte, 120)
		for i := range w.tenants {
			t := name(i)
			sum := sha256.Sum256([]byte(t))
			hash := hex.EncodeToString(sum[:])
			r := &pb.TenantRecord{Id: string(t), State: "active", Created: made, WrappedKey: wrapped}
			if i < 1000 || i%10 == 0 {
				r.Policy = busy
			}
			put(store.Tenant(t), r)
			key := hash[:16]
			put(store.Key(key), &pb.KeyRecord{Id: key, Tenant: string(t), Role: string(identity.RoleInvoke), Mac: sum[:], Created: made})
			put(store.Function(t, "main"), &pb.FunctionRecord{Name: "main", Active: 1, Newest: 1})
			put(store.Version(t, "main", 1), &pb.VersionRecord{Number: 1, Hash: hash, SizeBytes: 1000, Kind: "auto", Runtime: "node", Author: key, Created: made})
		}
	}
}

// settle gives every tenant a container at home, made some time in the last hour.
func (w *world) settle() error {
	ages := rand.New(rand.NewPCG(w.seed, 3))
	for k := range w.tenants { // by birth, the oldest first
		i := int(uint64(k) * 2654435761 % uint64(w.tenants))
		since := w.began.Add(-time.Duration(float64(maxLife) * (1 - float64(k)/float64(w.tenants))))
		m := w.machines[w.homes[i]]
		a := m.adopt(name(i), since)
		m.born = append(m.born, birth{since, a.Tenant, a.Container})
		value, err := proto.Marshal(&pb.AssignmentRecord{Isolation: string(a.Isolation), Since: timestamppb.New(since.Add(time.Duration(ages.IntN(1e9))))})
		if err != nil {
			return err
		}
		w.etcd.seed(store.Assignment(m.id, a.Tenant, a.Runtime, string(a.Container)), value)
	}
	for _, m := range w.machines {
		if err := m.start(w.ctx); err != nil {
			return err
		}
	}
	return nil
}

// open makes the view, which all routers here share, and the routers.
func (w *world) open() error {
	dir := w.t.TempDir()
	kek, err := catalog.LoadKEK(filepath.Join(dir, "kek"))
	if err != nil {
		return err
	}
	blobs, err := catalog.OpenBlobs(filepath.Join(dir, "blobs"))
	if err != nil {
		return err
	}
	before, began := heap(), wall()
	w.view, err = catalog.NewView(catalog.ViewOptions{Store: w.etcd, Blobs: blobs, KEK: kek})
	if err != nil {
		return err
	}
	<-w.view.Ready()
	w.loaded = wall() - began - w.etcd.listed
	w.bytes = heap() - before
	for range w.routers {
		f := &front{}
		f.fleet, err = fleet.New(fleet.Options{Region: "here", Catalogue: w.view, Dial: w.dial})
		if err != nil {
			return err
		}
		f.router, err = router.New(router.Config{
			Catalogue: w.view, Keyring: catalog.NewKeyring(w.view, catalog.Pepper(strings.Repeat("p", 32))), Nodes: f.fleet,
			Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return err
		}
		w.fronts = append(w.fronts, f)
	}
	return nil
}

func (w *world) dial(id, _ string) (grpc.ClientConnInterface, io.Closer, error) {
	m := w.byID[id]
	if m == nil {
		return nil, nil, fmt.Errorf("no machine %s", id)
	}
	return m, m, nil
}

func (w *world) close() {
	w.cancel()
	for _, f := range w.fronts {
		_ = f.router.Shutdown(w.ctx)
		_ = f.fleet.Close()
	}
	if w.view != nil {
		_ = w.view.Close()
	}
	w.tasks.Wait()
}

// outcome is one call's.
type outcome struct {
	tenant int
	began  time.Time
	took   time.Duration
	status int
	kind   string
}

// call makes one call of a tenant, as a client would.
func (w *world) call(f *front, i int) outcome {
	r := httptest.NewRequest(http.MethodPost, "/v1/run?timeout=3s", strings.NewReader("module.exports = () => true"))
	r.Header.Set("Authorization", "Bearer "+w.token)
	r.Header.Set("Paddock-Tenant", string(name(i)))
	r.Header.Set("Content-Type", "text/plain")
	a := httptest.NewRecorder()
	o := outcome{tenant: i, began: time.Now()}
	f.router.ServeHTTP(a, r)
	o.took, o.status, o.kind = time.Since(o.began), a.Code, a.Header().Get("Paddock-Error")
	return o
}

// load makes calls for a while and returns what became of those that began.
func (w *world) load(d time.Duration) []outcome {
	var mu sync.Mutex
	var all []outcome
	var over sync.WaitGroup
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(w.rnd.ExpFloat64() / w.perSecond * float64(time.Second)))
		f, i := w.fronts[w.rnd.IntN(len(w.fronts))], int(w.zipf.Uint64())
		over.Go(func() {
			o := w.call(f, i)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, o)
		})
	}
	over.Wait()
	return all
}
