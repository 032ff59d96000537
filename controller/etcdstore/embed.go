package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"paddock/controller/store"
)

// Defaults of EmbedOptions.
const (
	DefaultQuotaBytes   = 2 << 30
	DefaultMinFreeBytes = 96 << 20 // a log segment is 64 MiB and is allocated ahead
	startTimeout        = 60 * time.Second
	closeTimeout        = 10 * time.Second
	// History kept for watches that resume.
	compactAfter = "10m"
)

// memberURL is the name by which a server that is a cluster of its own knows itself. Nothing listens there and nobody
// dials it.
const memberURL = "http://localhost:2380"

// EmbedOptions say where and how a server runs inside this process.
type EmbedOptions struct {
	Dir string // its data; made 0700 if absent
	// ClientSocket is a unix socket to serve other processes on, in a directory that only root can enter; "": none, which
	// leaves the server no listener at all.
	ClientSocket string
	QuotaBytes   int64 // of the database; 0 = DefaultQuotaBytes. Beyond it writes fail with store.ErrNoSpace
	// MinFreeBytes is refused to writes: etcd ends its process's use of it when the disk is full, so the last of the disk
	// is left to what it writes by itself. 0 = DefaultMinFreeBytes, negative = none.
	MinFreeBytes int64
	Logger       *slog.Logger
}

// Embedded is a Store whose server runs in this process, reached by function calls. Every acknowledged write has been
// synced to disk.
type Embedded struct {
	*Store
	server *embed.Etcd
	fault  *fault
	once   sync.Once
}

// Embed starts a server on o.Dir and waits until it serves.
func Embed(ctx context.Context, o EmbedOptions) (*Embedded, error) {
	log := orDiscard(o.Logger)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcdstore: %w", err)
	}
	free := freeSpace(o.Dir, o.MinFreeBytes)
	if err := free(); err != nil {
		return nil, fmt.Errorf("etcdstore: cannot start: %w", err)
	}
	f := &fault{dead: make(chan struct{}), log: log}
	server, err := start(ctx, configure(o, f), f)
	if err != nil {
		return nil, fmt.Errorf("etcdstore: starting etcd in %s: %w", o.Dir, err)
	}
	s := newStore(v3client.New(server.Server), log)
	s.dead = f.dead
	s.writable = free
	return &Embedded{Store: s, server: server, fault: f}, nil
}

func configure(o EmbedOptions, f *fault) *embed.Config {
	member, _ := url.Parse(memberURL)
	c := embed.NewConfig()
	c.Dir = o.Dir
	c.ListenPeerUrls, c.ListenClientUrls = nil, nil
	c.AdvertisePeerUrls, c.AdvertiseClientUrls = []url.URL{*member}, []url.URL{*member}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	if o.ClientSocket != "" {
		socket := url.URL{Scheme: "unix", Path: o.ClientSocket}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{socket}, []url.URL{socket}
	}
	c.QuotaBackendBytes = o.QuotaBytes
	if c.QuotaBackendBytes == 0 {
		c.QuotaBackendBytes = DefaultQuotaBytes
	}
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compactAfter
	c.MaxTxnOps = store.MaxTxnOps
	c.EnableGRPCGateway = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: f.log},
		zap.WithFatalHook(f), zap.WithPanicHook(f)))
	return c
}

// start runs the server's start in a goroutine of its own: what etcd cannot stand ends that goroutine (see fault).
func start(ctx context.Context, c *embed.Config, f *fault) (*embed.Etcd, error) {
	type outcome struct {
		server *embed.Etcd
		err    error
	}
	started := make(chan outcome, 1)
	go func() {
		server, err := embed.StartEtcd(c)
		started <- outcome{server, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var o outcome
	select {
	case o = <-started:
	case <-f.dead:
		return nil, f.cause()
	}
	if o.err != nil {
		return nil, o.err
	}
	select {
	case <-o.server.Server.ReadyNotify():
		return o.server, nil
	case <-f.dead:
		return nil, f.cause()
	case err := <-o.server.Err():
		o.server.Close()
		return nil, err
	case <-ctx.Done():
		o.server.Close()
		return nil, fmt.Errorf("not ready: %w", ctx.Err())
	}
}

// Failed is closed when the server met something that it cannot go on with, as a disk that fails its writes. From then on
// every call is store.ErrUnavailable; only a new process can start it again.
func (e *Embedded) Failed() <-chan struct{} { return e.fault.dead }

// Cause says why Failed is closed, and nil before.
func (e *Embedded) Cause() error { return e.fault.cause() }

// Close ends the client and the server; what was acknowledged is on disk either way.
func (e *Embedded) Close() error {
	var err error
	e.once.Do(func() {
		err = e.Store.Close()
		closed := make(chan struct{})
		go func() {
			e.server.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-e.fault.dead:
		case <-time.After(closeTimeout):
			err = errors.Join(err, errors.New("etcdstore: the server did not stop in time"))
		}
	})
	return err
}

// fault catches what etcd would end the process for. Code of tenants that is being served must not die with the store,
// so the goroutine that met the fault ends and the server counts as gone.
type fault struct {
	log  *slog.Logger
	once sync.Once
	dead chan struct{}
	mu   sync.Mutex
	err  error
}

// OnWrite implements zapcore.CheckWriteHook.
func (f *fault) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	f.once.Do(func() {
		enc := zapcore.NewMapObjectEncoder()
		for _, field := range fields {
			field.AddTo(enc)
		}
		f.mu.Lock()
		f.err = fmt.Errorf("%w: %s: %v", store.ErrUnavailable, e.Message, enc.Fields["error"])
		f.mu.Unlock()
		close(f.dead)
		f.log.Error("the embedded store failed; restart the process once the cause is mended", "err", f.cause())
	})
	runtime.Goexit()
}

func (f *fault) cause() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// freeSpace returns a check that the disk of dir has room left for etcd's own needs.
func freeSpace(dir string, least int64) func() error {
	if least == 0 {
		least = DefaultMinFreeBytes
	}
	return func() error {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, dir, err)
		}
		if free := int64(st.Bavail) * st.Bsize; free < least {
			return fmt.Errorf("%w: the disk of %s has %d MiB left, %d are needed",
				store.ErrNoSpace, dir, free>>20, least>>20)
		}
		return nil
	}
}

// ServerPuts reads etcd's own counter of keys put by the servers of this process since it started: the store's word, to
// hold against what its users believe that they wrote.
func ServerPuts(g prometheus.Gatherer) (int64, error) {
	families, err := g.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() == "etcd_mvcc_put_total" && len(f.GetMetric()) > 0 {
			return int64(f.GetMetric()[0].GetCounter().GetValue()), nil
		}
	}
	return 0, errors.New("etcdstore: etcd's put counter is not registered")
}
