package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"paddock/internal/testenv"
)

// certificate writes a self-signed one for 127.0.0.1 and returns its files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "paddock test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	s := newSite(t, "oci", "runc", "--tls-cert", cert, "--tls-key", key, "--http", "0.0.0.0:0", "--grpc", "[::]:0")
	s.start()
	if !strings.HasPrefix(s.HTTP, "https://127.0.0.1:") {
		t.Errorf("the address is %s", s.HTTP)
	}
	s.cliAs(nil, counter, "run", "-").want(t, 0, "1", "") // found on this machine: the certificate is pinned
	operator := "@" + filepath.Join(s.data, "operator.key")
	env := map[string]string{"PADDOCK_URL": s.HTTP, "PADDOCK_KEY": operator, "PADDOCK_TENANT": "default"}
	s.cliAs(env, counter, "run", "-").want(t, exitPlatform, "", "certificate")
	env["PADDOCK_CA"] = cert
	s.cliAs(env, counter, "run", "-").want(t, 0, "2", "")
	env["PADDOCK_URL"] = strings.Replace(s.HTTP, "https", "http", 1)
	if r := s.cliAs(env, counter, "run", "-"); r.code == 0 {
		t.Error("served in the clear")
	}
	replaceBy := func(path, other string) {
		t.Helper()
		b, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Another certificate in the file than the one that is served: without its key it is not taken.
	other, otherKey := certificate(t)
	replaceBy(cert, other)
	s.cliAs(nil, counter, "run", "-").want(t, exitPlatform, "", "not the one in "+cert)
	// With it, it is served without a restart.
	replaceBy(key, otherKey)
	testenv.Await(t, "the new certificate", func() bool { return s.cliAs(nil, counter, "run", "-").code == 0 })
	env["PADDOCK_URL"] = s.HTTP
	s.cliAs(env, counter, "run", "-").want(t, 0, "", "")
}

// spanSink is an OTLP collector that remembers names.
type spanSink struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	names []string
}

func (s *spanSink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, span := range ss.GetSpans() {
				s.names = append(s.names, span.GetName())
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTracesGoWhereTheEnvironmentSays(t *testing.T) {
	sink := &spanSink{}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, sink)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Stop()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	s := newSite(t, "oci", "runc")
	s.start()
	s.cliAs(nil, counter, "run", "-").want(t, 0, "1", "")
	s.stop(syscall.SIGTERM) // sends what is left
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if got := strings.Join(sink.names, " "); !strings.Contains(got, "paddock.call") {
		t.Errorf("spans: %q", got)
	}
}
