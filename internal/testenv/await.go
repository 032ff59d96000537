package testenv

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// awaitTimeout is long for what takes milliseconds: the machine may be busy with other tests.
const awaitTimeout = 30 * time.Second

// Await polls ok until it says yes, for what has no channel of its own to wait for. It fails the test, naming what, when that
// takes more than half a minute.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience(awaitTimeout)); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", Patience(awaitTimeout), what)
		}
	}
}

// AwaitGoroutines waits until there are no more goroutines than before, and else shows them.
func AwaitGoroutines(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(Patience(awaitTimeout)); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// Log keeps what is written to it: by a logger, or by the copier of a process's output, while the test reads.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string { return l.From(0) }

// From returns what was written after the first n bytes.
func (l *Log) From(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b.Bytes()[n:])
}

// Len is how many bytes were written.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

// Tail returns the last n lines.
func (l *Log) Tail(n int) string {
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Reset drops what was written, and its memory.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = bytes.Buffer{}
}
