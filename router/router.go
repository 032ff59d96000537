package router

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"paddock/internal/audit"
	"paddock/internal/metrics"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
	"paddock/router/lane"
)

// Defaults of Config and bounds of the HTTP server.
const (
	DefaultMaxInFlight = 10_000
	DefaultMaxConns    = 20_000
	addressShare       = 4 // of MaxConns, what one address may have
	maxPublicStreams   = 1024
	maxPublicAddress   = 64
	readHeaderTimeout  = 10 * time.Second
	idleTimeout        = 2 * time.Minute
	maxHeaderBytes     = 32 << 10
	answerTimeout      = tenant.MaxTimeout + time.Minute // head to last byte; streams set their own as they move
	h2MaxStreams       = 256
	h2Ping             = 30 * time.Second
	h2PingTimeout      = 10 * time.Second
)

// Config is what a Router works with. Catalogue, Keyring, Nodes, Registerer and Logger are needed; a service that is nil
// is not served.
type Config struct {
	Catalogue Catalogue
	Keyring   Keyring
	Nodes     Nodes

	Catalog pb.CatalogServer
	Keys    pb.KeysServer
	Pools   pb.PoolsServer
	Logs    LogSources
	// Prover, if set, is told of versions that have succeeded ProofCalls times.
	Prover Prover

	// Audit, if set, takes who did what, and is shown to operators. Its owner closes it after Shutdown.
	Audit *audit.Log

	Runtimes   []string      // the first is the default; none: "node"
	StreamIdle time.Duration // of HTTP-shaped streams; 0: tenant.DefaultStreamIdle
	// MaxInFlight bounds the calls of all tenants together, MaxConns the connections of each listener, MaxConnsPerAddress
	// those that come from one IPv4 address or one IPv6 /64 network; 0 is the default, for an address a quarter of MaxConns.
	MaxInFlight        int
	MaxConns           int
	MaxConnsPerAddress int

	OpenAPI    string // the document at /openapi.json; "" is not served
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer // what /metrics shows; nil is not served
	// Tracer, if set, gets a span per call.
	Tracer    trace.TracerProvider
	TLS       *tls.Config // for both listeners; nil: in the clear
	CallLevel slog.Level  // of the one line per call; internal failures are errors whatever it is
	Logger    *slog.Logger
}

// Router is the public front. Make one with New; it serves until Shutdown.
type Router struct {
	cfg         Config
	log         *slog.Logger
	metrics     *metrics.Router
	auth        *authenticator
	admission   *admission
	public      *crowd // gRPC requests that need no credential
	turnstiles  turnstiles
	publicRates *publicRates
	tracer      *tracer
	denials     *audit.Sampler // nil without an audit log
	proofs      *proofs        // nil without a Prover
	tree        tree
	ownTree     tree // at tenants' own host names
	byRPC       map[string]*rule
	unaryRPC    map[string]bool
	health      *health.Server
	kept        *keptServer // nil: calls and lines are not shown
	local       *local
	gateway     *runtime.ServeMux
	http        *http.Server
	lane        *lane.Server // serves plain calls in the clear, and hands everything else on to http
	handedOn    *handoff
	grpc        *grpc.Server
	onHTTP      *grpc.Server // gRPC that comes to the HTTP listener, so that clients need one address only

	bodyStall   time.Duration // each stretch of it has to bring a part of a body
	discardFor  time.Duration // how long the rest of a body that nobody wanted is read
	messageTime time.Duration // how long the message of a unary method may take to come

	ready    atomic.Bool
	draining atomic.Bool
	drain    drainer
	lifetime context.Context // ends when draining begins: ends what would last for ever
	endLife  context.CancelFunc
	calls    context.Context // that of every call: ends, with errCut, when Shutdown's time is up
	cut      context.CancelCauseFunc
	shutdown sync.Once
	down     chan struct{} // closed when Shutdown is over
	downErr  error
}

// New makes a Router. It fails if anything that would be served has no line in the route table.
func New(cfg Config) (*Router, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	m, err := metrics.NewRouter(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("router: metrics: %w", err)
	}
	r := &Router{cfg: cfg, log: cfg.Logger, metrics: m, admission: newAdmission(cfg.MaxInFlight),
		public: newCrowd(maxPublicStreams, maxPublicAddress), publicRates: newPublicRates(),
		tracer: newTracer(cfg.Tracer), health: health.NewServer(), down: make(chan struct{}), bodyStall: bodyStall,
		discardFor: bodyDiscard, messageTime: grpcMessageTime}
	r.unaryRPC = map[string]bool{}
	if cfg.Logs != nil {
		r.kept = &keptServer{sources: cfg.Logs, known: cfg.Catalogue}
	}
	r.lifetime, r.endLife = context.WithCancel(context.Background())
	r.calls, r.cut = context.WithCancelCause(context.Background())
	if r.auth, err = newAuthenticator(cfg.Catalogue, cfg.Keyring, m); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if r.turnstiles, err = newTurnstiles(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if err := metrics.RegisterCatalogAge(cfg.Registerer, cfg.Catalogue.Age); err != nil {
		return nil, fmt.Errorf("router: metrics: %w", err)
	}
	if err := r.index(rules); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if r.gateway, err = r.newGateway(); err != nil {
		return nil, fmt.Errorf("router: gateway: %w", err)
	}
	r.grpc, r.onHTTP, r.http = r.newGRPC(), r.newGRPC(), r.newHTTP()
	r.handedOn = newHandoff()
	r.lane = r.newLane()
	if err := r.checkServices(r.grpc.GetServiceInfo()); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if cfg.Audit != nil {
		r.denials = audit.NewSampler(cfg.Audit, "denials.dropped")
	}
	if cfg.Prover != nil {
		if r.proofs, err = newProofs(cfg.Prover, r.log); err != nil {
			return nil, fmt.Errorf("router: %w", err)
		}
		go r.proofs.run(r.lifetime)
	}
	r.SetReady(false)
	return r, nil
}

func (c *Config) complete() error {
	if c.Catalogue == nil || c.Keyring == nil || c.Nodes == nil || c.Registerer == nil || c.Logger == nil {
		return errors.New("router: Catalogue, Keyring, Nodes, Registerer and Logger are needed")
	}
	if len(c.Runtimes) == 0 {
		c.Runtimes = []string{"node"}
	}
	if c.StreamIdle <= 0 {
		c.StreamIdle = tenant.DefaultStreamIdle
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	if c.MaxConns <= 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.MaxConnsPerAddress <= 0 {
		c.MaxConnsPerAddress = max(1, c.MaxConns/addressShare)
	}
	return nil
}

func (r *Router) newHTTP() *http.Server {
	s := &http.Server{
		Handler:                      r,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            readHeaderTimeout,
		WriteTimeout:                 answerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		BaseContext:                  func(net.Listener) context.Context { return r.calls },
		ErrorLog:                     slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
		Protocols:                    &http.Protocols{},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: h2MaxStreams, SendPingTimeout: h2Ping, PingTimeout: h2PingTimeout,
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true) // by prior knowledge only: an Upgrade field does nothing
	if r.cfg.TLS != nil {
		s.TLSConfig = r.cfg.TLS.Clone()
	}
	return s
}

// Serve serves both listeners until Shutdown, or until one of them fails. It closes them.
func (r *Router) Serve(httpListener, grpcListener net.Listener) error {
	failed := make(chan error, 2)
	sayHTTP, sayGRPC := refusalHTTP, refusalGRPC
	if r.cfg.TLS != nil {
		sayHTTP, sayGRPC = nil, nil // a caller that waits for a handshake understands neither
	}
	go func() { failed <- r.serveHTTP(r.newDoor("http", httpListener, sayHTTP)) }()
	go func() { failed <- r.grpc.Serve(r.newDoor("grpc", grpcListener, sayGRPC)) }()
	first := <-failed
	if errors.Is(first, http.ErrServerClosed) || errors.Is(first, grpc.ErrServerStopped) || errors.Is(first, lane.ErrClosed) {
		first = nil
	}
	if first != nil {
		_ = r.lane.Close()
		_ = r.http.Close()
		r.grpc.Stop()
	}
	<-failed
	return first
}

func (r *Router) serveHTTP(l net.Listener) error {
	if r.cfg.TLS != nil {
		return r.http.ServeTLS(l, "", "")
	}
	go func() { _ = r.http.Serve(r.handedOn) }() // until its Shutdown or Close
	return r.lane.Serve(l)
}

// SetReady says whether /readyz and gRPC health answer yes. It starts as no; Shutdown makes it no for good.
func (r *Router) SetReady(ready bool) {
	ready = ready && !r.draining.Load()
	r.ready.Store(ready)
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		status = healthpb.HealthCheckResponse_SERVING
	}
	for _, name := range []string{"", pb.Sandbox_ServiceDesc.ServiceName} {
		r.health.SetServingStatus(name, status)
	}
}

// InFlight returns the calls that were admitted and have not ended.
func (r *Router) InFlight() int { return r.admission.inFlight() }
