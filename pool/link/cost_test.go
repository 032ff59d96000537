package link

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"paddock/internal/call"
)

// BenchmarkDispatch measures what frames of the agent cost the reader: pace.go's constants are not to be below that.
func BenchmarkDispatch(b *testing.B) {
	head := `{"cpu":12,"warnings":["` + strings.Repeat(`\u0041`, 10000) + `"]}`
	for _, k := range []struct {
		name string
		one  []byte
	}{
		{"window", AppendWindow(nil, 1, 0)},
		{"late", AppendPlain(nil, TypeData, 0, 3, nil)},
		{"data", AppendPlain(nil, TypeData, 0, 2, nil)},
		{"tiny", AppendPlain(nil, TypeData, 0, 2, []byte("x"))},
		{"late result, long head", AppendFrame(nil, TypeResult, FlagEnd, 3, []byte(head), nil)},
		{"late result, long body", AppendFrame(nil, TypeResult, FlagEnd, 3, nil, make([]byte, MaxBody))},
	} {
		b.Run(k.name, func(b *testing.B) {
			c := dispatchable(b)
			r := reader{buf: make([]byte, 0, bigRead)}
			for len(r.buf)+len(k.one) <= bigRead {
				r.buf = append(r.buf, k.one...)
			}
			all := len(r.buf)
			b.SetBytes(int64(len(k.one)))
			for n := 0; n < b.N; n += all / len(k.one) {
				r.have = all
				if x := c.table[2]; x != nil {
					x.credit, x.data = 1<<60, x.data[:0]
				}
				if err := c.dispatchAll(&r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// dispatchable is a connection that nobody reads: stream 1 takes a body, stream 2 answers with one, 3 was cut off.
func dispatchable(b *testing.B) *Conn {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close()
	b.Cleanup(func() { syscall.Close(fds[1]) })
	nc, err := net.FileConn(ours)
	if err != nil {
		b.Fatal(err)
	}
	c, err := newConn(nc.(*net.UnixConn), Options{}.withDefaults(), Hello{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := StreamID(1); s <= 2; s++ {
		x := &exchange{wake: make(chan struct{}, 1), stream: s, sent: true, headSeen: s == 2, credit: 1 << 60, req: &call.Request{}}
		c.table[s] = x
	}
	for s := StreamID(7000); s >= 3; s-- {
		c.past.cut(s, c.now(), 0)
	}
	c.next = 8000
	return c
}
