package router

import "sync"

// drainer knows the open streams, so that each can be told that the router is going. Safe for concurrent use.
type drainer struct {
	mu      sync.Mutex
	going   bool
	streams map[*callStream]struct{}
}

// enter notes a stream; false if the router is going already.
func (d *drainer) enter(cs *callStream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.going {
		return false
	}
	if d.streams == nil {
		d.streams = map[*callStream]struct{}{}
	}
	d.streams[cs] = struct{}{}
	return true
}

func (d *drainer) leave(cs *callStream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.streams, cs)
}

// start takes no more streams and tells the open ones. It does not wait: a stream whose caller does not read cannot be
// told before it ends.
func (d *drainer) start(reason string) {
	d.mu.Lock()
	d.going = true
	open := make([]*callStream, 0, len(d.streams))
	for cs := range d.streams {
		open = append(open, cs)
	}
	d.mu.Unlock()
	for _, cs := range open {
		go cs.goAway(reason)
	}
}

// open returns the streams that have not ended.
func (d *drainer) open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.streams)
}
