package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"paddock/controller/catalog"
	"paddock/controller/janitor"
	"paddock/controller/rollout"
	"paddock/controller/store"
	"paddock/internal/metrics"
	"paddock/internal/pki"
	"paddock/pool"
	"paddock/proto"
	pb "paddock/proto/paddock/v1"
	"paddock/router"
)

// sweepEvery is how often what nobody refers to is looked for.
const sweepEvery = time.Hour

// frontPart is what callers reach.
type frontPart struct {
	tls    *tls.Config // of both listeners; nil: in the clear
	router *router.Router
}

// startFront makes the router over the controller in this process and serves. It is not ready yet.
func (s *service) startFront(ctx context.Context) error {
	b := s.backend()
	cat, err := s.openCatalogue(ctx, b.remover, router.Compile(b.nodes))
	if err != nil {
		return err
	}
	registry, err := s.newRegistry()
	if err != nil {
		return err
	}
	ended, err := metrics.NewRollouts(registry, rollout.States, rollout.Results, func() metrics.Rollout {
		v, _ := s.store.view.Runtime(servedRuntime)
		return rollout.Standing(v, time.Now())
	})
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	tracer, err := s.startTracing(ctx)
	if err != nil {
		return err
	}
	r, err := router.New(router.Config{
		Catalogue: s.store.view, Keyring: catalog.NewKeyring(s.store.view, s.store.pepper), Nodes: b.nodes,
		Catalog: catalog.NewServer(cat), Keys: catalog.NewKeyServer(cat), Pools: rollout.NewServer(b.pools, s.store.client, s.store.view, servedRuntime), Logs: b.logs, Prover: cat, Audit: s.audit.log,
		OpenAPI: proto.OpenAPI(), Registerer: registry, Gatherer: prometheus.Gatherers{registry, etcdMetrics{}}, Tracer: tracer, TLS: s.front.tls,
		MaxConns: s.maxConns(), MaxConnsPerAddress: s.cfg.MaxConnectionsPerAddress,
		Logger: s.log.With("part", "router"),
	})
	if err != nil {
		return err
	}
	s.front.router = r
	s.onStop("front", func(ctx context.Context, _ bool) error { return r.Shutdown(ctx) })
	go func() {
		if err := r.Serve(s.opened.http, s.opened.grpc); err != nil {
			s.failed <- fmt.Errorf("serving: %w", err)
		}
	}()
	s.startSweeps(cat, s.rollouts(b.pools, ended))
	s.startKeyUse(cat)
	return nil
}

// backend is what runs the calls of the front: the controller in this process, or all that are registered.
type backend struct {
	nodes   router.Nodes
	pools   pb.PoolsServer
	logs    router.LogSources
	remover catalog.Remover
}

func (s *service) backend() backend {
	if f := s.cluster.fleet; f != nil {
		return backend{nodes: f, pools: f.Pools(), logs: f, remover: f}
	}
	c := s.node.controller
	return backend{nodes: router.OneNode(c), pools: c.Pools(), logs: router.OneLogSource(c.Kept()), remover: c}
}

// startSweeps removes, now and then, what broken-off deletions and expired keys left. Of several routers one does it.
func (s *service) startSweeps(cat *catalog.Service, rollouts func(context.Context, store.Guard)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.cluster.fleet != nil {
			janitor.Run(ctx, janitor.Options{
				ID: s.data.ID, Store: s.store.client, Fleet: s.store.view.Fleet, Sweep: cat.Sweep, Lead: rollouts,
				Logger: s.log.With("part", "janitor"),
			})
			return
		}
		led := make(chan struct{})
		go func() { defer close(led); rollouts(ctx, store.Guard{}) }()
		defer func() { <-led }()
		for {
			if err := cat.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("sweep of the catalogue", "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(sweepEvery):
			}
		}
	}()
	s.onStop("sweeps", func(context.Context, bool) error { cancel(); <-done; return nil })
}

// servedRuntime is the one runtime that there is.
const servedRuntime = "node"

// rollouts carries rollouts of runtime images on, in the one process that does.
func (s *service) rollouts(pools pb.PoolsServer, ended *metrics.Rollouts) func(context.Context, store.Guard) {
	return func(ctx context.Context, guard store.Guard) {
		rollout.Run(ctx, rollout.Options{
			Store: s.store.client, Runtime: servedRuntime, View: s.store.view, Guard: guard, Logger: s.log.With("part", "rollout"),
			Audit: s.audit.log, Metrics: ended,
			Nodes: func(ctx context.Context) ([]*pb.NodeStatus, error) {
				r, err := pools.ListNodes(ctx, &pb.ListNodesRequest{})
				return r.GetNodes(), err
			},
		})
	}
}

// maxConns is how many connections each listener takes. What is left of the descriptors is for sandboxes, whose links and
// egress a flood of connections must not stop.
func (s *service) maxConns() int {
	if s.cfg.MaxConnections > 0 {
		return s.cfg.MaxConnections
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		s.log.Warn("the limit of descriptors cannot be read", "err", err)
		return router.DefaultMaxConns
	}
	return int(min(router.DefaultMaxConns, files.Cur/5*2))
}

func (s *service) loadTLS() (*tls.Config, error) {
	if s.cfg.TLS.Cert == "" {
		return nil, nil
	}
	source, err := pki.OpenPublic(s.cfg.TLS.Cert, s.cfg.TLS.Key, s.log)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	return source.PublicTLS(), nil
}

// liveHeap adds go_gc_heap_live_bytes: what is in use has up to four times as much garbage in it (machine.TuneGC).
var liveHeap = collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)})

// newRegistry holds all metrics of the process; etcd registers its own with the default one.
func (s *service) newRegistry() (*prometheus.Registry, error) {
	reg := prometheus.NewRegistry()
	all := []prometheus.Collector{collectors.NewGoCollector(liveHeap), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
	if c := s.node.controller; c != nil {
		all = append(all, metrics.NewPoolCollector(func() metrics.Pool { return poolMetrics(c.Stats()) }))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return reg, nil
}

// poolMetrics is the pool's snapshot as the metrics name it.
func poolMetrics(st pool.Stats) metrics.Pool {
	out := metrics.Pool{
		Creating: st.Creating, Ready: st.Ready, Assigned: st.Assigned, Frozen: st.Frozen, Draining: st.Draining,
		Waiting: st.Waiting, Running: st.InFlight, MinReady: st.MinReady, MaxReady: st.MaxReady, MaxContainers: st.Limit,
		MemoryBudgetBytes: st.MemoryBudgetBytes, MemoryReservedBytes: st.MemoryCommittedBytes,
		Created: int64(st.Created), CreateFailed: int64(st.CreateFailed), Leaked: int64(st.Orphans), Yielded: int64(st.Yielded),
		Recycled: map[string]int64{},
	}
	for cause, n := range st.Recycled {
		out.Recycled[string(cause)] = int64(n)
	}
	return out
}

// etcdMetrics are those that the embedded etcd keeps of itself in the process's default registry: its writes, above all.
type etcdMetrics struct{}

// Gather implements prometheus.Gatherer.
func (etcdMetrics) Gather() ([]*dto.MetricFamily, error) {
	all, err := prometheus.DefaultGatherer.Gather()
	kept := all[:0]
	for _, f := range all {
		if strings.HasPrefix(f.GetName(), "etcd_") {
			kept = append(kept, f)
		}
	}
	return kept, err
}
