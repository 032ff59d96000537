// Package noderpc serves one controller to routers on other machines: paddock.v1.Node over the controller's own calls. Who may
// ask is settled by mutual TLS before anything arrives here. It keeps code that came with calls, in memory only, since what is
// stored of it has to be encrypted and a controller holds no key for that.
package noderpc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/nodewire"
	"paddock/internal/sizedcache"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Defaults of Options, and how long a call waits for what it needs.
const (
	DefaultCodeBytes = 256 << 20
	// tenantWait is how long a call of a tenant that this controller has not heard of yet is held.
	tenantWait = 2 * time.Second
)

// Controller is what is served; *controller.Controller is one.
type Controller interface {
	Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error)
	RemoveTenant(ctx context.Context, t tenant.ID) (int, error)
}

// Catalogue is what the server reads of tenants; *catalog.View is one.
type Catalogue interface {
	Tenant(id tenant.ID) (*catalog.TenantView, bool)
	WaitRevision(ctx context.Context, revision int64) error
	Revision() int64
	Age() time.Duration
}

// Options are what a Server is made of. CodeBytes bounds the code that is kept, 0 is the default; State says how the
// controller is, for probes; Probed, which may be nil, is told of each.
type Options struct {
	ID         string
	Instance   string // another one after each start
	Controller Controller
	Catalogue  Catalogue
	State      func() State
	Probed     func()
	CodeBytes  int64
	Logger     *slog.Logger
}

// State is what a probe tells.
type State struct {
	Draining bool
	Ready    bool
	InFlight int
}

// Server implements paddock.v1.Node. Safe for concurrent use.
type Server struct {
	pb.UnimplementedNodeServer
	o       Options
	codes   *sizedcache.Cache[codeKey, []byte]
	started time.Time
	leaving chan struct{}
	leave   sync.Once
}

type codeKey struct {
	tenant tenant.ID
	hash   string
}

// New makes a Server.
func New(o Options) *Server {
	if o.CodeBytes <= 0 {
		o.CodeBytes = DefaultCodeBytes
	}
	return &Server{o: o, codes: sizedcache.New[codeKey, []byte](o.CodeBytes), started: time.Now(), leaving: make(chan struct{})}
}

// Probe implements paddock.v1.Node.
func (s *Server) Probe(context.Context, *pb.ProbeRequest) (*pb.ProbeResponse, error) {
	if s.o.Probed != nil {
		s.o.Probed()
	}
	st := s.o.State()
	return &pb.ProbeResponse{
		Controller: s.o.ID, Instance: s.o.Instance, Draining: st.Draining, Ready: st.Ready, InFlight: int32(st.InFlight),
		Revision: s.o.Catalogue.Revision(), Started: timestamppb.New(s.started), StoreAge: durationpb.New(s.o.Catalogue.Age()),
		Protocol: nodewire.Protocol, OldestProtocol: nodewire.OldestProtocol,
	}, nil
}

// RemoveTenant implements paddock.v1.Node.
func (s *Server) RemoveTenant(ctx context.Context, req *pb.RemoveTenantRequest) (*pb.RemoveTenantResponse, error) {
	id, err := tenant.ParseID(req.GetTenant())
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, "remove tenant", err, "%s", err)
	}
	s.codes.Drop(func(k codeKey) bool { return k.tenant == id })
	n, err := s.o.Controller.RemoveTenant(ctx, id)
	if err != nil {
		return nil, err
	}
	return &pb.RemoveTenantResponse{Containers: int32(n)}, nil
}
