package router

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"paddock/internal/audit"
	"paddock/internal/testenv"
	"paddock/proto"
)

// rig is a router on two loopback ports with everything around it faked.
type rig struct {
	t        testing.TB
	router   *Router
	node     *fakeNode
	cat      *fakeCatalogue
	services *fakeServices
	source   *fakeSource
	keys     *fakeKeys
	registry *prometheus.Registry
	logs     *testenv.Log
	audit    *audit.Log
	url      string
	grpcAddr string
	conn     *grpc.ClientConn
	client   *http.Client
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	g := &rig{t: t, node: &fakeNode{}, cat: newCatalogue(), services: &fakeServices{}, source: &fakeSource{name: "c1"}, keys: &fakeKeys{},
		registry: prometheus.NewRegistry(), logs: &testenv.Log{}}
	cfg := Config{
		Catalogue: g.cat, Keyring: g.cat, Nodes: OneNode(g.node),
		Catalog: g.services, Keys: g.keys, Pools: g.services, Logs: OneLogSource(g.source),
		OpenAPI: proto.OpenAPI(), Registerer: g.registry, Gatherer: g.registry,
		Logger: slog.New(slog.NewJSONHandler(g.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	log, err := audit.Open(audit.Options{Dir: filepath.Join(t.TempDir(), "audit")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	cfg.Audit = log
	if change != nil {
		change(&cfg)
	}
	g.audit = cfg.Audit
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.router = r
	h, gl := listen(t), listen(t)
	g.url, g.grpcAddr = "http://"+h.Addr().String(), gl.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.Serve(h, gl) }()
	g.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}
	if g.conn, err = grpc.NewClient(g.grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	r.SetReady(true)
	t.Cleanup(func() {
		_ = g.conn.Close()
		g.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if n := r.InFlight(); n != 0 {
			t.Errorf("%d calls are still in flight", n)
		}
	})
	return g
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// answerOf is an answer read whole.
type answerOf struct {
	status  int
	header  http.Header
	body    string
	problem problem
}

// do sends a request as acme's invoke key unless fields say otherwise ("Name: value").
func (g *rig) do(method, path, body string, fields ...string) answerOf {
	g.t.Helper()
	req, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		if value == "" {
			req.Header.Del(name)
			continue
		}
		req.Header.Set(name, value)
	}
	res, err := g.client.Do(req)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	a := answerOf{status: res.StatusCode, header: res.Header, body: string(b)}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(b, &a.problem); err != nil {
			g.t.Fatalf("problem %s: %v", b, err)
		}
	}
	if len(res.Header.Get("Paddock-Call-Id")) != 32 {
		g.t.Errorf("%s %s: Paddock-Call-Id is %q", method, path, res.Header.Get("Paddock-Call-Id"))
	}
	return a
}

// ctxAs is a client's context with a key.
func ctxAs(ctx context.Context, key string, more ...string) context.Context {
	if key != "" {
		more = append(more, "authorization", bearerOf(key))
	}
	return metadata.AppendToOutgoingContext(ctx, more...)
}

// idle fails if anything is left in flight.
func (g *rig) idle() {
	g.t.Helper()
	if n := g.router.InFlight(); n != 0 {
		g.t.Errorf("%d calls are in flight", n)
	}
	var sums map[string]float64
	// a call whose slot is back may still be about to be counted
	for end := time.Now().Add(testenv.Patience(20 * time.Second)); ; time.Sleep(time.Millisecond) {
		sums = g.sums()
		if sums["paddock_calls_accepted_total"] == sums["paddock_calls_total"] || time.Now().After(end) {
			break
		}
	}
	if sums["paddock_calls_in_flight"] != 0 {
		g.t.Errorf("the gauge says %g in flight", sums["paddock_calls_in_flight"])
	}
	if a, b := sums["paddock_calls_accepted_total"], sums["paddock_calls_total"]; a != b {
		g.t.Errorf("accepted %g, ended %g", a, b)
	}
}

// sums adds up the samples of each metric.
func (g *rig) sums() map[string]float64 {
	g.t.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	sums := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sums[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sums
}
