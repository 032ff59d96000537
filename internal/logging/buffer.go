// Package logging makes the operator's log cheap: lines gather for a moment and go out in one write, and a JSON handler
// formats the usual line without reflection. It decides nothing about what is logged, keeps no files and rotates none.
package logging

import (
	"io"
	"sync"
	"time"
)

const (
	flushAfter = 50 * time.Millisecond // how old a buffered line may get
	flushAt    = 64 << 10              // bytes that are written at once, by whoever adds the last of them
)

// Buffer collects what is written to it and passes it on after 50 ms, or once there are 64 KiB, or at Flush, whichever
// comes first. What is written stays whole and in order. A destination that does not take its bytes holds writers up, as it
// would without a Buffer; nothing is dropped while the process lives. Safe for concurrent use.
type Buffer struct {
	to io.Writer

	writing sync.Mutex // one write at a time, in order; taken before mu
	out     []byte     // of whoever holds writing

	mu      sync.Mutex
	pending []byte
	timer   *time.Timer
	closed  bool
}

// NewBuffer returns a Buffer before w. Whoever makes it closes it.
func NewBuffer(w io.Writer) *Buffer { return &Buffer{to: w} }

// Write adds p. Its error is always nil: the log has nobody to tell.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	first := len(b.pending) == 0
	b.pending = append(b.pending, p...)
	now := b.closed || len(b.pending) >= flushAt
	if first && !now {
		b.armLocked()
	}
	b.mu.Unlock()
	if now {
		b.Flush()
	}
	return len(p), nil
}

func (b *Buffer) armLocked() {
	if b.timer == nil {
		b.timer = time.AfterFunc(flushAfter, b.Flush)
		return
	}
	b.timer.Reset(flushAfter)
}

// Flush passes on what there is and returns when it has been written.
func (b *Buffer) Flush() {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	b.out, b.pending = b.pending, b.out[:0]
	b.mu.Unlock()
	if len(b.out) > 0 {
		_, _ = b.to.Write(b.out)
	}
	if cap(b.out) > 4*flushAt {
		b.out = nil
	}
}

// Close flushes; what is written afterwards goes through at once. Idempotent.
func (b *Buffer) Close() error {
	b.mu.Lock()
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	b.Flush()
	return nil
}
