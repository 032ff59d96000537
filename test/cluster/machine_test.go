package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"paddock/controller"
	"paddock/controller/catalog"
	"paddock/controller/logs"
	"paddock/controller/memstore"
	"paddock/controller/noderpc"
	"paddock/controller/store"
	"paddock/internal/nodewire"
	"paddock/pool"
	"paddock/pool/fake"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes"
)

// access is one process's way to the store, which can be cut.
type access struct {
	*memstore.Store
	w *world

	mu    sync.Mutex
	cut   chan struct{} // closed while it is
	lease store.LeaseID // that was granted last
}

func newAccess(w *world) *access { return &access{Store: w.store, w: w, cut: make(chan struct{})} }

func (a *access) setCut(cut bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.cut:
		if !cut {
			a.cut = make(chan struct{})
		}
	default:
		if cut {
			close(a.cut)
		}
	}
}

func (a *access) state() (cut <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.cut:
		return a.cut, store.ErrUnavailable
	default:
		return a.cut, nil
	}
}

func (a *access) Get(ctx context.Context, key string) (store.KV, error) {
	if _, err := a.state(); err != nil {
		return store.KV{}, err
	}
	return a.Store.Get(ctx, key)
}

func (a *access) List(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	if _, err := a.state(); err != nil {
		return nil, 0, err
	}
	return a.Store.List(ctx, prefix)
}

func (a *access) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if _, err := a.state(); err != nil {
		return 0, err
	}
	a.w.writing.Lock()
	defer a.w.writing.Unlock()
	rev, err := a.Store.Commit(ctx, txn)
	if err == nil {
		a.w.wrote(a, txn)
	}
	return rev, err
}

func (a *access) Watch(ctx context.Context, prefix string, from int64) <-chan store.Batch {
	cut, _ := a.state()
	ctx, cancel := context.WithCancel(ctx)
	in, out := a.Store.Watch(ctx, prefix, from), make(chan store.Batch, 1)
	go func() {
		defer close(out)
		defer func() {
			cancel()
			for range in {
			}
		}()
		for {
			select {
			case <-cut:
				select {
				case out <- store.Batch{Err: store.ErrUnavailable}:
				case <-ctx.Done():
				}
				return
			case b, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- b:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

// lease cannot be given up while the way to the store is cut.
type lease struct {
	store.Lease
	a *access
}

func (l lease) Release(ctx context.Context) error {
	if _, err := l.a.state(); err != nil {
		return err
	}
	return l.Lease.Release(ctx)
}

func (a *access) Grant(ctx context.Context, ttl time.Duration) (store.Lease, error) {
	if _, err := a.state(); err != nil {
		return nil, err
	}
	l, err := a.Store.Grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lease = l.ID()
	return lease{l, a}, nil
}

func (a *access) granted() store.LeaseID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lease
}

// Close leaves the store to the others.
func (a *access) Close() error { return nil }

// machine is one host: its containers, and the process that owns them while it runs.
type machine struct {
	w      *world
	id     string
	engine *fake.Engine
	dir    string

	mu      sync.Mutex
	unheard bool // routers do not reach it
	conns   map[net.Conn]bool
	listen  *bufconn.Listener // nil: no process

	store      *access
	view       *catalog.View
	controller *controller.Controller
	server     *grpc.Server
}

func newMachine(w *world, id string) *machine {
	m := &machine{w: w, id: id, dir: filepath.Join(w.dir, id), conns: map[net.Conn]bool{}}
	m.engine = fake.New(fake.Options{InMemory: true, Create: func(context.Context, pool.Spec) error { time.Sleep(200 * time.Millisecond); return nil }})
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		w.rt.Fatal(err)
	}
	return m
}

// start begins a process, which adopts what a former one left.
func (m *machine) start() {
	m.store = newAccess(m.w)
	m.view = m.w.newView(m.store)
	c, err := controller.New(controller.Config{
		ID: m.id, Address: m.id, Region: "r", Store: m.store, Catalogue: m.view, Neighbours: m.view, Logs: logs.New(logs.Options{}),
		Logger: m.w.logger(m.id),
		Pool: pool.Config{
			Engine: m.engine, Listen: m.engine.Listen, Image: runtimes.Image{Runtime: "node", Digest: "image-1"}, RunDir: m.dir,
			MinReady: 1, MaxContainers: perMachine, UIDCount: 64,
		},
	})
	if err != nil {
		m.w.rt.Fatal(err)
	}
	// Its port is open before it is registered, as a process's is: who connects waits.
	l := bufconn.Listen(256 << 10)
	m.mu.Lock()
	m.listen = l
	m.mu.Unlock()
	if err := c.Start(m.w.ctx); err != nil {
		m.w.rt.Fatal(err)
	}
	m.controller = c
	m.server = grpc.NewServer(nodewire.ServerOptions()...)
	pb.RegisterNodeServer(m.server, noderpc.New(noderpc.Options{ID: m.id, Controller: c, Catalogue: m.view, Probed: c.Probed, State: func() noderpc.State {
		return noderpc.State{Draining: c.Draining(), Ready: true, InFlight: c.Stats().InFlight}
	}}))
	server := m.server
	m.w.calls.Go(func() { _ = server.Serve(l) })
}

func (m *machine) runs() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listen != nil
}

// kill ends the process as kill -9 would: its connections break, nothing is written any more, the containers stay, and its record
// until the lease runs out.
func (m *machine) kill() {
	m.store.setCut(true)
	m.hangUp(true)
	m.server.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.controller.Release(ctx)
	_ = m.view.Close()
	id := m.store.granted()
	time.AfterFunc(controller.LeaseTTL, func() { m.w.store.Expire(id) })
}

// leave ends the process as SIGTERM would: its tenants are warm elsewhere first, and routers know.
func (m *machine) leave() error {
	notice := time.After(2500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(m.w.ctx, 15*time.Second)
	defer cancel()
	m.controller.HandOver(ctx)
	<-notice
	m.server.GracefulStop()
	return m.stop()
}

// stop ends the process, and its containers.
func (m *machine) stop() error {
	m.hangUp(true)
	m.server.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := m.controller.Shutdown(ctx)
	return errors.Join(err, m.view.Close())
}

// hangUp breaks all connections, for good if the process is gone.
func (m *machine) hangUp(gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		_ = c.Close()
	}
	clear(m.conns)
	if gone && m.listen != nil {
		_ = m.listen.Close()
		m.listen = nil
	}
}

// setUnheard takes the machine out of the routers' reach, or brings it back.
func (m *machine) setUnheard(unheard bool) {
	m.mu.Lock()
	m.unheard = unheard
	m.mu.Unlock()
	if unheard {
		m.hangUp(false)
	}
}

func (m *machine) dial(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	l, unheard := m.listen, m.unheard
	m.mu.Unlock()
	if l == nil || unheard {
		return nil, errors.New("connection refused")
	}
	c, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns[c] = true
	return c, nil
}

// has returns the assigned containers, as the keys of their records, and how many each tenant has.
func (m *machine) has() (keys map[string]bool, tenants map[string]int) {
	all, err := m.controller.Pools().ListContainers(m.w.operator(), &pb.ListContainersRequest{})
	if err != nil {
		m.w.rt.Fatal(err)
	}
	keys, tenants = map[string]bool{}, map[string]int{}
	for _, c := range all.GetContainers() {
		if strings.EqualFold(c.GetState(), pool.Assigned.String()) {
			keys[store.AssignmentsOf(m.id)+c.GetTenant()+"/node/"+c.GetId()] = true
			tenants[c.GetTenant()]++
		}
	}
	return keys, tenants
}
