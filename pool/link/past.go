package link

import (
	"time"

	"paddock/internal/call"
)

// lateFrames is how long frames for a stream that the host has closed are taken for late ones.
const lateFrames = 30 * time.Second

// past remembers finished streams, the newest of them: whose a late log line is, and which were cut off by the host while
// frames of theirs were under way. Guarded by Conn.mu.
type past struct {
	streams [64]struct {
		stream   StreamID
		call     call.ID
		function string
	}
	closed map[StreamID]*closedStream
	order  []StreamID // of closed, oldest first
}

type closedStream struct {
	at     time.Time
	excess int64 // bytes that are still granted for the rest of its body
}

func (p *past) add(x *exchange) {
	s := &p.streams[x.stream%StreamID(len(p.streams))]
	s.stream, s.call, s.function = x.stream, x.id, x.function
}

// call returns the call that a finished stream was, if it is still known.
func (p *past) call(id StreamID) (call.ID, string) {
	if s := &p.streams[id%StreamID(len(p.streams))]; s.stream == id && id != 0 {
		return s.call, s.function
	}
	return "", ""
}

// cut remembers a stream whose body the host did not wait for, and how much more of it the agent may send.
func (p *past) cut(id StreamID, now time.Time, excess int64) {
	const most = 4096
	drop := 0
	for drop < len(p.order) && (now.Sub(p.closed[p.order[drop]].at) >= lateFrames || len(p.order)-drop >= most) {
		delete(p.closed, p.order[drop])
		drop++
	}
	if p.closed == nil {
		p.closed = map[StreamID]*closedStream{}
	}
	p.order = append(p.order[drop:], id)
	p.closed[id] = &closedStream{now, excess}
}

func (p *past) closedLately(id StreamID, now time.Time) bool {
	c := p.closed[id]
	return c != nil && now.Sub(c.at) < lateFrames
}

// mayGrant takes n bytes of a cut stream's excess and says whether there were any.
func (p *past) mayGrant(id StreamID, n int64) bool {
	c := p.closed[id]
	if c == nil || c.excess <= 0 || n <= 0 {
		return false
	}
	c.excess -= n
	return true
}
