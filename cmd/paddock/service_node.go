package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"paddock/cmd/paddock/doctor"
	"paddock/cmd/paddock/machine"
	"paddock/controller"
	"paddock/controller/logs"
	"paddock/internal/config"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/docker"
	"paddock/pool/oci"
	"paddock/runtimes"
	"paddock/runtimes/node"
)

// nodePart is what makes and holds the sandboxes of this machine.
type nodePart struct {
	runtime    string // path of runsc or runc, for the oci engine
	budget     int64
	image      runtimes.Image
	engine     pool.Engine
	controller *controller.Controller
}

func (p *nodePart) describe() string {
	return fmt.Sprintf("node %s, %s of memory", p.image.Version, sizeText(p.budget))
}

// runtimeName is the program, or the engine, that the configuration asks for.
func (s *service) runtimeName() string {
	if s.cfg.Engine == config.EngineDocker {
		return "the Docker engine"
	}
	return programOf(s.cfg.Isolation)
}

// programOf is the OCI runtime of an isolation.
func programOf(isolation string) string {
	if isolation == config.IsolationGVisor {
		return "runsc"
	}
	return "runc"
}

// findEngine looks for what makes the sandboxes and judges its version, before anything is built.
func (s *service) findEngine(ctx context.Context) error {
	var err error
	if s.node.budget, err = s.memoryBudget(); err != nil {
		return err
	}
	var v doctor.Version
	if s.cfg.Engine == config.EngineDocker {
		v, err = dockerVersion(ctx, s.cfg.Docker.Host, s.cfg.Isolation)
	} else {
		if s.node.runtime, err = machine.FindRuntime(programOf(s.cfg.Isolation), s.cfg.Runtime); err != nil {
			return err
		}
		v, err = runtimeVersion(ctx, s.node.runtime)
	}
	if err != nil {
		return err
	}
	s.progress.say("%s", v.Version)
	if v.Problem == "" {
		return nil
	}
	if s.cfg.Strict {
		problem := v.Problem
		if !strings.HasPrefix(problem, v.Version) {
			problem = v.Version + ": " + problem
		}
		remedy := "'make build' builds a current one, or name one with --runtime"
		if s.cfg.Engine == config.EngineDocker {
			remedy = "install a current Docker engine, or use --engine oci, which brings its own runtimes"
		}
		return fmt.Errorf("%s; --strict refuses it: %s", problem, remedy)
	}
	s.log.Warn("the runtime has a known problem", "runtime", s.runtimeName(), "version", v.Version, "problem", v.Problem)
	return nil
}

// memoryBudget is the configured one, or a part of the machine's memory. It holds one sandbox at least.
func (s *service) memoryBudget() (int64, error) {
	budget := int64(s.cfg.Pool.MemoryBudget)
	total, err := machine.MemoryBytes()
	switch {
	case budget > 0 && err == nil && budget > total:
		s.log.Warn("the memory budget is more than the machine has: sandboxes may drive it into the kernel's OOM killer",
			"budget", sizeText(budget), "machine", sizeText(total))
	case budget > 0:
	case err != nil:
		return 0, fmt.Errorf("memory budget: %w; set --memory-budget", err)
	default:
		budget = total * config.DefaultMemoryPercent / 100
	}
	if one := s.sandboxBytes(); budget < one {
		return 0, fmt.Errorf("the memory budget of %s does not hold one sandbox, which may take %s: raise --memory-budget",
			sizeText(budget), sizeText(one))
	}
	return budget, nil
}

// sandboxBytes is what one sandbox may take.
func (s *service) sandboxBytes() int64 {
	overhead, isolation := oci.Overhead, tenant.IsolationRunc
	if s.cfg.Engine == config.EngineDocker {
		overhead = docker.Overhead
	}
	if s.cfg.Isolation == config.IsolationGVisor {
		isolation = tenant.IsolationGVisor
	}
	return tenant.DefaultMemoryBytes + overhead(isolation)
}

func (s *service) buildImage(ctx context.Context) (err error) {
	cache := s.cfg.CacheDir
	if cache == "" {
		cache = filepath.Join(s.data.Private(), "downloads")
	}
	s.node.image, err = node.Build(ctx, node.Options{
		Dir: s.data.Images(), CacheDir: cache, CAFile: s.cfg.SandboxCA,
		Progress: func(line string) { s.progress.say("%s", line) },
	})
	return machine.Explain(err)
}

// imageAge is how old an unused image in a shared Docker engine is before it goes: another controller may be about to use
// it.
const imageAge = 24 * time.Hour

// startPruning removes the runtime images of former versions while the service serves.
func (s *service) startPruning() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.pruneImages(ctx)
	}()
	s.onStop("old runtimes", func(context.Context, bool) error { cancel(); <-done; return nil })
}

// pruneImages removes the images that no container uses any more. An adopted container's image goes at a later start.
func (s *service) pruneImages(ctx context.Context) {
	found, err := s.node.engine.List(ctx)
	if err != nil {
		s.log.Warn("old runtime images stay", "err", err)
		return
	}
	keep := []string{s.node.image.Digest}
	if v, ok := s.store.view.Runtime(s.node.image.Runtime); ok {
		keep = append(keep, v.Record.GetImage(), v.Record.GetFormer(), v.Record.GetRollout().GetImage())
	}
	for _, c := range found {
		keep = append(keep, c.Facts().ImageDigest)
	}
	if err := node.Prune(ctx, s.data.Images(), keep...); err != nil && ctx.Err() == nil {
		s.log.Warn("old runtime images stay", "err", err)
	}
	if e, ok := s.node.engine.(*docker.Engine); ok {
		if err := e.PruneImages(ctx, time.Now().Add(-imageAge), keep...); err != nil && ctx.Err() == nil {
			s.log.Warn("old runtime images stay in Docker", "err", err)
		}
	}
}

func (s *service) startEngine(ctx context.Context) error {
	e, err := s.newEngine(ctx)
	if err != nil {
		return err
	}
	s.node.engine = e
	s.onStop("engine", func(context.Context, bool) error { return e.Close() })
	return nil
}

func (s *service) newEngine(ctx context.Context) (pool.Engine, error) {
	log := s.log.With("part", "engine")
	if s.cfg.Engine == config.EngineDocker {
		runtime := ""
		if s.cfg.Isolation == config.IsolationGVisor {
			runtime = "runsc"
		}
		e, err := docker.New(ctx, docker.Options{
			Host: s.cfg.Docker.Host, Runtime: runtime, ControllerID: s.data.ID, MemoryBudgetBytes: s.node.budget, Logger: log,
		})
		if err != nil {
			return nil, err
		}
		s.progress.say("importing the runtime image into Docker")
		if err := e.Prepare(ctx, s.node.image); err != nil {
			return nil, fmt.Errorf("importing the runtime image: %w", err)
		}
		return e, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return oci.New(ctx, oci.Options{
		Runtime: s.node.runtime, Isolation: tenant.Isolation(s.cfg.Isolation), StateDir: filepath.Join(s.run.Secret(), "oci"),
		ControllerID: s.data.ID, MemoryBudgetBytes: s.node.budget, Keeper: []string{self, "keeper"}, LockFile: s.data.LockFile(),
		RunDir: s.run.Path, Logger: log,
	})
}

// startController makes the pool and adopts what a former process left.
func (s *service) startController(ctx context.Context) error {
	egress, err := s.newEgress()
	if err != nil {
		return err
	}
	s.onStop("egress", func(context.Context, bool) error { return egress.Close() })
	p := s.cfg.Pool
	minReady := p.MinReady
	if minReady == 0 {
		minReady = -1 // the pool's word for none
	}
	var others controller.Neighbours // none in `paddock up`
	if s.cluster.advertised != "" {
		others = s.store.view
	}
	c, err := controller.New(controller.Config{
		Images: node.NewShelf(s.data.Images()).Look, Neighbours: others, ID: s.data.ID, Address: s.cluster.advertised, DrainFile: s.data.DrainFile(), Region: s.cfg.Region,
		TrustClass: s.cfg.Cluster.TrustClass, Version: release(), Store: s.store.client, Catalogue: s.store.view,
		Logs: logs.New(logs.Options{}), Audit: s.audit.events, Logger: s.log.With("part", "controller"),
		Pool: pool.Config{
			Engine: s.node.engine, Image: s.node.image, RunDir: s.run.Path, UIDBase: s.cfg.UIDBase,
			MinReady: minReady, MaxReady: p.MaxReady, MaxContainers: p.MaxContainers, CreateParallel: p.CreateParallel,
			MemoryBudgetBytes: s.node.budget, Egress: egress, Logger: s.log.With("part", "pool"),
		},
	})
	if err != nil {
		return err
	}
	s.node.controller = c
	s.onStop("controller", func(ctx context.Context, remove bool) error {
		if remove {
			return c.Shutdown(ctx)
		}
		return c.Release(ctx)
	})
	return c.Start(ctx)
}

// warmTime is how long the start waits for the pool to be full before it calls itself ready with what there is.
const warmTime = 30 * time.Second

// awaitWarm shows how the pool fills. The service is ready with the first warm sandbox; the others are waited for so that
// who tries it at once meets a pool as it will be.
func (s *service) awaitWarm(ctx context.Context) error {
	c := s.node.controller
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		st := c.Stats()
		s.progress.say("%d/%d warm", st.Ready, st.MinReady)
		if s.warmEnough(st, time.Since(began)) {
			if s.front.router != nil { // else a controller of its own
				s.front.router.SetReady(true)
			}
			return nil
		}
		if st.Ready == 0 && st.CreateFailed >= tooManyFailures {
			return fmt.Errorf("sandboxes cannot be made (%d attempts failed): the log above says why; 'paddock doctor' looks at the machine",
				st.CreateFailed)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tooManyFailures in a row without one sandbox mean that this machine cannot make them.
const tooManyFailures = 5

func (s *service) warmEnough(st pool.Stats, waited time.Duration) bool {
	switch {
	case st.Ready >= st.MinReady, st.Ready+st.Assigned >= st.Limit, s.node.controller.Draining():
		return true
	case s.cfg.ReadyFile != "" && st.Ready > 0: // somebody waits for the first one
		return true
	}
	return waited > warmTime && st.Ready+st.Assigned > 0
}
