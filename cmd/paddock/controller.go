package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"paddock/internal/config"
)

const controllerHelp = `Own this machine's sandboxes and run what routers send, one of several controllers that share a store. Needs root.

Routers are known by certificate ('paddock certs'). SIGTERM drains: routers send nothing new, what runs ends, every sandbox is
removed. SIGUSR2 stops the process and leaves the sandboxes to the next start with the same --data-dir.`

func (a *app) controllerCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "controller", Short: "Run this machine's sandboxes for routers on other machines", Long: controllerHelp, Args: args(),
		Example: `  paddock controller --etcd-endpoints https://10.0.0.21:2379 --listen 10.0.0.11:8082 \
    --cert controller-node-1.pem --cert-key controller-node-1-key.pem --ca ca.pem`,
	}
	cfg := config.Defaults()
	file := bindControllerFlags(c.Flags(), &cfg)
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if err := layer(cmd.Flags(), &cfg, *file); err != nil {
			return usageError("%w", err)
		}
		if err := cfg.Cluster.CheckController(); err != nil {
			return usageError("%w", err)
		}
		a.dockerHost(&cfg)
		if os.Geteuid() != 0 {
			return platformError("paddock controller needs root: making sandboxes takes cgroups, mounts and user ids of their own; run it with sudo")
		}
		return a.runService(cmd.Context(), cfg, (*service).startAsController)
	})
	return c
}

func bindControllerFlags(f *pflag.FlagSet, cfg *config.Config) (file *string) {
	f.StringVar(&cfg.DataDir, "data-dir", cfg.DataDir, "runtime images and caches; one controller each")
	f.StringVar(&cfg.SandboxCA, "sandbox-ca", "", "PEM file of private authorities that code in sandboxes trusts, too")
	f.StringVar(&cfg.CacheDir, "cache-dir", "", "downloads for the runtime image, may be shared (default: inside of --data-dir)")
	f.StringVar(&cfg.ReadyFile, "ready-file", "", "write address and pid here once the first sandbox is warm")
	f.StringVar(&cfg.Engine, "engine", cfg.Engine, "what makes sandboxes: oci (no daemon) or docker")
	f.StringVar(&cfg.Isolation, "isolation", cfg.Isolation, "gvisor or runc")
	f.StringVar(&cfg.Runtime, "runtime", "", "path of runsc or runc (default: beside paddock, then PATH)")
	f.BoolVar(&cfg.Strict, "strict", false, "refuse runtimes with known holes instead of warning")
	f.IntVar(&cfg.Pool.MinReady, "min-ready", cfg.Pool.MinReady, "warm sandboxes kept whatever the demand")
	f.IntVar(&cfg.Pool.MaxContainers, "max-containers", 0, "all sandboxes together (default: by memory budget)")
	f.Var(&cfg.Pool.MemoryBudget, "memory-budget", "memory of all sandboxes together, for example 8GiB")
	f.Uint32Var(&cfg.UIDBase, "uid-base", cfg.UIDBase, "first of 65,536 host user ids for sandboxes; several controllers on a machine need ranges of their own")
	f.StringVar(&cfg.Cluster.Listen, "listen", cfg.Cluster.Listen, "where routers are served")
	f.StringVar(&cfg.Cluster.Advertise, "advertise", "", "address at which routers reach it (default: that of --listen)")
	f.StringVar(&cfg.Cluster.TrustClass, "trust-class", "", "run the code of tenants of this class, and of nobody else")
	f.StringVar(&cfg.Cluster.Status, "status", cfg.Cluster.Status, "where /metrics, /healthz and /readyz are; empty: nowhere")
	return bindClusterFlags(f, cfg)
}

// bindClusterFlags are those of controllers and routers.
func bindClusterFlags(f *pflag.FlagSet, cfg *config.Config) (file *string) {
	bindEtcdFlags(f, &cfg.Cluster.Etcd, ", where it is another")
	f.StringVar(&cfg.Cluster.Cert, "cert", "", "certificate of this process among routers and controllers, PEM")
	f.StringVar(&cfg.Cluster.Key, "cert-key", "", "its key, PEM")
	f.StringVar(&cfg.Cluster.CA, "ca", "", "authority of routers' and controllers' certificates, PEM")
	f.StringVar(&cfg.Region, "region", cfg.Region, "region of this machine; routers stay in theirs unless a tenant's policy says otherwise")
	f.StringVar(&cfg.Log.Format, "log-format", cfg.Log.Format, "text, json, or auto: text on a terminal")
	f.StringVar(&cfg.Log.Level, "log-level", cfg.Log.Level, "debug, info, warn or error")
	return f.String("config", "", "YAML file with these settings and more (etc/paddock.example.yml); flags win over it")
}

// startAsController is start without a front.
func (s *service) startAsController(ctx context.Context) error {
	err := s.take(ctx, []step{
		{"taking " + s.cfg.DataDir, s.takeMachine},
		{"reading certificates", s.openCerts},
		{"opening the audit log", s.openAudit},
		{"opening listeners", s.listenNode},
		{"looking for " + s.runtimeName(), s.findEngine},
		{"reaching the store", s.openControllerStore},
		{"building the runtime", s.buildImage},
		{"starting the engine", s.startEngine},
		{"starting the controller", s.startController},
		{"serving routers", s.serveNode},
		{"showing its status", s.serveStatus},
		{"filling the pool", s.awaitWarm},
		{"writing down the start", s.auditStart},
		{"announcing", func(context.Context) error {
			return s.writeReadyFile(map[string]any{"node": s.cluster.advertised, "controller": s.data.ID, "pid": os.Getpid()})
		}},
	})
	if err != nil {
		return err
	}
	s.say("\nPaddock's controller %s serves routers at %s.\n  sandboxes %s, %s", s.data.ID, s.cluster.advertised, s.node.engine.Name(), s.node.describe())
	s.startPruning()
	return nil
}
