package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"paddock/internal/pki"
)

// The wire section: what an echo of a small message costs between two processes with mutual TLS on loopback, by the way that it
// goes; what the hop section measures cannot cost less.
const (
	wireBytes = 300 // of a message; a small call's head and answer are of this size
	wireEcho  = "/bench.Wire/"
	// wireWindow is what a fixed window has.
	wireWindow = 1 << 20
)

// wireServed is what the other process says of itself.
type wireServed struct{ Own, RPC, Fixed string }

// echo sends a message to the other process and waits for it to come back.
type echo func(ctx context.Context, m *wrapperspb.BytesValue) error

// wire measures the ways in turns, with one caller and with 32.
func (b *bench) wire(ctx context.Context) error {
	dir := filepath.Join(b.dir, "wire")
	if err := issue(dir, dir); err != nil {
		return err
	}
	served, stop, err := startWire(dir)
	if err != nil {
		return err
	}
	defer stop()
	certs, err := wireCerts(dir, "router-r1")
	if err != nil {
		return err
	}
	ways, closeAll, err := wireWays(ctx, served, certs.ClientTLS("127.0.0.1", pki.RoleController))
	defer closeAll()
	if err != nil {
		return err
	}
	one, many := make([][]figures, len(ways)), make([][]figures, len(ways))
	for round := range b.rounds + 1 {
		for i := range ways {
			at := (round + i) % len(ways)
			a, err := echoes(ctx, ways[at].dial, 1, b.burst)
			if err != nil {
				return fmt.Errorf("%s: %w", ways[at].name, err)
			}
			c, err := echoes(ctx, ways[at].dial, 32, b.burst)
			if err != nil {
				return fmt.Errorf("%s: %w", ways[at].name, err)
			}
			if round > 0 { // the first one is to warm up
				one[at], many[at] = append(one[at], a), append(many[at], c)
			}
		}
	}
	for i, w := range ways {
		b.figure("echo between two processes, "+w.name+", one caller, p50", medianOf(one[i], func(f figures) float64 { return ms(f.p50) }), " ms",
			fmt.Sprintf("(32 callers: %.0f/s)", medianOf(many[i], perSecond)))
	}
	return nil
}

// wireWay is one way. dial makes what one caller echoes with.
type wireWay struct {
	name string
	dial func() (echo, func(), error)
}

func wireWays(ctx context.Context, at wireServed, secure *tls.Config) (all []wireWay, closeAll func(), err error) {
	creds := grpc.WithTransportCredentials(credentials.NewTLS(secure))
	conn, err := grpc.NewClient(at.RPC, creds)
	if err != nil {
		return nil, func() {}, err
	}
	fixed, err := grpc.NewClient(at.Fixed, creds, grpc.WithStaticStreamWindowSize(wireWindow), grpc.WithStaticConnWindowSize(wireWindow))
	if err != nil {
		return nil, func() { conn.Close() }, err
	}
	return []wireWay{
		{"TLS with a length before each message, a connection per caller", func() (echo, func(), error) { return dialOwn(at.Own, secure) }},
		{"gRPC, unary", func() (echo, func(), error) {
			return func(ctx context.Context, m *wrapperspb.BytesValue) error {
				return conn.Invoke(ctx, wireEcho+"Unary", m, &wrapperspb.BytesValue{})
			}, func() {}, nil
		}},
		{"gRPC, a stream per call", func() (echo, func(), error) {
			return func(ctx context.Context, m *wrapperspb.BytesValue) error {
				e, done, err := openEcho(ctx, conn)
				if err != nil {
					return err
				}
				defer done()
				return e(ctx, m)
			}, func() {}, nil
		}},
		{"gRPC, a stream for call after call", func() (echo, func(), error) { return openEcho(ctx, conn) }},
		{"the same, the windows fixed", func() (echo, func(), error) { return openEcho(ctx, fixed) }},
	}, func() { conn.Close(); fixed.Close() }, nil
}

// openEcho begins a stream of echoes.
func openEcho(ctx context.Context, conn *grpc.ClientConn) (echo, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, wireEcho+"Stream")
	return func(_ context.Context, m *wrapperspb.BytesValue) error {
		if err := st.SendMsg(m); err != nil {
			return err
		}
		return st.RecvMsg(&wrapperspb.BytesValue{})
	}, cancel, err
}

// echoes lets callers echo for a time.
func echoes(ctx context.Context, dial func() (echo, func(), error), callers int, d time.Duration) (figures, error) {
	took := make([][]time.Duration, callers)
	failed := make([]error, callers)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range callers {
		wg.Go(func() {
			e, done, err := dial()
			if err != nil {
				failed[i] = err
				return
			}
			defer done()
			m := wrapperspb.Bytes(make([]byte, wireBytes))
			for at := time.Now(); at.Sub(began) < d; {
				if failed[i] = e(ctx, m); failed[i] != nil {
					return
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(at))
				at = now
			}
		})
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return figures{}, err
		}
	}
	elapsed := time.Since(began)
	all := slices.Concat(took...)
	slices.Sort(all)
	return figures{calls: len(all), perSecond: float64(len(all)) / elapsed.Seconds(), p50: quantile(all, 0.50), p99: quantile(all, 0.99)}, nil
}

// dialOwn is the floor: one connection, one caller, nothing but TLS and a length.
func dialOwn(addr string, secure *tls.Config) (echo, func(), error) {
	conn, err := tls.Dial("tcp", addr, secure)
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(conn)
	return func(_ context.Context, m *wrapperspb.BytesValue) error {
		p, err := proto.Marshal(m)
		if err == nil {
			err = writeOwn(conn, p)
		}
		if err == nil {
			p, err = readOwn(r)
		}
		if err != nil {
			return err
		}
		return proto.Unmarshal(p, &wrapperspb.BytesValue{})
	}, func() { conn.Close() }, nil
}

func writeOwn(w io.Writer, p []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(p)), uint32(len(p))), p...))
	return err
}

func readOwn(r io.Reader) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	p := make([]byte, binary.BigEndian.Uint32(n[:]))
	_, err := io.ReadFull(r, p)
	return p, err
}

func wireCerts(dir, name string) (*pki.Source, error) {
	return pki.Open(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"), filepath.Join(dir, pki.CAFile), nil)
}

// startWire starts this program as the other process.
func startWire(dir string) (at wireServed, stop func(), err error) {
	cmd := exec.Command("/proc/self/exe", "-wired", dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return at, nil, err
	}
	if err := cmd.Start(); err != nil {
		return at, nil, err
	}
	return at, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, json.NewDecoder(out).Decode(&at)
}

// wireMain is the other process: it answers every message with itself.
func wireMain(dir string) error {
	certs, err := wireCerts(dir, "controller-c1")
	if err != nil {
		return err
	}
	secure := certs.ServerTLS(pki.RoleRouter)
	own, err := tls.Listen("tcp", "127.0.0.1:0", secure)
	if err != nil {
		return err
	}
	go serveOwn(own)
	served := wireServed{Own: own.Addr().String()}
	failed := make(chan error, 1)
	for addr, opts := range map[*string][]grpc.ServerOption{
		&served.RPC: nil, &served.Fixed: {grpc.StaticStreamWindowSize(wireWindow), grpc.StaticConnWindowSize(wireWindow)},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*addr = l.Addr().String()
		server := grpc.NewServer(append(opts, grpc.Creds(credentials.NewTLS(secure)))...)
		server.RegisterService(&wireService, nil)
		go func() { failed <- server.Serve(l) }()
	}
	if err := json.NewEncoder(os.Stdout).Encode(served); err != nil {
		return err
	}
	return <-failed
}

var wireService = grpc.ServiceDesc{
	ServiceName: strings.Trim(wireEcho, "/"), HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		m := &wrapperspb.BytesValue{}
		return m, decode(m)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Stream", Handler: wireStream, ClientStreams: true, ServerStreams: true}},
}

func serveOwn(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for r := bufio.NewReader(conn); ; {
				p, err := readOwn(r)
				if err != nil || writeOwn(conn, p) != nil {
					return
				}
			}
		}()
	}
}

func wireStream(_ any, st grpc.ServerStream) error {
	for {
		var m wrapperspb.BytesValue
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		if err := st.SendMsg(&m); err != nil {
			return err
		}
	}
}
