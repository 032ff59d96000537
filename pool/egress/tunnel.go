package egress

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"paddock/internal/tenant"
)

const copyBuffer = 32 << 10

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// tunnel carries bytes both ways until both sides have ended, a limit is reached or the session is ended.
func (s *session) tunnel(server net.Conn, t tenant.ID, early []byte) {
	defer func() {
		s.end("")
		s.mu.Lock()
		reason := s.reason
		s.mu.Unlock()
		s.p.release(t, reason)
	}()
	if _, err := io.WriteString(s.client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	m := &meter{s: s, tenant: t, born: time.Now()}
	m.active.Store(int64(m.since()))
	stop := m.watch()
	defer stop()
	if len(early) > 0 {
		if n, err := server.Write(early); err != nil || !m.count(int64(n), 0) {
			return
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { m.copy(server, s.client, true) })
	m.copy(s.client, server, false)
	wg.Wait()
}

// meter counts one tunnel's bytes and ends it when it is idle, old or has carried too much.
type meter struct {
	s      *session
	tenant tenant.ID
	born   time.Time
	active atomic.Int64 // when a byte last passed, since born
	bytes  atomic.Int64
}

func (m *meter) since() time.Duration { return time.Since(m.born) }

// copy carries one direction and passes its end on; an error ends both.
func (m *meter) copy(dst, src net.Conn, out bool) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if _, werr := dst.Write((*buf)[:n]); werr != nil {
				m.s.end("")
				return
			}
			up, down := int64(n), int64(0)
			if !out {
				up, down = down, up
			}
			if !m.count(up, down) {
				m.s.end(ReasonBytes)
				return
			}
		}
		switch {
		case err == io.EOF:
			if h, ok := dst.(interface{ CloseWrite() error }); !ok || h.CloseWrite() != nil {
				m.s.end("")
			}
			return
		case err != nil:
			m.s.end("")
			return
		}
	}
}

func (m *meter) count(out, in int64) bool {
	m.active.Store(int64(m.since()))
	total := m.bytes.Add(out + in)
	return m.s.p.count(m.tenant, out, in) && total <= m.s.p.o.TunnelBytes
}

// watch ends the tunnel when its time is over. A side that takes no bytes makes it idle, too.
func (m *meter) watch() (stop func()) {
	o := &m.s.p.o
	timer := time.NewTimer(min(o.Idle, o.TunnelLife))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-timer.C:
			}
			age := m.since()
			idle := age - time.Duration(m.active.Load())
			switch {
			case age >= o.TunnelLife:
				m.s.end(ReasonLife)
				return
			case idle >= o.Idle:
				m.s.end(ReasonIdle)
				return
			}
			timer.Reset(min(o.Idle-idle, o.TunnelLife-age))
		}
	})
	return func() {
		timer.Stop()
		close(done)
		wg.Wait()
	}
}
