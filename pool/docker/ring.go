package docker

import "sync"

// Sizes of what is kept of a container's raw output.
const (
	ringBytes = 64 << 10
	tailBytes = 4 << 10
)

// ring keeps the newest bytes written to it. Safe for concurrent use.
type ring struct {
	mu   sync.Mutex
	buf  []byte // grows to ringBytes with use: most containers write nothing
	next int    // where the oldest byte is once the ring is full
}

// Write implements io.Writer; it never fails and never blocks.
func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(p)
	if n > ringBytes {
		p = p[n-ringBytes:]
	}
	if room := ringBytes - len(r.buf); room > 0 {
		k := min(room, len(p))
		r.buf = append(r.buf, p[:k]...)
		p = p[k:]
	}
	for len(p) > 0 {
		k := copy(r.buf[r.next:], p)
		p = p[k:]
		r.next = (r.next + k) % ringBytes
	}
	return n, nil
}

// newest returns a copy of the last n bytes at most.
func (r *ring) newest(n int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append(append(make([]byte, 0, len(r.buf)), r.buf[r.next:]...), r.buf[:r.next]...)
	if len(all) > n {
		all = all[len(all)-n:]
	}
	return all
}
