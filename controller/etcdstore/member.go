package etcdstore

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"paddock/controller/store"
)

// MemberOptions say what one member of a cluster is. Cert, Key and CA, all or none, make every connection mutual TLS.
type MemberOptions struct {
	Dir     string
	Name    string
	Client  string            // URL at which routers and controllers reach it
	Peer    string            // URL at which the other members do
	Members map[string]string // peer URLs of all of them by name, its own too
	Join    bool              // the cluster serves already, and has been told of this member
	// ListenIP is the address to listen at where Client and Peer name hosts; "": theirs, which then are addresses.
	ListenIP string
	Cert     string
	Key      string
	CA       string
	Logger   *slog.Logger
}

// Member is one member of a cluster in this process.
type Member struct {
	server *embed.Etcd
	fault  *fault
}

// RunMember starts a member and waits until the cluster has a leader. Who starts the first ones starts a majority of them at a
// time: none serves before.
func RunMember(ctx context.Context, o MemberOptions) (*Member, error) {
	log := orDiscard(o.Logger)
	c, err := o.configure()
	if err != nil {
		return nil, fmt.Errorf("etcdstore: %w", err)
	}
	f := &fault{dead: make(chan struct{}), log: log}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: log}, zap.WithFatalHook(f), zap.WithPanicHook(f)))
	server, err := start(ctx, c, f)
	if err != nil {
		return nil, fmt.Errorf("etcdstore: member %s: %w", o.Name, err)
	}
	return &Member{server: server, fault: f}, nil
}

func (o *MemberOptions) configure() (*embed.Config, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	client, err := url.Parse(o.Client)
	if err != nil {
		return nil, err
	}
	peer, err := url.Parse(o.Peer)
	if err != nil {
		return nil, err
	}
	c := embed.NewConfig()
	c.Name, c.Dir = o.Name, o.Dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{o.listen(*client)}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{o.listen(*peer)}, []url.URL{*peer}
	var all []string
	for name, at := range o.Members {
		all = append(all, name+"="+at)
	}
	c.InitialCluster = strings.Join(all, ",")
	if o.Join {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	c.QuotaBackendBytes = DefaultQuotaBytes
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compactAfter
	c.MaxTxnOps = store.MaxTxnOps
	c.EnableGRPCGateway = false
	if o.Cert != "" {
		tls := transport.TLSInfo{CertFile: o.Cert, KeyFile: o.Key, TrustedCAFile: o.CA, ClientCertAuth: true}
		c.ClientTLSInfo, c.PeerTLSInfo = tls, tls
	}
	return c, nil
}

// listen is where to listen for who comes to u.
func (o *MemberOptions) listen(u url.URL) url.URL {
	if o.ListenIP != "" {
		u.Host = net.JoinHostPort(o.ListenIP, u.Port())
	}
	return u
}

// Failed is closed when the member met something that it cannot go on with; Cause says what.
func (m *Member) Failed() <-chan struct{} { return m.fault.dead }

// Cause says why Failed is closed, and nil before.
func (m *Member) Cause() error { return m.fault.cause() }

// Close stops the member.
func (m *Member) Close() error {
	m.server.Close()
	return nil
}
