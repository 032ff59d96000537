package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"paddock/cmd/paddock/machine"
)

// defaultTenant is made by `paddock up`, so that the first `paddock run` on a machine needs no preparation.
const defaultTenant = "default"

// maxMessageBytes bounds an answer: the largest value and its logs.
const maxMessageBytes = 64 << 20

// connFlags are the flags that say where the service is and who asks.
type connFlags struct {
	url, key, tenant, ca string
	dataDir              string // of one `paddock up` among several on this machine
}

// target is where a command goes, after flags, environment and discovery.
type target struct {
	addr   string // host:port
	creds  credentials.TransportCredentials
	key    string
	tenant string // "" = the key's own
	// operator says that key is the operator's, found on this machine.
	operator bool
}

// resolve decides where to go: flags, then environment, then a `paddock up` on this machine.
func (a *app) resolve() (*target, error) {
	first := func(flag, env string) string {
		if flag != "" {
			return flag
		}
		return a.getenv(env)
	}
	t := &target{tenant: first(a.conn.tenant, "PADDOCK_TENANT")}
	key, err := readKey(first(a.conn.key, "PADDOCK_KEY"))
	if err != nil {
		return nil, err
	}
	t.key = key
	if where := first(a.conn.url, "PADDOCK_URL"); where != "" {
		err := t.byURL(where, first(a.conn.ca, "PADDOCK_CA"))
		if addr := a.getenv("PADDOCK_GRPC"); addr != "" && a.conn.url == "" {
			t.addr = addr
		}
		return t, err
	}
	return t, t.byDiscovery(runBase(a.getenv), first(a.conn.dataDir, "PADDOCK_DATA_DIR"))
}

// runBase is where running services leave their records.
func runBase(getenv func(string) string) string {
	if dir := getenv("PADDOCK_RUN_DIR"); dir != "" {
		return dir
	}
	return machine.DefaultRunBase
}

func readKey(key string) (string, error) {
	file, isFile := strings.CutPrefix(key, "@")
	if !isFile {
		return key, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", usageError("key file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (t *target) byURL(where, caFile string) error {
	u, err := url.Parse(where)
	if err != nil || u.Host == "" {
		return usageError("url %q: use http://host:port or https://host:port", where)
	}
	port := u.Port()
	switch u.Scheme {
	case "http", "grpc":
		t.creds = insecure.NewCredentials()
		if port == "" {
			port = "80"
		}
	case "https", "grpcs":
		pool, err := readCA(caFile)
		if err != nil {
			return err
		}
		t.creds = credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
		if port == "" {
			port = "443"
		}
	default:
		return usageError("url %q: use http:// or https://", where)
	}
	t.addr = net.JoinHostPort(u.Hostname(), port)
	return nil
}

func readCA(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError("certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usageError("certificate authority %s: no PEM certificate in it", file)
	}
	return pool, nil
}

// byDiscovery goes to the one service that runs on this machine, or to that of a data directory.
func (t *target) byDiscovery(base, dataDir string) error {
	running, err := machine.Running(base)
	if dataDir != "" {
		dataDir, _ = filepath.Abs(dataDir)
		running = slices.DeleteFunc(running, func(r machine.Record) bool { return r.DataDir != dataDir })
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return usageError("no service named: give --url and --key, or PADDOCK_URL and PADDOCK_KEY " +
			"(a 'paddock up' on this machine is found only by root)")
	case err != nil:
		return err
	case len(running) == 0 && dataDir != "":
		return platformError("no 'paddock up' runs on this machine with data directory %s", dataDir)
	case len(running) == 0:
		return platformError("no 'paddock up' runs on this machine: start one, or give --url and --key (PADDOCK_URL, PADDOCK_KEY)")
	case len(running) > 1:
		var all []string
		for _, r := range running {
			all = append(all, fmt.Sprintf("  %s  data directory %s", r.HTTP, r.DataDir))
		}
		return usageError("several 'paddock up' run on this machine, choose one with --data-dir or PADDOCK_DATA_DIR:\n%s",
			strings.Join(all, "\n"))
	}
	return t.byRecord(running[0])
}

// byRecord goes to a service that runs on this machine, with its operator's key unless another was given. Its certificate,
// if it has one, is compared with the file that it is read from: the name in it need not be this machine's loopback.
func (t *target) byRecord(r machine.Record) error {
	t.addr = r.Dial()
	t.creds = insecure.NewCredentials()
	if r.TLSCert != "" {
		pair, err := os.ReadFile(r.TLSCert)
		if err != nil {
			return err
		}
		t.creds = credentials.NewTLS(pinned(r.TLSCert, pair))
	}
	if t.key == "" {
		key, err := readKey("@" + r.KeyFile)
		if err != nil {
			return err
		}
		t.key = key
		t.operator = true
	}
	return nil
}

// pinned accepts exactly the certificates of one PEM file, of which it is told the content.
func pinned(file string, pemBytes []byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // replaced by the comparison below
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			for _, known := range derOf(pemBytes) {
				if len(raw) > 0 && bytes.Equal(known, raw[0]) {
					return nil
				}
			}
			return fmt.Errorf("the service's certificate is not the one in %s", file)
		},
	}
}

// dial connects and returns the connection and a context that carries the key and, if there is one, the tenant.
func dial(ctx context.Context, t *target) (*grpc.ClientConn, context.Context, error) {
	if t.key == "" {
		return nil, nil, usageError("no API key: give --key or PADDOCK_KEY (the operator's is in the data directory's operator.key)")
	}
	cc, err := grpc.NewClient("passthrough:///"+t.addr, grpc.WithTransportCredentials(t.creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithUserAgent("paddock/"+release()))
	if err != nil {
		return nil, nil, platformError("%s: %w", t.addr, err)
	}
	pairs := []string{"authorization", "Bearer " + t.key}
	if t.tenant != "" {
		pairs = append(pairs, "paddock-tenant", t.tenant)
	}
	return cc, metadata.AppendToOutgoingContext(ctx, pairs...), nil
}

// with runs f on a connection. The tenant is named only if flag or environment do.
func (a *app) with(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	t, err := a.resolve()
	if err != nil {
		return err
	}
	return onConn(ctx, t, f)
}

// withTenant is with for what happens within one tenant: the operator on the service's own machine who names none acts for
// the default one.
func (a *app) withTenant(ctx context.Context, f func(context.Context, *grpc.ClientConn, string) error) error {
	t, err := a.resolve()
	if err != nil {
		return err
	}
	if t.operator && t.tenant == "" {
		t.tenant = defaultTenant
	}
	return onConn(ctx, t, func(ctx context.Context, cc *grpc.ClientConn) error { return f(ctx, cc, t.tenant) })
}

func onConn(ctx context.Context, t *target, f func(context.Context, *grpc.ClientConn) error) error {
	cc, ctx, err := dial(ctx, t)
	if err != nil {
		return err
	}
	defer cc.Close()
	return f(ctx, cc)
}
