package router

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"paddock/internal/call"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func TestOneLinePerCall(t *testing.T) {
	g := newRig(t, nil)
	hostile := &errs.Error{Kind: errs.UserError, Message: "threw", Thrown: &errs.Thrown{Message: "planted-text"}}
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		if string(req.Body) == "2" {
			return nil, hostile
		}
		return okResult(nil), nil
	}
	ids := []string{}
	for _, input := range []string{"1", "2", "{"} {
		ids = append(ids, g.do("POST", "/v1/functions/echo/invoke", input).header.Get("Paddock-Call-Id"))
	}
	lines := map[string]map[string]any{}
	for line := range strings.Lines(g.logs.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		id, _ := l["call"].(string)
		if l["msg"] != "call" || lines[id] != nil {
			t.Errorf("unexpected line %s", line)
		}
		lines[id] = l
	}
	for i, outcome := range []string{"ok", "user_error", "invalid"} {
		if l := lines[ids[i]]; l["outcome"] != outcome || l["tenant"] != "acme" || l["key"] != "acme-invoke" {
			t.Errorf("call %d: %v", i, l)
		}
	}
	if lines[ids[0]]["run_us"] != 1500.0 || lines[ids[0]]["start"] != "warm" {
		t.Errorf("%v", lines[ids[0]])
	}
	if log := g.logs.String(); strings.Contains(log, "planted-text") || strings.Contains(log, "secret-acme") {
		t.Errorf("the log has what it must not have: %s", log)
	}
}

func TestManagementLeavesALine(t *testing.T) {
	g := newRig(t, nil)
	g.do("POST", "/v1/tenants", `{"id":"new"}`, "Authorization: "+bearerOf("op"))
	log := g.logs.String()
	for _, want := range []string{`"method":"/paddock.v1.Catalog/CreateTenant"`, `"key":"op"`, `"outcome":"ok"`} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in %s", want, log)
		}
	}
}

func TestMetricsOfCalls(t *testing.T) {
	g := newRig(t, nil)
	g.do("POST", "/v1/functions/echo/invoke", "1")
	g.do("POST", "/v1/functions/echo/invoke", "{")
	g.do("POST", "/v1/functions/echo/invoke", "1", "Authorization: Bearer x.y")
	body := g.do("GET", "/metrics", "").body
	for _, want := range []string{
		`paddock_calls_total{outcome="ok",start="warm",transport="http"} 1`,
		`paddock_calls_total{outcome="invalid",start="none",transport="http"} 1`,
		`paddock_calls_accepted_total 2`, `paddock_calls_in_flight 0`,
		`paddock_auth_failures_total{reason="unknown"} 1`,
		`paddock_call_stage_seconds_count{stage="run"} 1`, `paddock_call_stage_seconds_count{stage="total"} 2`,
		`paddock_catalog_age_seconds 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("%s is not there", want)
		}
	}
	if strings.Contains(body, "acme") || strings.Contains(body, "echo") {
		t.Error("a label has a tenant's text")
	}
}

func TestSpansAreTheCallersChildren(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	g := newRig(t, func(c *Config) { c.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)) })
	var seen string
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		if req.HTTP != nil {
			for _, h := range req.HTTP.Headers {
				if h.Name == "traceparent" {
					seen += h.Value
				}
			}
		}
		return okResult([]byte("1")), nil
	}
	const trace = "0af7651916cd43dd8448eb211c80319c"
	parent := "Traceparent: 00-" + trace + "-b7ad6b7169203331-01"
	g.do("POST", "/v1/functions/echo/invoke", "1", parent)
	g.do("GET", "/v1/functions/echo/http/", "", parent)
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke", "traceparent",
		"00-"+trace+"-b7ad6b7169203331-01"), echoRequest("1")); err != nil {
		t.Fatal(err)
	}
	ended := spans.Ended()
	if len(ended) != 6 {
		t.Fatalf("%d spans", len(ended))
	}
	for _, s := range ended {
		if s.SpanContext().TraceID().String() != trace || s.EndTime().IsZero() {
			t.Errorf("%s in trace %s", s.Name(), s.SpanContext().TraceID())
		}
	}
	if !strings.Contains(seen, trace) || strings.Contains(seen, "b7ad6b7169203331") || len(seen) != 55 {
		t.Errorf("the function saw %q", seen)
	}
}

// selfSigned is a certificate for 127.0.0.1 and the pool that trusts it.
func selfSigned(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func TestTLSAndHTTP2(t *testing.T) {
	server, pool := selfSigned(t)
	g := newRig(t, func(c *Config) { c.TLS = server })
	g.url = "https" + strings.TrimPrefix(g.url, "http")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	g.client = &http.Client{Transport: transport}
	g.node.do = func(_ context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
		if req.Via == call.ViaValue {
			return okResult(req.Body), nil
		}
		_ = sink.Head(200, nil)
		b := make([]byte, 5)
		_, _ = io.ReadFull(req.Stream, b)
		_ = sink.Data(b)
		return nil, errs.New(errs.UserError, "threw")
	}
	if a := g.do("POST", "/v1/functions/echo/invoke", `"x"`); a.status != 200 || a.body != `"x"` {
		t.Errorf("%d %s", a.status, a.body)
	}
	req, _ := http.NewRequest("POST", g.url+"/v1/functions/echo/http/", io.MultiReader(strings.NewReader("hello, and more")))
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if res.ProtoMajor != 2 || string(b) != "hello" || err == nil {
		t.Errorf("%s %q %v: want HTTP/2, cut by RST_STREAM", res.Proto, b, err)
	}
	_ = res.Body.Close()
	conn, err := grpc.NewClient(g.grpcAddr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewSandboxClient(conn).Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1")); err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	transport.CloseIdleConnections()
}

func TestFailuresSayWhereTheTimeWent(t *testing.T) {
	g := newRig(t, nil)
	for _, where := range []*call.Result{nil, okResult(nil)} {
		g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
			return where, errs.New(errs.Timeout, "too long")
		}
		stages, container := "queue;dur=0.000", ""
		if where != nil {
			stages, container = "queue;dur=0.001, assign;dur=0.000, load;dur=0.000, run;dur=1.500", string(where.Container)
		}
		a := g.do("POST", "/v1/functions/echo/invoke", `1`)
		if timing := a.header.Get("Server-Timing"); a.status != 504 || !strings.HasPrefix(timing, stages) ||
			strings.HasSuffix(timing, "total;dur=0.000") || a.header.Get("Paddock-Container") != container {
			t.Errorf("%v: %d %v", where, a.status, a.header)
		}
		var trailer metadata.MD
		_, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1"), grpc.Trailer(&trailer))
		if timing := strings.Join(trailer.Get("server-timing"), ""); err == nil || !strings.HasPrefix(timing, stages) ||
			strings.Join(trailer.Get("paddock-container"), "") != container {
			t.Errorf("%v: %v %v", where, trailer, err)
		}
	}
	if text := g.do("GET", "/metrics", "").body; !strings.Contains(text, `start="warm"`) || !strings.Contains(text, `start="none"`) {
		t.Errorf("by what calls found: %s", text)
	}
}
