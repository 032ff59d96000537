package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"paddock/cmd/paddock/machine"
	"paddock/internal/config"
	"paddock/internal/logging"
)

// service is everything that `paddock up` runs. start builds it in order; what each step makes registers how it is undone,
// and stop undoes from the last to the first. A process that is only a controller, or only a router, is made of the
// same parts.
type service struct {
	app      *app
	cfg      config.Config
	log      *slog.Logger
	lines    *logging.Buffer // what log writes gathers here
	progress *progress
	failed   chan error  // serving, or the store, has failed
	ready    atomic.Bool // start has come through

	data    *machine.DataDir
	run     *machine.RunDir
	audit   auditPart
	store   storePart
	node    nodePart
	front   frontPart
	cluster clusterPart
	undo    []closer // in the order of making
	opened  struct{ http, grpc net.Listener }
}

// closer undoes one step. remove says whether the sandboxes go as well.
type closer struct {
	name string
	do   func(ctx context.Context, remove bool) error
}

func newService(a *app, cfg config.Config) *service {
	p := newProgress(a.stdout, a.stdoutTTY)
	log, lines := newLogger(a, cfg.Log, p)
	return &service{app: a, cfg: cfg, log: log, lines: lines, failed: make(chan error, 4), progress: p}
}

func (s *service) onStop(name string, do func(ctx context.Context, remove bool) error) {
	s.undo = append(s.undo, closer{name, do})
}

// say tells people something after the progress is over.
func (s *service) say(format string, args ...any) { fmt.Fprintf(s.app.stdout, format+"\n", args...) }

// start takes the machine, opens the store, prepares runtime and engine, fills the pool and serves. What can fail for
// reasons that only a person can mend comes first.
func (s *service) start(ctx context.Context) error {
	err := s.take(ctx, []step{
		{"taking " + s.cfg.DataDir, s.takeMachine},
		{"opening the audit log", s.openAudit},
		{"opening listeners", s.listen},
		{"looking for " + s.runtimeName(), s.findEngine},
		{"opening the store", s.openStore},
		{"building the runtime", s.buildImage},
		{"starting the engine", s.startEngine},
		{"starting the controller", s.startController},
		{"starting the front", s.startFront},
		{"filling the pool", s.awaitWarm},
		{"writing down the start", s.auditStart},
		{"announcing", s.announce},
	})
	if err != nil {
		return err
	}
	s.banner()
	s.startPruning()
	return nil
}

// step is a part of a start.
type step struct {
	name string
	do   func(context.Context) error
}

// take takes steps one after the other.
func (s *service) take(ctx context.Context, steps []step) error {
	for _, step := range steps {
		s.progress.begin(step.name)
		if err := step.do(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	s.ready.Store(true)
	s.progress.end()
	return nil
}

// oomScore keeps the kernel from choosing the service when memory is short: sandboxes go first.
const oomScore = "-900"

// takeMachine locks the data directory and mounts the run directory.
func (s *service) takeMachine(context.Context) error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0); err != nil {
		s.log.Warn("the OOM score cannot be set: short of memory, the kernel may end the service before a sandbox", "err", err)
	}
	var err error
	if s.data, err = machine.OpenDataDir(s.cfg.DataDir); err != nil {
		return err
	}
	s.onStop("data directory", func(context.Context, bool) error { return s.data.Close() })
	if err := os.Remove(s.data.Restoring()); err != nil && !errors.Is(err, os.ErrNotExist) { // it is not empty
		return fmt.Errorf("a restore into %s was broken off: run 'paddock restore' again, or remove the directory", s.data.Path)
	}
	if s.run, err = machine.OpenRunDir(runBase(s.app.getenv), s.data.ID); err != nil {
		return err
	}
	s.onStop("run directory", func(_ context.Context, remove bool) error {
		if !remove {
			return nil
		}
		return s.run.Remove()
	})
	// What a killed process said of itself holds no more.
	machine.Withdraw(runBase(s.app.getenv), s.data.ID)
	if s.cfg.ReadyFile != "" {
		os.Remove(s.cfg.ReadyFile)
	}
	return nil
}

func (s *service) listen(context.Context) (err error) {
	if s.front.tls, err = s.loadTLS(); err != nil {
		return err
	}
	for _, l := range []struct {
		flag, addr string
		to         *net.Listener
	}{{"--http", s.cfg.HTTP, &s.opened.http}, {"--grpc", s.cfg.GRPC, &s.opened.grpc}} {
		listener, err := net.Listen("tcp", l.addr)
		if err != nil {
			return fmt.Errorf("%s %s: %w; choose another address or port (port 0 takes a free one), or stop what listens there",
				l.flag, l.addr, err)
		}
		*l.to = listener
		s.onStop(l.flag, func(context.Context, bool) error {
			if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return nil
}

// stop undoes everything, the last first. With remove no sandbox and nothing of ours is left on the machine; calls in
// flight may finish until ctx ends.
func (s *service) stop(ctx context.Context, remove bool) error {
	var all []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		c := s.undo[i]
		began := time.Now()
		err := c.do(ctx, remove)
		s.log.Debug("stopped", "part", c.name, "took", time.Since(began), "err", err)
		if err != nil {
			s.log.Error("stopping", "part", c.name, "err", err)
			all = append(all, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	s.undo = nil
	s.progress.end()
	return errors.Join(all...)
}

// announce leaves the addresses for who waits for them.
func (s *service) announce(context.Context) error {
	rec := machine.Record{
		HTTP: s.url(), GRPC: s.opened.grpc.Addr().String(), PID: os.Getpid(), DataDir: s.data.Path, KeyFile: s.operatorKey(),
	}
	if s.cfg.TLS.Cert != "" {
		rec.TLSCert = absolute(s.cfg.TLS.Cert)
	}
	withdraw, err := machine.Announce(runBase(s.app.getenv), s.data.ID, rec)
	if err != nil {
		return err
	}
	s.onStop("record", func(context.Context, bool) error { withdraw(); return nil })
	return s.writeReadyFile(map[string]any{"http": rec.HTTP, "grpc": rec.Dial(), "pid": rec.PID})
}

// writeReadyFile says where the service is to who waits for it.
func (s *service) writeReadyFile(what map[string]any) error {
	if s.cfg.ReadyFile == "" {
		return nil
	}
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	if err := machine.WriteFile(s.cfg.ReadyFile, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	s.onStop("ready file", func(context.Context, bool) error {
		if err := os.Remove(s.cfg.ReadyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	return nil
}

// url is the HTTP listener as this machine reaches it.
func (s *service) url() string {
	scheme := "http"
	if s.cfg.TLS.Cert != "" {
		scheme = "https"
	}
	return scheme + "://" + machine.Record{GRPC: s.opened.http.Addr().String()}.Dial()
}

// absolute is a path that holds in every directory.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

// banner says how to go on.
func (s *service) banner() {
	trust := ""
	if s.cfg.TLS.Cert != "" {
		trust = " --cacert " + absolute(s.cfg.TLS.Cert)
	}
	s.say(`
Paddock serves.
  HTTP      %s
  gRPC      %s
  key file  %s (the operator's key)
  sandboxes %s, %s

Try it:
  curl -sS%s %s/v1/run -H "Authorization: Bearer $(cat %s)" -H 'Paddock-Tenant: %s' \
    -H 'Content-Type: application/javascript' --data-binary 'module.exports = async () => "hello from a sandbox"'
  echo 'module.exports = async () => 6 * 7' | paddock run -
`, s.url(), s.opened.grpc.Addr(), s.operatorKey(), s.node.engine.Name(), s.node.describe(), trust, s.url(), s.operatorKey(),
		defaultTenant)
}
