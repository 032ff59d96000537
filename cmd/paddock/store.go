package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"paddock/controller/etcdstore"
	"paddock/internal/config"
)

const storeHelp = `Run one member of an etcd cluster for routers and controllers, by the same etcd that 'paddock up' embeds. An etcd cluster of your
own does as well.

Start a majority of the members at a time: none serves before. With certificates ('paddock certs issue --role etcd') every
connection is mutual TLS; without them, only addresses of this machine are taken.`

// memberStart is how long a member waits for the others.
const memberStart = 2 * time.Minute

func (a *app) storeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "store", Short: "Run a member of the store that several machines share", Long: storeHelp, Args: args(),
		Example: `  paddock store --name m1 --client https://10.0.0.21:2379 --peer https://10.0.0.21:2380 \
    --members m1=https://10.0.0.21:2380,m2=https://10.0.0.22:2380,m3=https://10.0.0.23:2380 \
    --cert etcd-m1.pem --cert-key etcd-m1-key.pem --ca ca.pem --dir /var/lib/paddock-store`,
	}
	var o etcdstore.MemberOptions
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "/var/lib/paddock-store", "the member's data")
	f.StringVar(&o.Name, "name", "", "the member's name")
	f.StringVar(&o.Client, "client", "", "URL at which routers and controllers reach it")
	f.StringVar(&o.Peer, "peer", "", "URL at which the other members reach it")
	f.StringToStringVar(&o.Members, "members", nil, "NAME=URL of every member's --peer, with commas")
	f.StringVar(&o.Cert, "cert", "", "certificate, PEM")
	f.StringVar(&o.Key, "cert-key", "", "its key, PEM")
	f.StringVar(&o.CA, "ca", "", "authority of all certificates, PEM")
	cfg := config.Defaults()
	f.StringVar(&cfg.Log.Format, "log-format", cfg.Log.Format, "text, json, or auto: text on a terminal")
	f.StringVar(&cfg.Log.Level, "log-level", "warn", "debug, info, warn or error")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if err := checkMember(&o); err != nil {
			return err
		}
		return a.store(cmd.Context(), cfg, o)
	})
	return c
}

func checkMember(o *etcdstore.MemberOptions) error {
	switch {
	case o.Name == "" || o.Client == "" || o.Peer == "":
		return usageError("--name, --client and --peer are needed: who the member is, and where it is reached")
	case o.Members[o.Name] != o.Peer:
		return usageError("--members must name %s with its --peer %s", o.Name, o.Peer)
	case (o.Cert == "") != (o.Key == "") || (o.Cert == "") != (o.CA == ""):
		return usageError("--cert, --cert-key and --ca belong together: give all or none")
	}
	for _, u := range []string{o.Client, o.Peer} {
		scheme, host, _ := strings.Cut(u, "://")
		switch {
		case o.Cert != "" && scheme != "https":
			return usageError("%s: with a certificate it is https://", u)
		case o.Cert == "" && (scheme != "http" || !strings.HasPrefix(host, "127.") && !strings.HasPrefix(host, "localhost:")):
			return usageError("%s: without certificates only http:// on this machine (127.0.0.1) is taken", u)
		}
	}
	return nil
}

func (a *app) store(parent context.Context, cfg config.Config, o etcdstore.MemberOptions) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if giveBack, ok := parent.Value(stopKey{}).(context.CancelFunc); ok {
		giveBack()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), memberStart)
	defer cancel()
	p := newProgress(a.stdout, a.stdoutTTY)
	log, lines := newLogger(a, cfg.Log, p)
	defer lines.Close()
	o.Logger = log
	m, err := etcdstore.RunMember(ctx, o)
	if err != nil {
		return platformError("%w", err)
	}
	p.end()
	select {
	case <-signals:
		return m.Close()
	case <-m.Failed():
		return platformError("the store has failed: %w", m.Cause())
	}
}
