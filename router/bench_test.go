package router

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"paddock/internal/call"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

const benchInput = `{"user":{"email":"a@b.c"}}`

// benchRig is a rig whose tenant has no limits that a benchmark would meet, and whose log goes nowhere.
func benchRig(b *testing.B) *rig {
	g := newRig(b, func(c *Config) { c.Logger = slog.New(slog.NewJSONHandler(io.Discard, nil)) })
	g.cat.addTenant("acme", func(p *tenant.Policy) {
		p.Concurrency, p.RatePerSecond, p.RateBurst = 10_000, 1e9, 1_000_000_000
	})
	answer := []byte(`{"ok":true,"user":{"email":"a@b.c","name":"x"}}`)
	g.node.do = func(context.Context, *call.Request, call.Sink) (*call.Result, error) { return okResult(answer), nil }
	return g
}

// BenchmarkInvokeHTTP is one keep-alive connection with a client that costs next to nothing, over loopback.
// Allocations are the server's.
func BenchmarkInvokeHTTP(b *testing.B) {
	g := benchRig(b)
	run := func(b *testing.B, connections int) {
		request := "POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: x\r\nAuthorization: " + bearerOf("acme-invoke") +
			"\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n" + benchInput
		var wg sync.WaitGroup
		b.ReportAllocs()
		b.ResetTimer()
		for c := range connections {
			n := b.N / connections
			if c < b.N%connections {
				n++
			}
			wg.Go(func() { rawCalls(b, strings.TrimPrefix(g.url, "http://"), request, n) })
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	}
	b.Run("c=1", func(b *testing.B) { run(b, 1) })
	b.Run("c=32", func(b *testing.B) { run(b, 32) })
}

// BenchmarkBareHTTP is net/http with nothing behind it, for comparison with BenchmarkInvokeHTTP in the same run.
func BenchmarkBareHTTP(b *testing.B) {
	l := listen(b)
	answer := []byte(`{"ok":true,"user":{"email":"a@b.c","name":"x"}}`)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	})}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	request := "POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: x\r\nAuthorization: " + bearerOf("acme-invoke") +
		"\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n" + benchInput
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range 32 {
		n := b.N / 32
		if c < b.N%32 {
			n++
		}
		wg.Go(func() { rawCalls(b, l.Addr().String(), request, n) })
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

var statusPrefix, okStatus, lengthPrefix = []byte("HTTP/1.1 "), []byte("200"), []byte("Content-Length: ")

// rawCalls sends the request n times and reads the answers by their Content-Length.
func rawCalls(b *testing.B, addr, request string, n int) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range n {
		if _, err := io.WriteString(conn, request); err != nil {
			b.Error(err)
			return
		}
		length := 0
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Error(err)
				return
			}
			if len(line) == 2 {
				break
			}
			if bytes.HasPrefix(line, statusPrefix) && !bytes.HasPrefix(line[9:], okStatus) {
				b.Errorf("%s", line)
				return
			}
			if rest, ok := bytes.CutPrefix(line, lengthPrefix); ok {
				for _, d := range rest[:len(rest)-2] {
					length = length*10 + int(d-'0')
				}
			}
		}
		if _, err := r.Discard(length); err != nil {
			b.Error(err)
			return
		}
	}
}

func BenchmarkInvokeGRPC(b *testing.B) {
	g := benchRig(b)
	client := pb.NewSandboxClient(g.conn)
	ctx := ctxAs(context.Background(), "acme-invoke")
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range 32 {
		n := b.N / 32
		if c < b.N%32 {
			n++
		}
		wg.Go(func() {
			for range n {
				if _, err := client.Invoke(ctx, echoRequest(benchInput)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkInvokeStream(b *testing.B) {
	g := benchRig(b)
	s, err := pb.NewSandboxClient(g.conn).InvokeStream(ctxAs(context.Background(), "acme-invoke"), grpc.StaticMethod())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	slots := make(chan struct{}, 64)
	go func() {
		for i := range b.N {
			slots <- struct{}{}
			if s.Send(&pb.InvokeStreamRequest{Tag: uint64(i), Body: &pb.InvokeStreamRequest_Call{Call: echoRequest(benchInput)}}) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	for range b.N {
		m, err := s.Recv()
		if err != nil || m.GetResult().GetError() != nil {
			b.Fatal(m, err)
		}
		<-slots
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
