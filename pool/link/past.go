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
	closed []closedStream // oldest first
}

type closedStream struct {
	stream StreamID
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
	for drop < len(p.closed) && (now.Sub(p.closed[drop].at) >= lateFrames || len(p.closed)-drop >= most) {
		drop++
	}
	p.closed = append(p.closed[drop:], closedStream{id, now, excess})
}

func (p *past) closedLately(id StreamID, now time.Time) bool {
	for _, c := range p.closed {
		if c.stream == id {
			return now.Sub(c.at) < lateFrames
		}
	}
	return false
}

// mayGrant takes n bytes of a cut stream's excess and says whether there were any.
func (p *past) mayGrant(id StreamID, n int64) bool {
	for i := range p.closed {
		if c := &p.closed[i]; c.stream == id && c.excess > 0 && n > 0 {
			c.excess -= n
			return true
		}
	}
	return false
}
