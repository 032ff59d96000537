package simulate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"paddock/controller"
	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/nodewire"
	"paddock/internal/tenant"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
)

// How long things take on a machine.
const (
	bindTime    = 3 * time.Millisecond // a new tenant's first answer, beyond the call itself
	serviceTime = 20 * time.Millisecond
	hopTime     = 250 * time.Microsecond // to a machine and back
	maxLife     = time.Hour
	leaseTTL    = controller.LeaseTTL
)

// machine is a controller: its containers are counted, its calls take a while. It is also the connection to itself.
type machine struct {
	w        *world
	id       string
	capacity int
	records  *controller.Records
	lease    store.Lease
	stop     context.CancelFunc

	dead   chan struct{} // closed: connections are refused
	silent chan struct{} // closed: nothing comes back

	mu      sync.Mutex
	rnd     *rand.Rand
	held    map[tenant.ID]*held
	born    []birth // by time
	all     int     // containers
	made    int     // since the beginning
	refused int
	evicted int
}

// held is what a machine has of a tenant.
type held struct {
	containers []pool.Assignment
	inFlight   int
	last       time.Time
}

// birth is when a container was made: it lives for maxLife.
type birth struct {
	at        time.Time
	tenant    tenant.ID
	container call.ContainerID
}

func (w *world) newMachine(n, capacity int) *machine {
	m := &machine{
		w: w, id: fmt.Sprintf("%08x", uint32(n)*2654435761), capacity: capacity, dead: make(chan struct{}), silent: make(chan struct{}),
		held: map[tenant.ID]*held{}, rnd: rand.New(rand.NewPCG(w.seed, uint64(n))),
	}
	m.records = controller.NewRecords(m.id, w.etcd, slog.New(slog.DiscardHandler))
	return m
}

func (m *machine) record() *pb.ControllerRecord {
	return &pb.ControllerRecord{Id: m.id, Address: m.id, Region: "here", Capacity: int32(m.capacity), Runtimes: []string{"node"}, Isolation: "runc"}
}

// adopt takes over a container that it had before the simulation began.
func (m *machine) adopt(t tenant.ID, since time.Time) pool.Assignment {
	a := m.assignment(t, since)
	h := &held{containers: []pool.Assignment{a}, last: since}
	m.held[t] = h
	m.all++
	m.records.Want(a)
	return a
}

func (m *machine) assignment(t tenant.ID, since time.Time) pool.Assignment {
	m.made++
	return pool.Assignment{
		Container: call.ContainerID(fmt.Sprintf("%s%024x", m.id, m.made)), Tenant: t, Runtime: "node", Isolation: tenant.IsolationRunc, Since: since,
	}
}

// start registers the machine, and lets its writer write.
func (m *machine) start(ctx context.Context) error {
	ctx, m.stop = context.WithCancel(ctx)
	var err error
	if m.lease, err = m.w.etcd.Grant(ctx, leaseTTL); err != nil {
		return err
	}
	value, err := proto.Marshal(m.record())
	if err != nil {
		return err
	}
	m.w.tasks.Go(func() { m.records.Run(ctx) })
	m.w.tasks.Go(func() { m.age(ctx) })
	_, err = m.w.etcd.Commit(ctx, store.Txn{Puts: []store.Put{{Key: store.Controller(m.id), Value: value, Lease: m.lease.ID()}}})
	return err
}

// end ends the machine: its process is gone, or it is out of reach. Its lease runs out by itself.
func (m *machine) end(how chan struct{}) {
	close(how)
	m.stop()
	m.w.tasks.Go(func() {
		time.Sleep(leaseTTL)
		_ = m.lease.Release(context.Background())
	})
}

// age ends containers whose life is over.
func (m *machine) age(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		for len(m.born) > 0 && time.Since(m.born[0].at) > maxLife {
			m.endLocked(m.born[0].tenant, m.born[0].container)
			m.born = m.born[1:]
		}
		m.mu.Unlock()
	}
}

// endLocked ends a container, if it is there.
func (m *machine) endLocked(t tenant.ID, id call.ContainerID) {
	h := m.held[t]
	if h == nil {
		return
	}
	for i, a := range h.containers {
		if a.Container == id {
			m.records.Drop(a)
			h.containers = append(h.containers[:i:i], h.containers[i+1:]...)
			m.all--
			break
		}
	}
	if len(h.containers) == 0 && h.inFlight == 0 {
		delete(m.held, t)
	}
}

// bind makes room for a call: in a container that the tenant has, or in another one.
func (m *machine) bind(c *pb.NodeCall, p *tenant.Policy) (cold bool, _ *errs.Error) {
	t := tenant.ID(c.GetTenant())
	most := p.MaxContainers
	if n := int(c.GetMaxContainers()); n > 0 {
		most = min(most, n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.held[t]
	if h == nil {
		h = &held{}
	}
	if len(h.containers) > 0 && (h.inFlight < p.CallsPerContainer*len(h.containers) || len(h.containers) >= most) {
		h.inFlight++
		h.last = time.Now()
		return false, nil
	}
	if m.all >= m.capacity && (c.GetSpill() && len(h.containers) == 0 || !m.evictLocked()) {
		m.refused++
		return false, &errs.Error{Kind: errs.NoCapacity, Started: errs.StartedNo, Message: "full", RetryAfter: time.Second}
	}
	a := m.assignment(t, time.Now())
	h.containers = append(h.containers, a)
	h.inFlight++
	h.last = time.Now()
	m.held[t] = h
	m.all++
	m.born = append(m.born, birth{time.Now(), t, a.Container})
	m.records.Want(a)
	return true, nil
}

// evictLocked ends the idle container whose tenant called longest ago.
func (m *machine) evictLocked() bool {
	var oldest tenant.ID
	var last time.Time
	for t, h := range m.held {
		if h.inFlight == 0 && len(h.containers) > 0 && (oldest == "" || h.last.Before(last) || h.last.Equal(last) && t < oldest) {
			oldest, last = t, h.last
		}
	}
	if oldest == "" {
		return false
	}
	m.evicted++
	m.endLocked(oldest, m.held[oldest].containers[0].Container)
	return true
}

func (m *machine) leave(t tenant.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.held[t]; h != nil {
		h.inFlight--
		h.last = time.Now()
		if len(h.containers) == 0 && h.inFlight == 0 {
			delete(m.held, t)
		}
	}
}

// Invoke answers probes.
func (m *machine) Invoke(ctx context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	select {
	case <-m.dead:
		return status.Error(codes.Unavailable, "connection refused")
	case <-m.silent:
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	default:
	}
	reply.(*pb.ProbeResponse).Controller = m.id
	return nil
}

// NewStream begins a call.
func (m *machine) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	select {
	case <-m.dead:
		return nil, status.Error(codes.Unavailable, "connection refused")
	default:
	}
	return &exchange{m: m, ctx: ctx}, nil
}

func (m *machine) Close() error { return nil }

// exchange is one call's stream.
type exchange struct {
	m    *machine
	ctx  context.Context
	head *pb.NodeCall
}

func (x *exchange) SendMsg(msg any) error {
	if c := msg.(*pb.NodeRequest).GetCall(); c != nil {
		x.head = c
	}
	return nil
}

// RecvMsg serves the call. The code is there already.
func (x *exchange) RecvMsg(msg any) error {
	m := x.m
	select {
	case <-m.silent:
		<-x.ctx.Done()
		return status.FromContextError(x.ctx.Err()).Err()
	default:
	}
	t, ok := m.w.view.Tenant(tenant.ID(x.head.GetTenant()))
	if !ok {
		return status.Error(codes.NotFound, "no such tenant")
	}
	took := hopTime
	cold, e := m.bind(x.head, t.Policy)
	if e == nil {
		defer m.leave(t.ID)
		m.mu.Lock()
		took += time.Duration(m.rnd.ExpFloat64() * float64(serviceTime))
		m.mu.Unlock()
	}
	if cold {
		took += bindTime
	}
	done := time.NewTimer(took)
	defer done.Stop()
	select {
	case <-done.C:
	case <-m.dead:
		return status.Error(codes.Unavailable, "connection reset")
	case <-m.silent:
		<-x.ctx.Done()
		return status.FromContextError(x.ctx.Err()).Err()
	case <-x.ctx.Done():
		return status.FromContextError(x.ctx.Err()).Err()
	}
	var res *call.Result
	if e == nil {
		res = &call.Result{Value: []byte("true"), Container: call.ContainerID(m.id)}
	}
	msg.(*pb.NodeResponse).Part = &pb.NodeResponse_Result{Result: nodewire.Result(res, e)}
	return nil
}

func (x *exchange) Header() (metadata.MD, error) { return nil, nil }
func (x *exchange) Trailer() metadata.MD         { return nil }
func (x *exchange) CloseSend() error             { return nil }
func (x *exchange) Context() context.Context     { return x.ctx }

var (
	_ grpc.ClientConnInterface = (*machine)(nil)
	_ io.Closer                = (*machine)(nil)
)
