package router

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

func TestCrowdCountsByAddress(t *testing.T) {
	c := newCrowd(5, 2)
	var leave []func()
	enter := func(remote, want string) {
		t.Helper()
		l, why := c.enter(remote)
		if why != want {
			t.Fatalf("%s: %q, want %q", remote, why, want)
		}
		if l != nil {
			leave = append(leave, l)
		}
	}
	enter("10.0.0.1:1", "")
	enter("[::ffff:10.0.0.1]:2", "") // the same host
	enter("10.0.0.1:3", crowdAddress)
	enter("[2001:db8::1]:1", "")
	enter("[2001:db8::ffff:1]:1", "") // its network
	enter("[2001:db8::2%eth0]:1", crowdAddress)
	enter("[2001:db8:0:1::1]:1", "")
	enter("10.0.0.2:1", crowdFull)
	for _, l := range leave {
		l()
		l() // does not count twice
	}
	if c.all != 0 || len(c.counts) != 0 {
		t.Errorf("%d are left: %v", c.all, c.counts)
	}
	enter("@", "") // no address at all
}

// dialFrom connects to addr from one of this machine's own loopback addresses.
func dialFrom(t testing.TB, from, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// One connection too many hears why in its own protocol, whoever is in time is served, and places come back.
func TestConnectionsAreCappedWithAWord(t *testing.T) {
	g := newRig(t, func(c *Config) { c.MaxConns, c.MaxConnsPerAddress = 6, 4 })
	addr := strings.TrimPrefix(g.url, "http://")
	plain := "POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: a\r\nAuthorization: " + bearerOf("acme-invoke") + "\r\nContent-Length: 1\r\n\r\n1"
	unusual := "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" // handed on: it keeps its place
	ask := func(c net.Conn, text string) (int, problem, http.Header) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(testenv.Patience(20 * time.Second)))
		go io.WriteString(c, text)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		var p problem
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 {
			if err := json.Unmarshal(b, &p); err != nil {
				t.Errorf("%s: %v", b, err)
			}
			if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
				t.Errorf("behind the refusal: %q, %v", rest, err)
			}
		}
		return res.StatusCode, p, res.Header
	}
	var open []net.Conn
	for i := range 4 {
		c := dialFrom(t, "127.0.0.1", addr)
		if code, _, _ := ask(c, []string{plain, unusual}[i%2]); code != 200 {
			t.Fatalf("connection %d: %d", i, code)
		}
		open = append(open, c)
	}
	code, p, h := ask(dialFrom(t, "127.0.0.1", addr), plain+strings.Repeat("x", 10_000))
	if code != 503 || p.Kind != "no_capacity" || !strings.Contains(p.Detail, "from this address: 4") || p.Started != "no" ||
		h.Get("Retry-After") != "1" || h.Get("Paddock-Error") != "no_capacity" {
		t.Errorf("one too many of an address: %d %+v %v", code, p, h)
	}
	for i := range 2 {
		if code, _, _ := ask(dialFrom(t, "127.0.0.2", addr), plain); code != 200 {
			t.Errorf("another address, connection %d: %d", i, code)
		}
	}
	if code, p, _ := ask(dialFrom(t, "127.0.0.3", addr), plain); code != 503 || !strings.Contains(p.Detail, "6 are open") {
		t.Errorf("one too many in all: %d %+v", code, p)
	}
	if got := g.sums()["paddock_connections_refused_total"]; got != 2 {
		t.Errorf("%g connections counted as refused", got)
	}
	open[0].Close()
	open[1].Close()
	eventually(t, func() bool {
		c := dialFrom(t, "127.0.0.3", addr)
		defer c.Close()
		code, _, _ := ask(c, plain)
		return code == 200
	})
}

func TestGRPCConnectionsAreCappedWithAWord(t *testing.T) {
	g := newRig(t, func(c *Config) { c.MaxConns, c.MaxConnsPerAddress = 8, 1 })
	client := pb.NewSandboxClient(g.conn)
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1")); err != nil {
		t.Fatal(err)
	}
	c := dialFrom(t, "127.0.0.1", g.grpcAddr)
	_ = c.SetDeadline(time.Now().Add(testenv.Patience(20 * time.Second)))
	go io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(io.Discard, c)
	if first, err := f.ReadFrame(); err != nil || first.Header().Type != http2.FrameSettings {
		t.Fatalf("%v, %v", first, err)
	}
	second, err := f.ReadFrame()
	away, ok := second.(*http2.GoAwayFrame)
	if !ok || away.ErrCode != http2.ErrCodeEnhanceYourCalm || !strings.Contains(string(away.DebugData()), "from this address: 1") {
		t.Errorf("%v, %v", second, err)
	}
	if _, err := f.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection goes on: %v", err)
	}
	if _, err := client.Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1")); err != nil {
		t.Errorf("who was there before: %v", err)
	}
}

// What needs no credential is bounded by address: streams that never end do not add up.
func TestPublicStreamsAreBounded(t *testing.T) {
	g := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := 0
	for range maxPublicAddress + 10 {
		s, err := reflectionpb.NewServerReflectionClient(g.conn).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"}})
		if _, err := s.Recv(); err == nil {
			open++
		} else if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "without a credential") {
			t.Fatal(err)
		}
	}
	if open != maxPublicAddress {
		t.Errorf("%d streams were opened", open)
	}
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest("1")); err != nil {
		t.Errorf("a call meanwhile: %v", err)
	}
	cancel()
	eventually(t, func() bool {
		g.router.public.mu.Lock()
		defer g.router.public.mu.Unlock()
		return g.router.public.all == 0
	})
}

// A tenant's streams of calls are as many as its calls may be.
func TestInvokeStreamsAreBounded(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Concurrency = 3 })
	ctx, cancel := context.WithCancel(ctxAs(t.Context(), "acme-invoke"))
	defer cancel()
	call := func(s grpc.BidiStreamingClient[pb.InvokeStreamRequest, pb.InvokeStreamResponse]) error {
		_ = s.Send(&pb.InvokeStreamRequest{Tag: 1, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("1")}})
		_, err := s.Recv()
		return err
	}
	client := pb.NewSandboxClient(g.conn)
	for range 3 {
		s, err := client.InvokeStream(ctx)
		if err != nil || call(s) != nil {
			t.Fatal(err)
		}
	}
	s, err := client.InvokeStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := call(s); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "its limit is 3") {
		t.Errorf("the fourth: %v", err)
	}
	s, err = client.InvokeStream(ctxAs(t.Context(), "other-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	if err := call(s); status.Code(err) == codes.ResourceExhausted {
		t.Errorf("another tenant: %v", err)
	}
	_ = s.CloseSend()
	cancel()
	eventually(t, func() bool {
		s, err := client.InvokeStream(ctxAs(t.Context(), "acme-invoke"))
		defer s.CloseSend()
		return err == nil && call(s) == nil
	})
}
