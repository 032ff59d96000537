package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"paddock/controller/etcdstore"
	"paddock/controller/store"
	"paddock/internal/config"
	"paddock/internal/pki"
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
	f.StringVar(&o.ListenIP, "listen-ip", "", "address to listen at, where --client and --peer name hosts (0.0.0.0: all)")
	f.StringToStringVar(&o.Members, "members", nil, "NAME=URL of every member's --peer, with commas")
	f.BoolVar(&o.Join, "join", false, "the cluster serves already and has been told of this member (etcdctl member add): it takes the place of a lost one")
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
	c.AddCommand(a.storeAccess())
	return c
}

const storeAccessHelp = `Turn the store's access control on: each kind of process may do what it needs and no more, by the role in its certificate. Controllers
follow the catalogue and write only of themselves; routers write the catalogue and stored code; nobody else may do anything, but who
comes with a certificate of the role etcd-admin.

Run it once the members serve, and again after an upgrade: rights that a version needs are added, others taken away. It needs a
store whose members ask for certificates ('paddock store' with --cert does).`

func (a *app) storeAccess() *cobra.Command {
	c := &cobra.Command{
		Use: "access", Short: "Let controllers and routers do in the store only what is theirs", Long: storeAccessHelp, Args: args(),
		Example: `  paddock certs issue --role etcd-admin --name ops --ttl 1h --out certs/ops
  paddock store access --etcd-endpoints https://10.0.0.21:2379 --etcd-ca ca.pem --etcd-cert certs/ops/etcd-admin-ops.pem \
    --etcd-key certs/ops/etcd-admin-ops-key.pem`,
	}
	var e config.Etcd
	bindEtcdFlags(c.Flags(), &e, "")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if err := checkAdmin(e); err != nil {
			return err
		}
		client, err := dialEtcd(cmd.Context(), e, nil)
		if err != nil {
			return platformError("%w", err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), accessTime)
		defer cancel()
		if stranger, err := dialEtcd(ctx, config.Etcd{Endpoints: e.Endpoints, CA: e.CA}, nil); err == nil {
			_ = stranger.Close()
			return usageError("the store takes clients without a certificate: nobody could be told apart; start its members with client certificates first")
		}
		if err := client.SetAccess(ctx, pki.RoleAdmin.CommonName(), storeUsers()); err != nil {
			return platformError("%w", err)
		}
		fmt.Fprintln(a.stdout, "the store has access control: routers, controllers and etcd-admins may do what is theirs, nobody else anything")
		return nil
	})
	return c
}

// accessTime bounds the setting of access control, some twenty small writes.
const accessTime = 30 * time.Second

// storeUsers are who may do what in the store, by the common name of their certificates.
func storeUsers() map[string]store.Access {
	return map[string]store.Access{
		pki.RoleController.CommonName(): store.ControllerAccess(), pki.RoleRouter.CommonName(): store.RouterAccess(),
	}
}

// checkAdmin refuses what would end in a store that its setter cannot reach any more.
func checkAdmin(e config.Etcd) error {
	if err := e.CheckEndpoints(); err != nil {
		return usageError("%w", err)
	}
	if e.Cert == "" {
		return usageError("--etcd-cert and --etcd-key are needed: a certificate of the role %s, which may do everything afterwards", pki.RoleAdmin)
	}
	pair, err := tls.LoadX509KeyPair(e.Cert, e.Key)
	if err != nil {
		return usageError("etcd-cert: %w", err)
	}
	if got := pair.Leaf.Subject.CommonName; got != pki.RoleAdmin.CommonName() {
		return usageError("etcd-cert %s is that of %s: 'paddock certs issue --role %s' makes what is needed", e.Cert, got, pki.RoleAdmin)
	}
	return nil
}

func checkMember(o *etcdstore.MemberOptions) error {
	switch {
	case o.Name == "" || o.Client == "" || o.Peer == "":
		return usageError("--name, --client and --peer are needed: who the member is, and where it is reached")
	case o.Members[o.Name] != o.Peer:
		return usageError("--members must name %s with its --peer %s", o.Name, o.Peer)
	case o.ListenIP != "" && net.ParseIP(o.ListenIP) == nil:
		return usageError("--listen-ip %q: use an address, for example 0.0.0.0", o.ListenIP)
	case o.ListenIP != "" && o.Cert == "":
		return usageError("--listen-ip needs a certificate: without one only addresses of this machine are taken")
	case (o.Cert == "") != (o.Key == "") || (o.Cert == "") != (o.CA == ""):
		return usageError("--cert, --cert-key and --ca belong together: give all or none")
	}
	for _, u := range []string{o.Client, o.Peer} {
		scheme, host, _ := strings.Cut(u, "://")
		if name, _, err := net.SplitHostPort(host); err != nil || o.ListenIP == "" && name != "localhost" && net.ParseIP(name) == nil {
			return usageError("%s: use an address and a port, or a name with --listen-ip", u)
		}
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
