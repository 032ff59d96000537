package logging

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sink remembers what was written, and how often.
type sink struct {
	mu     sync.Mutex
	text   strings.Builder
	writes int
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	return s.text.Write(p)
}

func (s *sink) seen() (string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.writes
}

func TestLinesGatherForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		b := NewBuffer(&s)
		defer b.Close()
		for round := 1; round <= 3; round++ {
			fmt.Fprint(b, "a\n")
			time.Sleep(flushAfter / 2)
			fmt.Fprint(b, "b\n")
			if _, n := s.seen(); n != round-1 {
				t.Fatalf("round %d: %d writes before the time is over", round, n)
			}
			time.Sleep(flushAfter / 2)
			synctest.Wait()
			if text, n := s.seen(); n != round || text != strings.Repeat("a\nb\n", round) {
				t.Fatalf("round %d: %q in %d writes", round, text, n)
			}
		}
	})
}

func TestMuchGoesOutAtOnce(t *testing.T) {
	var s sink
	b := NewBuffer(&s)
	line := strings.Repeat("x", 1023) + "\n"
	for range flushAt / len(line) {
		fmt.Fprint(b, line)
	}
	if text, n := s.seen(); n != 1 || len(text) != flushAt {
		t.Errorf("%d bytes in %d writes", len(text), n)
	}
}

func TestCloseFlushesAndLetsThrough(t *testing.T) {
	var s sink
	b := NewBuffer(&s)
	fmt.Fprint(b, "before\n")
	b.Close()
	if text, _ := s.seen(); text != "before\n" {
		t.Errorf("after Close: %q", text)
	}
	fmt.Fprint(b, "after\n")
	b.Close()
	if text, _ := s.seen(); text != "before\nafter\n" {
		t.Errorf("after a late line: %q", text)
	}
}

// Lines of many writers stay whole and none is lost, whoever flushes when.
func TestManyWriters(t *testing.T) {
	var s sink
	b := NewBuffer(&s)
	const writers, each = 8, 500
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				fmt.Fprintf(b, "%d %d\n", w, i)
				if i%97 == 0 {
					b.Flush()
				}
			}
		})
	}
	all.Wait()
	b.Close()
	next := [writers]int{}
	text, _ := s.seen()
	for line := range strings.Lines(text) {
		var w, i int
		if _, err := fmt.Sscanf(line, "%d %d\n", &w, &i); err != nil || i != next[w] {
			t.Fatalf("line %q where %d %d was due (%v)", line, w, next[w], err)
		}
		next[w]++
	}
	for w, n := range next {
		if n != each {
			t.Errorf("%d lines of writer %d", n, w)
		}
	}
}
