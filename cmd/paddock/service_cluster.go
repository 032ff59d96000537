package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"paddock/cmd/paddock/machine"
	"paddock/controller"
	"paddock/controller/catalog"
	"paddock/controller/noderpc"
	"paddock/internal/nodewire"
	"paddock/internal/pki"
	pb "paddock/proto/paddock/v1"
	"paddock/router/fleet"
	"paddock/router/remote"
)

// Bounds of connections between routers and controllers. A peer that shows no sign of life is given up after nodePing +
// nodePingTimeout; probes find it sooner.
const (
	nodePing        = 10 * time.Second
	nodePingTimeout = 3 * time.Second
	nodeStreams     = 10_000
	nodeMessage     = 8 << 20
	redialFirst     = 50 * time.Millisecond
	redialMost      = time.Second
	// What may be under way to one call's reader, and to a process. They are fixed: while gRPC looks for the best ones, nearly every small
	// message costs a ping, a window and an answer to the ping.
	nodeStreamWindow = 512 << 10
	nodeWindow       = 16 << 20
)

// clusterPart is what a process has that is one of several.
type clusterPart struct {
	certs      *pki.Source
	node       net.Listener // where a controller serves routers
	advertised string       // how they reach it; "" in `paddock up`
	fleet      *fleet.Fleet // of a router
}

// operatorKey is the file with the operator's key: every router that shares the secrets has the same.
func (s *service) operatorKey() string {
	if dir := s.cfg.Cluster.Secrets; dir != "" {
		return filepath.Join(dir, "operator.key")
	}
	return s.data.OperatorKey()
}

// openCerts reads what routers and controllers know each other by.
func (s *service) openCerts(context.Context) (err error) {
	c := s.cfg.Cluster
	s.cluster.certs, err = pki.Open(c.Cert, c.Key, c.CA, s.log.With("part", "certificates"))
	return err
}

// dialStore connects to a store that is a cluster of its own.
func (s *service) dialStore(ctx context.Context) error {
	client, err := dialEtcd(ctx, s.cfg.Cluster.Store(), s.log.With("part", "store"))
	if err != nil {
		return err
	}
	s.store.client = client
	s.onStop("store", func(context.Context, bool) error { return client.Close() })
	return nil
}

// openControllerStore follows the store without the key that its secrets are under.
func (s *service) openControllerStore(ctx context.Context) error {
	if err := s.dialStore(ctx); err != nil {
		return err
	}
	s.store.kek, s.store.servingOnly = catalog.NoKEK(), true
	return s.openView(ctx)
}

// openRouterStore follows the store with the keys that all routers share.
func (s *service) openRouterStore(ctx context.Context) error {
	if err := s.dialStore(ctx); err != nil {
		return err
	}
	p, secrets := &s.store, s.cfg.Cluster.Secrets
	if secrets == "" {
		secrets = s.data.Private()
	}
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	var err error
	if dir := s.cfg.Cluster.Blobs; dir != "" {
		p.blobs, err = catalog.OpenBlobs(dir)
	} else {
		p.blobs, err = catalog.OpenStoreBlobs(ctx, p.client, filepath.Join(s.data.Private(), "code"))
	}
	if err != nil {
		return fmt.Errorf("code: %w", err)
	}
	s.onStop("code", func(context.Context, bool) error { return p.blobs.Close() })
	if p.kek, err = catalog.LoadKEK(filepath.Join(secrets, "kek")); err != nil {
		return err
	}
	if p.pepper, err = catalog.LoadPepper(filepath.Join(secrets, "pepper")); err != nil {
		return err
	}
	if err := s.openView(ctx); err != nil {
		return err
	}
	s.keepCopies()
	return nil
}

// keepCopies has the code of active versions on this machine, in case the store goes away.
func (s *service) keepCopies() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.store.view.KeepCopies(ctx)
	}()
	s.onStop("copies of code", func(context.Context, bool) error { cancel(); <-done; return nil })
}

// listenNode takes the address at which routers come. It is served once there is something to serve.
func (s *service) listenNode(context.Context) error {
	c := s.cfg.Cluster
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w; choose another address or port (port 0 takes a free one), or stop what listens there", c.Listen, err)
	}
	s.cluster.node, s.cluster.advertised = l, c.Advertise
	if c.Advertise == "" {
		s.cluster.advertised = l.Addr().String()
	}
	s.onStop("--listen", func(context.Context, bool) error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return nil
}

// serveNode serves routers, and nobody else.
func (s *service) serveNode(context.Context) error {
	c := s.node.controller
	server := grpc.NewServer(append(nodewire.ServerOptions(), nodeServerOptions(s.cluster.certs)...)...)
	node := noderpc.New(noderpc.Options{
		ID: s.data.ID, Instance: fmt.Sprintf("%016x", rand.Uint64()), Controller: c, Catalogue: s.store.view, Logger: s.log.With("part", "node"),
		Probed: c.Probed,
		State: func() noderpc.State {
			st := c.Stats()
			return noderpc.State{Draining: c.Draining(), Ready: st.Ready+st.Assigned > 0, InFlight: st.InFlight}
		},
	})
	pb.RegisterNodeServer(server, node)
	pb.RegisterPoolsServer(server, c.Pools())
	pb.RegisterLogsServer(server, noderpc.NewKeptServer(c.Kept()))
	go func() {
		if err := server.Serve(s.cluster.node); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.failed <- fmt.Errorf("serving routers: %w", err)
		}
	}()
	// Its tenants are warm elsewhere first, unless the sandboxes stay; then nothing new is taken; the pool's own end waits for what
	// still runs.
	s.onStop("routers", func(ctx context.Context, remove bool) error {
		if ctx.Err() == nil {
			if remove {
				handOver(ctx, c)
			}
			node.Leave()
			stopped := make(chan struct{})
			go func() { server.GracefulStop(); close(stopped) }()
			select {
			case <-stopped:
				return nil
			case <-ctx.Done():
			}
		}
		server.Stop()
		return nil
	})
	return nil
}

// Bounds of what a controller that stops waits for.
const (
	// drainNotice is how long routers have to hear that a controller drains: a probe takes a second, and its answer a moment.
	drainNotice = 2500 * time.Millisecond
	// handOverTime is for other controllers to take its tenants over. The rest of the time is for calls in flight.
	handOverTime = drainTime / 2
)

func handOver(ctx context.Context, c *controller.Controller) {
	notice, cancel := context.WithTimeout(ctx, drainNotice)
	defer cancel()
	over, stop := context.WithTimeout(ctx, handOverTime)
	defer stop()
	c.HandOver(over)
	<-notice.Done()
}

func nodeServerOptions(certs *pki.Source) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(certs.ServerTLS(pki.RoleRouter))), grpc.MaxConcurrentStreams(nodeStreams),
		grpc.MaxRecvMsgSize(nodeMessage), grpc.MaxSendMsgSize(nodeMessage),
		grpc.StaticStreamWindowSize(nodeStreamWindow), grpc.StaticConnWindowSize(nodeWindow),
		grpc.KeepaliveEnforcementPolicy(enforcement()), grpc.KeepaliveParams(serverKeepalive()),
	}
}

// serveStatus shows metrics and health of a controller.
func (s *service) serveStatus(context.Context) error {
	addr := s.cfg.Cluster.Status
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("--status %s: %w; choose another address, or \"\" for none", addr, err)
	}
	registry, err := s.newRegistry()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherer(registry), promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if st := s.node.controller.Stats(); st.Ready+st.Assigned == 0 || s.node.controller.Draining() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	s.onStop("--status", func(context.Context, bool) error { return server.Close() })
	return nil
}

// openFleet follows the controllers and connects to them.
func (s *service) openFleet(context.Context) error {
	f, err := fleet.New(fleet.Options{
		Region: s.cfg.Region, Catalogue: s.store.view, Logger: s.log.With("part", "fleet"),
		Dial: func(_, address string) (grpc.ClientConnInterface, io.Closer, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, nil, err
			}
			conn, err := grpc.NewClient(address, remote.DialOption(),
				grpc.WithTransportCredentials(credentials.NewTLS(s.cluster.certs.ClientTLS(host, pki.RoleController))),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(nodeMessage), grpc.MaxCallSendMsgSize(nodeMessage)),
				grpc.WithStaticStreamWindowSize(nodeStreamWindow), grpc.WithStaticConnWindowSize(nodeWindow),
				grpc.WithKeepaliveParams(clientKeepalive()), grpc.WithDisableServiceConfig(),
				grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 2 * time.Second, Backoff: backoff.Config{
					BaseDelay: redialFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMost,
				}}))
			return conn, conn, err
		},
	})
	if err != nil {
		return err
	}
	s.cluster.fleet = f
	s.onStop("controllers", func(context.Context, bool) error { return f.Close() })
	return nil
}

// takeDataDir locks the data directory of a process that makes no sandboxes.
func (s *service) takeDataDir(context.Context) (err error) {
	if s.data, err = machine.OpenDataDir(s.cfg.DataDir); err != nil {
		return err
	}
	s.onStop("data directory", func(context.Context, bool) error { return s.data.Close() })
	return nil
}
