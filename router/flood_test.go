package router

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
)

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// flood is what a hostile client sends: send is called with 0, 1, 2 … up to frames.
type flood struct {
	frames  uint32
	send    func(h *rawH2, i uint32) error
	streams bool // it opens streams: of those that are open, each takes its piece
	refuse  bool // the server must not take all of it
}

// leftOver is what a flood may leave with the server: a fraction of what a few hundred bytes for each stream would come to, or a few
// dozen for each frame.
const leftOver = 12 << 20

// floodOf is how many connections send one at once, as fast as it is taken, reading no answers.
const floodOf = 4

// floods are of frames that cost their sender next to nothing.
func floods(t *testing.T) map[string]flood {
	message, err := proto.Marshal(echoRequest("22"))
	if err != nil {
		t.Fatal(err)
	}
	message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	var junk bytes.Buffer
	_ = hpack.NewEncoder(&junk).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 16_000)})
	opened := func(h *rawH2, i uint32, next func() error) error { // a head without its end comes first
		if i > 0 {
			return next()
		}
		return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.grpcBlock(invokeMethod, "acme-invoke")})
	}
	return map[string]flood{
		"rapid reset": {frames: 5_000, streams: true, send: func(h *rawH2, i uint32) error {
			return errors.Join(h.open(2*i+1, h.grpcBlock(invokeMethod, "acme-invoke")), h.WriteData(2*i+1, true, message),
				h.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}},
		"rapid reset without a key": {frames: 5_000, streams: true, send: func(h *rawH2, i uint32) error {
			return errors.Join(h.open(2*i+1, h.grpcBlock(invokeMethod, "nobody")), h.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}},
		"deadlines that have passed": {frames: 5_000, streams: true, send: func(h *rawH2, i uint32) error {
			return h.open(2*i+1, h.grpcBlock(invokeMethod, "nobody", "grpc-timeout", "1n"))
		}},
		"CONTINUATION": {frames: 5_000, refuse: true, send: func(h *rawH2, i uint32) error {
			return opened(h, i, func() error { return h.WriteContinuation(1, false, junk.Bytes()) })
		}},
		"empty CONTINUATION": {frames: 200_000, send: func(h *rawH2, i uint32) error {
			return opened(h, i, func() error { return h.WriteContinuation(1, false, nil) })
		}},
		"SETTINGS": {frames: 200_000, send: func(h *rawH2, _ uint32) error {
			return h.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
		}},
		"PING":          {frames: 200_000, send: func(h *rawH2, _ uint32) error { return h.WritePing(false, [8]byte{1}) }},
		"WINDOW_UPDATE": {frames: 200_000, send: func(h *rawH2, _ uint32) error { return h.WriteWindowUpdate(0, 1<<30) }},
		"PRIORITY": {frames: 200_000, send: func(h *rawH2, i uint32) error {
			return h.WritePriority(2*i+1, http2.PriorityParam{StreamDep: 2*i + 3})
		}},
	}
}

// dialNarrow opens a connection whose client takes next to nothing of what the server says, so that answers stay with the server.
func dialNarrow(t *testing.T, addr string) (*rawH2, *bufio.Writer) {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) { set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return cmp.Or(err, set)
	}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	h, w := greetH2(t, c), bufio.NewWriter(c)
	h.Framer = http2.NewFramer(w, nil)
	return h, w
}

// pour sends f until the connection is closed or held back: a write that does not move for a second. taken says that all was taken.
func (f flood) pour(h *rawH2, w *bufio.Writer) (taken bool) {
	const together = 64
	end := time.Now().Add(4 * time.Second)
	for i := range f.frames {
		err := f.send(h, i)
		if err == nil && i%together == together-1 {
			now := time.Now()
			_ = h.conn.SetWriteDeadline(now.Add(time.Second))
			if err = w.Flush(); err == nil && now.After(end) {
				err = context.DeadlineExceeded // so slow a machine has seen enough
			}
		}
		if err != nil {
			return false
		}
	}
	return w.Flush() == nil
}

// growth is what is in use beyond before, as soon as that is at most enough: what a collection finds while work goes on is mostly
// the litter of that work, and only what stays counts.
func (g *rig) growth(before uint64, enough int64) (n int64) {
	for end := time.Now().Add(testenv.Patience(20 * time.Second)); ; time.Sleep(100 * time.Millisecond) {
		g.logs.Reset() // a line for each call: the test's own
		if n = int64(heap()) - int64(before); n <= enough || time.Now().After(end) {
			return n
		}
	}
}

// Floods of frames. Each is answered, held back or its connection closed, and leaves no memory behind for a frame, though
// the client takes none of the answers; no more goroutines run than the open streams need; calls on other connections do not
// notice.
func TestFloodsOfFrames(t *testing.T) {
	g := newRig(t, nil)
	var running, most atomic.Int64
	g.node.do = func(ctx context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		if string(req.Body) == "1" {
			return okResult(req.Body), nil
		}
		for n := running.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer running.Add(-1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	before, routines := heap(), runtime.NumGoroutine()
	for listener, addr := range g.listeners() {
		for name, f := range floods(t) {
			t.Run(listener+", "+name, func(t *testing.T) {
				start := heap() // what former floods have left and is judged already is not this one's
				var over sync.WaitGroup
				var clients [floodOf]*rawH2
				streams := 0
				for i := range clients {
					h, w := dialNarrow(t, addr)
					clients[i] = h
					streams = int(h.settings[http2.SettingMaxConcurrentStreams])
					over.Go(func() {
						if f.pour(h, w) && f.refuse {
							t.Error("all of it was taken")
						}
					})
				}
				done := make(chan struct{})
				go func() { over.Wait(); close(done) }()
				for flooding := true; flooding; {
					if a := g.do("POST", "/v1/functions/echo/invoke", "1"); a.status != 200 && a.status != 429 {
						t.Errorf("a call meanwhile: %d %s", a.status, a.body)
					}
					if n := runtime.NumGoroutine() - routines; n > floodOf*(5*streams+50) {
						t.Errorf("%d goroutines for %d connections of %d streams", n, floodOf, streams)
					}
					select {
					case <-done:
						flooding = false
					case <-time.After(50 * time.Millisecond):
					}
				}
				if !f.streams {
					if n := g.growth(start, leftOver); n > leftOver {
						t.Errorf("%d KiB more than before are held while no answer is read", n>>10)
					}
				}
				for _, h := range clients {
					h.conn.Close()
				}
				for end := time.Now().Add(testenv.Patience(time.Minute)); runtime.NumGoroutine() > routines+50; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), routines)
					}
				}
				eventually(t, func() bool { return g.router.InFlight() == 0 })
				if n := g.growth(before, leftOver); n > leftOver {
					t.Errorf("%d KiB more than before are held by nobody", n>>10)
				}
			})
		}
	}
	if n := most.Load(); n > tenant.DefaultConcurrency {
		t.Errorf("%d calls ran at once", n)
	}
	eventually(t, func() bool { return g.do("POST", "/v1/functions/echo/invoke", "1").status == 200 })
	eventually(t, func() bool { return g.router.InFlight() == 0 }) // a request that was reset may begin late
	g.idle()
}
