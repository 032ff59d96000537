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

// tunnel is one open connection of a container to the outside. It lives on its session's goroutine.
type tunnel struct {
	s      *session
	server net.Conn
	opened Decision
	told   bool // the observer knows of it
	meter  meter

	requests atomic.Int64 // that secrets were added to
}

// carry passes bytes both ways until both sides have ended, a limit is reached or the session is ended.
func (t *tunnel) carry(early []byte) {
	defer t.close()
	if _, err := io.WriteString(t.s.client, established); err != nil {
		return
	}
	m := t.measure()
	stop := m.watch()
	defer stop()
	if len(early) > 0 {
		if n, err := t.server.Write(early); err != nil || !m.count(int64(n), 0) {
			return
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { m.copy(t.server, t.s.client, true) })
	m.copy(t.s.client, t.server, false)
	wg.Wait()
}

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// close ends the session and accounts for the tunnel. What is over without a reason has come to its end.
func (t *tunnel) close() {
	t.s.end("")
	t.s.mu.Lock()
	reason := t.s.reason
	t.s.mu.Unlock()
	t.s.p.release(t.opened.Tenant, reason)
	if !t.told {
		return
	}
	d, now := t.opened, time.Now()
	d.Event, d.Reason, d.Duration, d.Time = EventClosed, reason, now.Sub(d.Time), now
	d.Requests = t.requests.Load()
	d.BytesOut, d.BytesIn = t.meter.out.Load(), t.meter.in.Load()
	if reason == "" {
		d.Reason = ReasonDone
	}
	t.s.p.decided(d)
}

// measure starts the tunnel's meter.
func (t *tunnel) measure() *meter {
	m := &t.meter
	m.s, m.tenant, m.born = t.s, t.opened.Tenant, time.Now()
	return m
}

// meter counts one tunnel's bytes and ends it when it is idle, old or has carried too much.
type meter struct {
	s       *session
	tenant  tenant.ID
	born    time.Time
	active  atomic.Int64 // when a byte last passed, since born
	out, in atomic.Int64
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
	total := m.out.Add(out) + m.in.Add(in)
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
