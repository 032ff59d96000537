package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func openIn(t testing.TB, dir string, change func(*Options)) *Log {
	t.Helper()
	o := Options{Dir: dir}
	if change != nil {
		change(&o)
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func write(t testing.TB, l *Log, actions ...string) {
	t.Helper()
	for _, a := range actions {
		if err := l.Write(context.Background(), Event{Action: a, Tenant: "acme", Result: OK}); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t testing.TB, dir string, want Expect) *Report {
	t.Helper()
	r, err := Verify(dir, want)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func actions(t testing.TB, l *Log) (all []string) {
	t.Helper()
	if err := l.Tail(context.Background(), Query{Last: 1 << 20}, func(r *Record) error {
		all = append(all, r.Action)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAcknowledgedLinesAreOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	l := openIn(t, dir, nil)
	const writers, each = 16, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e := Event{Action: fmt.Sprintf("a.%d.%d", w, i), Detail: map[string]string{"n": fmt.Sprint(i)}}
				var err error
				if i%2 == 0 {
					err = l.Begin(context.Background(), e)
				} else {
					err = l.Write(context.Background(), e)
				}
				if err != nil {
					t.Error(err)
				}
				l.Note(Event{Action: "noted"})
				b, err := os.ReadFile(filepath.Join(dir, fileName(1)))
				if err != nil || !bytes.Contains(b, []byte(`"`+e.Action+`"`)) {
					t.Errorf("%s was acknowledged and is not there: %v", e.Action, err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, Expect{})
	if len(r.Problems) > 0 || r.Lines != 2*writers*each || r.Last.Seq != r.Lines {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"", fileName(1), headName} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: %v %v", name, info.Mode(), err)
		}
	}
	if err := l.Write(context.Background(), Event{Action: "late"}); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed log: %v", err)
	}
}

func TestRotationKeepsTheChain(t *testing.T) {
	dir := t.TempDir()
	rotate := func(o *Options) { o.RotateBytes = 2000 }
	for range 3 { // reopened in the midst
		l := openIn(t, dir, rotate)
		for i := range 30 {
			write(t, l, fmt.Sprint("x", i))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := verify(t, dir, Expect{})
	if len(r.Problems) > 0 || r.Lines != 90 || r.Files < 8 {
		t.Fatalf("%+v", r)
	}
	l := openIn(t, dir, rotate)
	if got := actions(t, l); len(got) != 90 || got[0] != "x0" || got[89] != "x29" {
		t.Errorf("tail: %d %v", len(got), got)
	}
	_ = l.Close()

	names, _ := files(dir)
	old, second := names[0], names[1]
	first, _ := firstOf(second)
	var before Mark
	b, _ := os.ReadFile(filepath.Join(dir, old))
	lines := bytes.Split(bytes.TrimSuffix(b, newline), newline)
	last, err := parseLine(lines[len(lines)-1])
	if err != nil || last.Seq != first-1 {
		t.Fatalf("%+v %v", last, err)
	}
	before = Mark{last.Seq, last.Hash}
	if err := os.Remove(filepath.Join(dir, old)); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir, Expect{}); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "missing") {
		t.Errorf("the first file is gone: %+v", r.Problems)
	}
	if r := verify(t, dir, Expect{After: before}); len(r.Problems) > 0 {
		t.Errorf("the first file is kept elsewhere: %+v", r.Problems)
	}
}

func TestOnlyOneWrites(t *testing.T) {
	dir := t.TempDir()
	openIn(t, dir, nil)
	if l, err := Open(Options{Dir: dir}); err == nil {
		_ = l.Close()
		t.Error("two logs of one directory")
	}
}

func TestTailFollowsAcrossFiles(t *testing.T) {
	l := openIn(t, t.TempDir(), func(o *Options) { o.RotateBytes = 1000 })
	write(t, l, "old1", "old2", "skip", "old3")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	got := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- l.Tail(ctx, Query{Last: 2, Follow: true, Match: func(r *Record) bool { return r.Action != "skip" }},
			func(r *Record) error { got <- r.Action; return nil })
	}()
	want := []string{"old2", "old3"}
	for i := range 2 {
		if a := <-got; a != want[i] {
			t.Fatal(a)
		}
	}
	for i := range 30 {
		write(t, l, fmt.Sprint("new", i), "skip")
	}
	for i := range 30 {
		if a := <-got; a != fmt.Sprint("new", i) {
			t.Fatalf("%s instead of new%d", a, i)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHostileBytesAreEscapedAndCapped(t *testing.T) {
	dir := t.TempDir()
	l := openIn(t, dir, nil)
	hostile := "a\n{\"seq\":1}\x1b[2J\x00\xff\u202e" + strings.Repeat("é", 5000)
	e := Event{Key: hostile, Role: hostile, Source: hostile, Tenant: hostile, Action: hostile, Object: hostile, Call: hostile,
		Detail: map[string]string{}}
	for i := range 100 {
		e.Detail[fmt.Sprint(i)+hostile] = hostile
	}
	if err := l.Write(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	b, _ := os.ReadFile(filepath.Join(dir, fileName(1)))
	if bytes.Count(b, newline) != 1 || len(b) > maxLine {
		t.Errorf("%d lines, %d bytes", bytes.Count(b, newline), len(b))
	}
	for _, c := range string(bytes.TrimSuffix(b, newline)) {
		if c < ' ' || c == '\u202e' || c == 0xFFFD {
			t.Errorf("%q is in the line", c)
		}
	}
	if r := verify(t, dir, Expect{}); len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
}

func TestSamplerSaysWhatItLeftOut(t *testing.T) {
	dir := t.TempDir()
	l := openIn(t, dir, nil)
	s := NewSampler(l, "left.out")
	const noisy, quiet = 500, 3
	for range noisy {
		s.Note("10.0.0.1", Event{Action: "denied", Source: "10.0.0.1"})
	}
	for range quiet {
		s.Note("10.0.0.2", Event{Action: "denied", Source: "10.0.0.2"})
	}
	for i := range 3 * maxSources { // sources without end: all are counted, whoever is forgotten
		s.Note(fmt.Sprint("s", i), Event{Action: "denied"})
	}
	s.Close()
	_ = l.Close()
	total, lines, by := int64(0), 0, map[string]int64{}
	l = openIn(t, dir, nil)
	_ = l.Tail(context.Background(), Query{Last: 1 << 20}, func(r *Record) error {
		lines++
		by[r.Source] += r.Dropped
		if total += r.Dropped; r.Action == "denied" {
			total++
			by[r.Source]++
		}
		return nil
	})
	if by["10.0.0.2"] != quiet || total != noisy+quiet+3*maxSources {
		t.Errorf("%d in all, %v", total, by["10.0.0.2"])
	}
	if lines > allBurst+maxReports+20 {
		t.Errorf("%d lines", lines)
	}
}

func TestNoteNeverWaits(t *testing.T) {
	var disk sickDisk
	l := openIn(t, t.TempDir(), func(o *Options) { o.open = disk.open })
	disk.broken.Store(true)
	began := time.Now()
	for range 10 * queueLines {
		l.Note(Event{Action: "x"})
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("%v for %d notes", took, 10*queueLines)
	}
}

func BenchmarkNote(b *testing.B) {
	l := openIn(b, b.TempDir(), nil)
	for b.Loop() {
		l.Note(Event{Action: "Keys.ListKeys", Key: "0123456789abcdef", Tenant: "acme", Result: OK})
	}
}

func BenchmarkWrite(b *testing.B) {
	l := openIn(b, b.TempDir(), nil)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Write(context.Background(), Event{Action: "Keys.CreateKey", Result: OK}); err != nil {
				b.Error(err)
			}
		}
	})
}
