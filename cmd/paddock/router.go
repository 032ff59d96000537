package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"paddock/internal/config"
)

const routerHelp = `Serve callers over HTTP and gRPC, and hand their calls to controllers on other machines: one of any number of routers that
share a store. It makes no sandboxes and needs no root.

All routers share the key-encryption key, the pepper and the operator's key (--secrets). Code is kept in the store, encrypted, or in a
directory that all routers see (--blobs). SIGTERM refuses new calls and lets those in flight finish.`

func (a *app) routerCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "router", Short: "Serve callers and hand their calls to controllers", Long: routerHelp, Args: args(),
		Example: `  paddock router --etcd-endpoints https://10.0.0.21:2379 \
    --cert router-front-1.pem --cert-key router-front-1-key.pem --ca ca.pem --secrets /srv/paddock/secrets \
    --http :443 --grpc :8443 --tls-cert cert.pem --tls-key key.pem`,
	}
	cfg := config.Defaults()
	f := c.Flags()
	bindFrontFlags(f, &cfg)
	f.StringVar(&cfg.DataDir, "data-dir", cfg.DataDir, "audit log, copies of code, and the keys where --secrets names no directory")
	f.StringVar(&cfg.Cluster.Secrets, "secrets", "", "directory of the keys that all routers share")
	f.StringVar(&cfg.Cluster.Blobs, "blobs", "", "directory of stored code that all routers share (default: the store keeps it)")
	f.BoolVar(&cfg.Cluster.BlobsShared, "blobs-shared", false, "say that every router sees the same --blobs")
	file := bindClusterFlags(f, &cfg)
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if err := layer(cmd.Flags(), &cfg, *file); err != nil {
			return usageError("%w", err)
		}
		if err := cfg.Cluster.CheckRouter(); err != nil {
			return usageError("%w", err)
		}
		return a.runService(cmd.Context(), cfg, (*service).startAsRouter)
	})
	return c
}

// bindFrontFlags are those of who serves callers.
func bindFrontFlags(f *pflag.FlagSet, cfg *config.Config) {
	f.StringVar(&cfg.HTTP, "http", cfg.HTTP, "HTTP listener; port 0 takes a free one")
	f.StringVar(&cfg.GRPC, "grpc", cfg.GRPC, "gRPC listener; port 0 takes a free one")
	f.StringVar(&cfg.ReadyFile, "ready-file", "", "write addresses and pid here once it serves")
	f.BoolVar(&cfg.Insecure, "insecure", false, "allow listeners without TLS beyond this machine")
	f.StringVar(&cfg.TLS.Cert, "tls-cert", "", "certificate of both listeners, PEM")
	f.StringVar(&cfg.TLS.Key, "tls-key", "", "its key, PEM")
}

// startAsRouter is start without sandboxes.
func (s *service) startAsRouter(ctx context.Context) error {
	err := s.take(ctx, []step{
		{"taking " + s.cfg.DataDir, s.takeDataDir},
		{"reading certificates", s.openCerts},
		{"opening the audit log", s.openAudit},
		{"opening listeners", s.listen},
		{"reaching the store", s.openRouterStore},
		{"reaching the controllers", s.openFleet},
		{"starting the front", s.startFront},
		{"announcing", func(context.Context) error {
			s.front.router.SetReady(true)
			return s.writeReadyFile(map[string]any{"http": s.url(), "grpc": s.opened.grpc.Addr().String(), "pid": os.Getpid()})
		}},
	})
	if err != nil {
		return err
	}
	s.say("\nPaddock's router serves.\n  HTTP      %s\n  gRPC      %s\n  key file  %s (the operator's key)", s.url(), s.opened.grpc.Addr(),
		s.operatorKey())
	if len(s.cluster.fleet.Status()) == 0 {
		s.say("  no controller is registered yet")
	}
	return nil
}
