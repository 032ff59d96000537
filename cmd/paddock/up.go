package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"paddock/cmd/paddock/machine"
	"paddock/internal/config"
)

const upHelp = `Start all of Paddock in one process on this machine: the store, the warm sandboxes, the HTTP and gRPC front. Needs root.

The operator's key is made at the first start, in DATA/operator.key. Client commands that root runs on this machine find
service and key by themselves.

SIGTERM or Ctrl-C refuses new calls, lets those in flight finish, removes every sandbox and exits 0; a second one cuts
short. SIGUSR2 stops the process and leaves the sandboxes: the next start with the same --data-dir goes on with them. The
same after a crash.`

func (a *app) upCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "up", Short: "Serve on this machine: store, sandboxes, HTTP and gRPC", Long: upHelp, Args: args(),
		Example: `  paddock up
  paddock up --isolation runc --http 127.0.0.1:0 --grpc 127.0.0.1:0 --ready-file /run/paddock-ready.json
  paddock up --http :443 --grpc :8443 --tls-cert cert.pem --tls-key key.pem
  paddock up --config /etc/paddock.yml`,
	}
	cfg := config.Defaults()
	file := bindUpFlags(c.Flags(), &cfg)
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if err := layer(cmd.Flags(), &cfg, *file); err != nil {
			return usageError("%w", err)
		}
		a.dockerHost(&cfg)
		return a.up(cmd.Context(), cfg)
	})
	return c
}

// bindUpFlags makes flags that write into cfg, and returns where the name of the file will stand.
func bindUpFlags(f *pflag.FlagSet, cfg *config.Config) (file *string) {
	f.StringVar(&cfg.DataDir, "data-dir", cfg.DataDir, "keys, store, code and runtime images")
	f.StringVar(&cfg.SandboxCA, "sandbox-ca", "", "PEM file of private authorities that code in sandboxes trusts, too")
	f.StringVar(&cfg.CacheDir, "cache-dir", "", "downloads for the runtime image, may be shared (default: inside of --data-dir)")
	f.StringVar(&cfg.HTTP, "http", cfg.HTTP, "HTTP listener; port 0 takes a free one")
	f.StringVar(&cfg.GRPC, "grpc", cfg.GRPC, "gRPC listener; port 0 takes a free one")
	f.StringVar(&cfg.ReadyFile, "ready-file", "", "write addresses and pid here once the first sandbox is warm")
	f.BoolVar(&cfg.Insecure, "insecure", false, "allow listeners without TLS beyond this machine")
	f.StringVar(&cfg.TLS.Cert, "tls-cert", "", "certificate of both listeners, PEM")
	f.StringVar(&cfg.TLS.Key, "tls-key", "", "its key, PEM")
	f.StringVar(&cfg.Engine, "engine", cfg.Engine, "what makes sandboxes: oci (no daemon) or docker")
	f.StringVar(&cfg.Isolation, "isolation", cfg.Isolation, "gvisor or runc")
	f.StringVar(&cfg.Runtime, "runtime", "", "path of runsc or runc (default: beside paddock, then PATH)")
	f.BoolVar(&cfg.Strict, "strict", false, "refuse runtimes with known holes instead of warning")
	f.IntVar(&cfg.Pool.MinReady, "min-ready", cfg.Pool.MinReady, "warm sandboxes kept whatever the demand")
	f.IntVar(&cfg.Pool.MaxContainers, "max-containers", 0, "all sandboxes together (default: by memory budget)")
	f.Var(&cfg.Pool.MemoryBudget, "memory-budget", fmt.Sprintf("memory of all sandboxes together, for example 8GiB (default: %d %% of the machine's)", config.DefaultMemoryPercent))
	f.StringVar(&cfg.Log.Format, "log-format", cfg.Log.Format, "text, json, or auto: text on a terminal")
	f.StringVar(&cfg.Log.Level, "log-level", cfg.Log.Level, "debug, info, warn or error")
	return f.String("config", "", "YAML file with these settings and more (etc/paddock.example.yml); flags win over it")
}

// layer lays the file over the defaults in cfg, and the flags that were given over that again.
func layer(f *pflag.FlagSet, cfg *config.Config, file string) error {
	given, lists := map[string]string{}, map[string][]string{}
	f.Visit(func(fl *pflag.Flag) {
		if list, ok := fl.Value.(pflag.SliceValue); ok { // its text is no value that it takes
			lists[fl.Name] = list.GetSlice()
			return
		}
		given[fl.Name] = fl.Value.String()
	})
	*cfg = config.Defaults()
	if file != "" {
		if err := cfg.Read(file); err != nil {
			return err
		}
	}
	for name, value := range given {
		if err := f.Set(name, value); err != nil {
			return err
		}
	}
	for name, list := range lists {
		if err := f.Lookup(name).Value.(pflag.SliceValue).Replace(list); err != nil {
			return err
		}
	}
	return cfg.Check()
}

// dockerHost takes Docker's own variable where the settings name no engine.
func (a *app) dockerHost(cfg *config.Config) {
	if cfg.Docker.Host == "" {
		cfg.Docker.Host = a.getenv("DOCKER_HOST")
	}
}

// drainTime is how long calls in flight have after SIGTERM, releaseTime after SIGUSR2.
const (
	drainTime   = 30 * time.Second
	releaseTime = 5 * time.Second
)

// up is all of Paddock in this process.
func (a *app) up(parent context.Context, cfg config.Config) error {
	if os.Geteuid() != 0 {
		return platformError("paddock up needs root: making sandboxes takes cgroups, mounts and user ids of their own; run it with sudo")
	}
	return a.runService(parent, cfg, (*service).start)
}

// runService prepares with start, serves until a signal, and stops. What was prepared is undone on every way out.
func (a *app) runService(parent context.Context, cfg config.Config, start func(*service, context.Context) error) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if giveBack, ok := parent.Value(stopKey{}).(context.CancelFunc); ok {
		giveBack() // from here on the signals are ours
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	defer cancel()
	s := newService(a, cfg)
	defer s.lines.Close()
	machine.TuneGC(a.getenv)
	prepared := make(chan error, 1)
	go func() { prepared <- start(s, ctx) }()
	for {
		select {
		case sig := <-signals:
			if !s.ready.Load() {
				cancel()
			}
			err := <-prepared
			if s.ready.Load() { // it came through all the same
				return s.stopOn(sig, signals)
			}
			s.progress.fail()
			s.abandon(sig != syscall.SIGUSR2 && s.node.controller != nil)
			s.log.Info("stopped before it served", "signal", sig.String(), "err", err)
			return nil
		case err := <-prepared:
			if err != nil {
				s.progress.fail()
				s.abandon(false)
				return platformError("%w", err)
			}
			return a.serve(s, signals)
		}
	}
}

// abandon undoes a start that did not come through. What a former process left for adoption stays, unless it was adopted
// already and shall go.
func (s *service) abandon(adopted bool) { _ = s.stop(ended(), adopted || s.run == nil || !s.run.Found) }

// serve waits for the end.
func (a *app) serve(s *service, signals <-chan os.Signal) error {
	select {
	case sig := <-signals:
		return s.stopOn(sig, signals)
	case err := <-s.failed:
		s.log.Error("serving failed: stopping", "err", err)
		drain, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		s.stop(drain, true)
		return platformError("%w", err)
	}
}

// stopOn stops as the signal says; a second signal cuts short.
func (s *service) stopOn(sig os.Signal, signals <-chan os.Signal) error {
	remove, limit := true, drainTime
	if sig == syscall.SIGUSR2 {
		remove, limit = false, releaseTime
	}
	s.audit.signal = sig.String()
	s.log.Info("stopping", "signal", sig.String(), "leave_sandboxes", !remove)
	s.say("stopping: calls in flight have %s; a second signal cuts short", limit)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop(ctx, remove) }()
	for {
		select {
		case <-signals:
			s.log.Warn("second signal: cutting short")
			cancel()
		case err := <-stopped:
			if err != nil {
				return platformError("%w", err)
			}
			s.say("stopped")
			return nil
		}
	}
}

// ended is a context whose time is over: nothing is waited for.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
