package router

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// rawH2 is a client that says what it likes in HTTP/2.
type rawH2 struct {
	t    testing.TB
	conn net.Conn
	*http2.Framer
	head bytes.Buffer
	enc  *hpack.Encoder
	dec  *hpack.Decoder
	got  map[string]string // where dec puts fields
	// settings are the server's, once read.
	settings map[http2.SettingID]uint32
}

// dialH2 opens a connection, greets, and reads the server's settings.
func dialH2(t testing.TB, addr string) *rawH2 {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return greetH2(t, c)
}

// greetH2 greets on a connection and reads the server's settings.
func greetH2(t testing.TB, c net.Conn) *rawH2 {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	h := &rawH2{t: t, conn: c, Framer: http2.NewFramer(c, bufio.NewReader(c)), settings: map[http2.SettingID]uint32{}}
	h.enc = hpack.NewEncoder(&h.head)
	h.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) { h.got[f.Name] = f.Value })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = h.WriteSettings()
	f, err := h.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("first came %v", f)
	}
	_ = settings.ForeachSetting(func(s http2.Setting) error { h.settings[s.ID] = s.Val; return nil })
	_ = h.WriteSettingsAck()
	return h
}

// block encodes a header block.
func (h *rawH2) block(fields ...string) []byte {
	h.head.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(h.head.Bytes())
}

// grpcBlock is the head of a call, good or bad as the key is, with more fields.
func (h *rawH2) grpcBlock(method, key string, more ...string) []byte {
	return h.block(append([]string{":method", "POST", ":scheme", "http", ":path", method, ":authority", "a",
		"content-type", "application/grpc", "te", "trailers", "authorization", bearerOf(key)}, more...)...)
}

// open sends a head on a stream and leaves the request open.
func (h *rawH2) open(stream uint32, block []byte) error {
	return h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true})
}

// until reads frames until want says so or the connection ends.
func (h *rawH2) until(want func(http2.Frame) bool) error {
	for {
		f, err := h.ReadFrame()
		if err != nil {
			return err
		}
		if want(f) {
			return nil
		}
	}
}

// trailersOf reads the answer of a stream: its header fields and trailers together.
func (h *rawH2) trailersOf(stream uint32) map[string]string {
	h.t.Helper()
	h.got = map[string]string{}
	err := h.until(func(f http2.Frame) bool {
		if hf, ok := f.(*http2.HeadersFrame); ok {
			_, _ = h.dec.Write(hf.HeaderBlockFragment())
			return hf.StreamID == stream && hf.StreamEnded()
		}
		rst, ok := f.(*http2.RSTStreamFrame)
		if ok && rst.StreamID == stream {
			h.got["reset"] = rst.ErrCode.String()
		}
		return h.got["reset"] != ""
	})
	if err != nil {
		h.t.Errorf("stream %d: %v", stream, err)
	}
	return h.got
}

const invokeMethod = "/paddock.v1.Sandbox/Invoke"

// listeners are both of a rig's: gRPC comes to either.
func (g *rig) listeners() map[string]string {
	return map[string]string{"http": strings.TrimPrefix(g.url, "http://"), "grpc": g.grpcAddr}
}

// A megabyte of header is not taken in, whatever it comes by.
func TestGiantHeaders(t *testing.T) {
	g := newRig(t, nil)
	giant := strings.Repeat("x", 1<<20)
	answers, _ := g.talk("POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: a\r\nX: " + giant + "\r\nContent-Length: 1\r\n\r\n1")
	if len(answers) != 1 || answers[0].StatusCode != 431 {
		t.Errorf("HTTP/1.1: %+v", answers)
	}
	answers, _ = g.talk("POST /" + giant + " HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1")
	if len(answers) != 1 || answers[0].StatusCode != 431 {
		t.Errorf("a long target: %+v", answers)
	}
	_, err := pb.NewSandboxClient(g.conn).Invoke(metadata.AppendToOutgoingContext(ctxAs(t.Context(), "acme-invoke"), "x", giant),
		echoRequest("1"))
	if err == nil {
		t.Error("gRPC took it")
	}
	for listener, addr := range g.listeners() { // a client that does not care what the server announced
		h := dialH2(t, addr)
		if n := h.settings[http2.SettingMaxHeaderListSize]; n == 0 || n > 64<<10 {
			t.Errorf("%s announces %d bytes of header", listener, n)
		}
		block := h.grpcBlock(invokeMethod, "acme-invoke", "x", giant)
		err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16_000]})
		for rest := block[16_000:]; len(rest) > 0 && err == nil; {
			n := min(len(rest), 16_000)
			err = h.WriteContinuation(1, n == len(rest), rest[:n])
			rest = rest[n:]
		}
		refused := false
		end := h.until(func(f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				refused = true
			case *http2.HeadersFrame: // 431
				refused = f.StreamEnded() || refused
			}
			return refused
		})
		if !refused && end == nil {
			t.Errorf("%s: %v", listener, end)
		}
	}
	if n := g.node.calls.Load(); n != 0 {
		t.Errorf("%d calls ran", n)
	}
	g.idle()
}

// The choke point stands before the message: who has no key is told so before he has sent any, and a message that is too large
// or never comes whole takes neither memory nor a slot for long.
func TestMessagesThatDoNotCome(t *testing.T) {
	g := newRig(t, nil)
	g.router.messageTime = 1500 * time.Millisecond // 32 MiB come in it, also under the race detector
	for listener, addr := range g.listeners() {
		late := strconv.Itoa(int(codes.DeadlineExceeded))
		if listener == "http" { // there the body could not be read: i/o timeout
			late = strconv.Itoa(int(codes.Unavailable))
		}
		h := dialH2(t, addr)
		_ = h.open(1, h.grpcBlock(invokeMethod, "nobody"))
		if got := h.trailersOf(1); got["grpc-status"] != strconv.Itoa(int(codes.Unauthenticated)) || got["paddock-error"] != "unauthenticated" {
			t.Errorf("%s, without a key: %v", listener, got)
		}
		_ = h.open(3, h.grpcBlock(invokeMethod, "acme-invoke")) // half-open
		eventually(t, func() bool { return g.router.InFlight() == 1 })
		if got := h.trailersOf(3); got["grpc-status"] != late {
			t.Errorf("%s, half-open: %v", listener, got)
		}
		_ = h.open(5, h.grpcBlock(invokeMethod, "acme-invoke"))
		_ = h.WriteData(5, false, []byte{0, 0, 0, 1, 0, 'x'}) // one of 256 bytes
		if got := h.trailersOf(5); got["grpc-status"] != late {
			t.Errorf("%s, a part: %v", listener, got)
		}
		_ = h.open(7, h.grpcBlock(invokeMethod, "acme-invoke"))
		_ = h.WriteData(7, false, []byte{0, 0xff, 0xff, 0xff, 0xff, 'x'})
		if got := h.trailersOf(7); got["grpc-status"] != strconv.Itoa(int(codes.ResourceExhausted)) {
			t.Errorf("%s, 4 GiB announced: %v", listener, got)
		}
		_ = h.open(9, h.grpcBlock("/grpc.health.v1.Health/Check", "nobody")) // public, and half-open
		if got := h.trailersOf(9); got["grpc-status"] != late {
			t.Errorf("%s, public: %v", listener, got)
		}
		eventually(t, func() bool { return g.router.InFlight() == 0 })
	}
	if n := g.node.calls.Load(); n != 0 {
		t.Errorf("%d calls ran", n)
	}
	// over the limit, from a client that says so
	if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-invoke"), echoRequest(strings.Repeat(" ", grpcMaxMessageBytes+1))); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over the limit: %v", err)
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

// A tenant that is at its limit hears so before its message is read.
func TestOverTheLimitBeforeTheMessage(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Concurrency = 1 })
	h := dialH2(t, g.grpcAddr)
	_ = h.open(1, h.grpcBlock(invokeMethod, "acme-invoke"))
	eventually(t, func() bool { return g.router.InFlight() == 1 })
	_ = h.open(3, h.grpcBlock(invokeMethod, "acme-invoke"))
	if got := h.trailersOf(3); got["grpc-status"] != strconv.Itoa(int(codes.ResourceExhausted)) || got["retry-after"] != "1" {
		t.Errorf("%v", got)
	}
	_ = h.WriteRSTStream(1, http2.ErrCodeCancel)
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

// One connection has so many streams open, and not one more.
func TestStreamsOfAConnectionAreCapped(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Concurrency = 10_000 })
	for listener, most := range map[string]uint32{"http": h2MaxStreams, "grpc": grpcMaxStreams} {
		h := dialH2(t, g.listeners()[listener])
		if got := h.settings[http2.SettingMaxConcurrentStreams]; got != most {
			t.Errorf("%s announces %d", listener, got)
		}
		for i := range most + 50 {
			if err := h.open(2*i+1, h.grpcBlock(invokeMethod, "acme-invoke")); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, func() bool { return g.router.InFlight() >= int(most) })
		refused := 0
		_ = h.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		_ = h.until(func(f http2.Frame) bool {
			if _, ok := f.(*http2.RSTStreamFrame); ok {
				refused++
			}
			return refused == 50
		})
		if n := g.router.InFlight(); refused != 50 || n != int(most) {
			t.Errorf("%s: %d refused, %d in flight", listener, refused, n)
		}
		h.conn.Close()
		eventually(t, func() bool { return g.router.InFlight() == 0 })
	}
	g.idle()
}

// Heads that trickle end in bounded time, and take nobody's place meanwhile.
func TestSlowHeadsEnd(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil)
	g.router.http.ReadHeaderTimeout = time.Second
	var ended sync.WaitGroup
	for i := range 100 {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		ended.Go(func() {
			defer c.Close()
			began := time.Now()
			text := "POST /v1/functions/echo/invoke HTTP/1.1\r\nX: " + strings.Repeat("x", 1000)
			if i%2 == 1 {
				text = http2.ClientPreface[:20] + text // neither protocol
			}
			for j := range text {
				if _, err := io.WriteString(c, text[j:j+1]); err != nil {
					if took := time.Since(began); took > restAndHead+testenv.Patience(20*time.Second) {
						t.Errorf("it took %s", took)
					}
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Error("a head of 50 s was taken")
		})
	}
	for range 50 {
		if a := g.do("POST", "/v1/functions/echo/invoke", "1"); a.status != 200 {
			t.Errorf("a call meanwhile: %d", a.status)
		}
	}
	ended.Wait()
}

const restAndHead = 2 * time.Second // the lane's patience, and net/http's in that test

// A body may be slow as long as it moves: what ends it is a stretch without anything, or the call's deadline.
func TestSlowHonestBodies(t *testing.T) {
	g := newRig(t, nil)
	g.router.bodyStall = 1500 * time.Millisecond
	body := `"` + strings.Repeat("x", 18) + `"`
	for _, c := range []struct {
		pause  time.Duration
		query  string
		status int
	}{
		{150 * time.Millisecond, "?timeout=30s", 200}, // 3 s, twice the stall
		{4 * time.Second, "?timeout=30s", 408},        // nothing for too long
		{150 * time.Millisecond, "?timeout=1s", 408},  // on a good pace, past the hard end
	} {
		for name, framing := range map[string]string{"length": fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)), "chunks": "Transfer-Encoding: chunked\r\n\r\n"} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				// a field that the lane does not take: it would wait for the whole body before the call
				_, _ = io.WriteString(conn, "POST /v1/functions/echo/invoke"+c.query+" HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nAuthorization: "+
					bearerOf("acme-invoke")+"\r\n"+framing)
				for i := range body {
					part := body[i : i+1]
					if name == "chunks" {
						part = "1\r\n" + part + "\r\n"
					}
					if _, err := io.WriteString(conn, part); err != nil {
						return
					}
					time.Sleep(c.pause)
				}
				if name == "chunks" {
					_, _ = io.WriteString(conn, "0\r\n\r\n")
				}
			}()
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || res.StatusCode != c.status {
				t.Errorf("%s, a byte every %s %s: %v, %v", name, c.pause, c.query, res, err)
			}
			conn.Close()
		}
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

// idleClientEnv makes the test binary a client that holds idle connections: one process has not descriptors enough for both
// ends.
const idleClientEnv = "PADDOCK_TEST_IDLE"

func TestMain(m *testing.M) {
	if spec := os.Getenv(idleClientEnv); spec != "" {
		if err := holdIdle(spec); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// holdIdle opens connections ("ADDR COUNT GREETING") from many addresses until standard input ends.
func holdIdle(spec string) error {
	part := strings.SplitN(spec, " ", 3)
	count, err := strconv.Atoi(part[1])
	if err != nil {
		return err
	}
	for i := range count {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i/1000), 1)}}
		c, err := d.Dial("tcp", part[0])
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		defer c.Close()
		if part[2] != "" {
			_, _ = io.WriteString(c, part[2])
			_ = http2.NewFramer(c, c).WriteSettings()
		}
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// Ten thousand connections that do nothing cost a bounded piece of memory each and hold nobody up.
func TestTenThousandIdleConnections(t *testing.T) {
	const count = 10_000
	g := newRig(t, nil)
	latency := func() time.Duration {
		all := make([]time.Duration, 300)
		for i := range all {
			began := time.Now()
			if a := g.do("POST", "/v1/functions/echo/invoke", "1"); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			all[i] = time.Since(began)
		}
		slices.Sort(all)
		return all[len(all)*95/100]
	}
	latency()
	for _, c := range []struct {
		listener, greeting string
		most               uint64 // bytes for each
	}{{"http", "", 24 << 10}, {"grpc", http2.ClientPreface, 96 << 10}} {
		alone, before, routines := latency(), heap(), runtime.NumGoroutine()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", idleClientEnv, g.listeners()[c.listener], count, c.greeting))
		out, _ := cmd.StdoutPipe()
		in, _ := cmd.StdinPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
			t.Fatalf("the client: %q, %v", line, err)
		}
		// some of those that were counted before have ended since
		eventually(t, func() bool { return runtime.NumGoroutine() >= routines+count*99/100 })
		each := (heap() - before) / count
		limit := 2*alone + 20*time.Millisecond
		among := latency()
		for range 20 { // of connections that hold calls up, no try would be free; of a busy machine, some are
			if among > limit {
				among = min(among, latency())
			}
		}
		t.Logf("%s: %d bytes for each, p95 of a call %s, %s without them", c.listener, each, among, alone)
		if each > c.most {
			t.Errorf("%s: %d bytes for each connection, at most %d", c.listener, each, c.most)
		}
		if among > limit {
			t.Errorf("%s: p95 of a call is %s, %s without them", c.listener, among, alone)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		end := time.Now().Add(20 * time.Second)
		for runtime.NumGoroutine() > routines+20 && time.Now().Before(end) {
			time.Sleep(10 * time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > routines+20 {
			t.Errorf("%s: %d goroutines, %d before", c.listener, n, routines)
		}
	}
}
