package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// TestEveryTamperingIsFound changes a log in every way that does not rewrite the rest of the chain, at every line.
func TestEveryTamperingIsFound(t *testing.T) {
	dir := t.TempDir()
	l := openIn(t, dir, nil)
	for i := range 6 {
		write(t, l, fmt.Sprint("a", i))
	}
	_ = l.Close()
	path := filepath.Join(dir, fileName(1))
	whole, _ := os.ReadFile(path)
	lines := bytes.SplitAfter(whole, newline)
	lines = lines[:len(lines)-1]
	if r := verify(t, dir, Expect{}); len(r.Problems) > 0 {
		t.Fatal(r.Problems)
	}
	forged, _ := appendLine(nil, &Record{Seq: 4, Time: time.Now(), Event: Event{Action: "forged"}, Prev: Genesis})
	tried := 0
	check := func(what string, at int, changed [][]byte) {
		t.Helper()
		tried++
		if err := os.WriteFile(path, bytes.Join(changed, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		r := verify(t, dir, Expect{})
		named := false
		for _, p := range r.Problems {
			named = named || p.Line == at+1 || p.Line == at+2 || p.File == headName && at == len(lines)-1
		}
		if !named {
			t.Errorf("%s at line %d: %v", what, at+1, r.Problems)
		}
	}
	with := func(f func(c [][]byte) [][]byte) [][]byte {
		c := make([][]byte, len(lines))
		for i := range lines {
			c[i] = bytes.Clone(lines[i])
		}
		return f(c)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range lines {
		for at := range len(lines[i]) - 1 {
			check("a changed byte", i, with(func(c [][]byte) [][]byte {
				b := byte(random.IntN(255) + 1)
				if c[i][at]^b == '\n' {
					b ^= 1
				}
				c[i][at] ^= b
				return c
			}))
		}
		check("a removed line", i, with(func(c [][]byte) [][]byte { return append(c[:i], c[i+1:]...) }))
		check("a repeated line", i, with(func(c [][]byte) [][]byte {
			return append(c[:i+1], append([][]byte{lines[i]}, c[i+1:]...)...)
		}))
		check("a forged line", i, with(func(c [][]byte) [][]byte { return append(c[:i], append([][]byte{forged}, c[i:]...)...) }))
		check("a line with a hash of its own", i, with(func(c [][]byte) [][]byte {
			r, err := parseLine(c[i][:len(c[i])-1])
			if err != nil {
				t.Fatal(err)
			}
			r.Result = "changed"
			c[i], _ = appendLine(nil, &r)
			return c
		}))
		if i > 0 {
			check("a moved line", i-1, with(func(c [][]byte) [][]byte { c[i-1], c[i] = c[i], c[i-1]; return c }))
		}
	}
	t.Logf("%d changes, all found", tried)
}

func TestRewrittenChainIsFoundByAMark(t *testing.T) {
	dir := t.TempDir()
	l := openIn(t, dir, nil)
	write(t, l, "a", "b", "c")
	_ = l.Close()
	mark := verify(t, dir, Expect{}).Last
	if again, err := ParseMark(mark.String()); err != nil || again != mark {
		t.Fatalf("%v %v", again, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l = openIn(t, dir, nil)
	write(t, l, "a", "B", "c", "d")
	_ = l.Close()
	if r := verify(t, dir, Expect{}); len(r.Problems) > 0 {
		t.Fatal(r.Problems)
	}
	r := verify(t, dir, Expect{Holds: mark})
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "rewritten") {
		t.Errorf("%+v", r.Problems)
	}
}

func TestTornLineIsSaid(t *testing.T) {
	for name, tear := range map[string]func(b []byte) []byte{
		"half":       func(b []byte) []byte { return b[:len(b)-40] },
		"no newline": func(b []byte) []byte { return b[:len(b)-1] },
		"zeros":      func(b []byte) []byte { return append(b, make([]byte, 9000)...) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openIn(t, dir, nil)
			write(t, l, "a", "b")
			_ = l.Close()
			// The torn line comes after the head, as in a crash: it was never acknowledged.
			path := filepath.Join(dir, fileName(1))
			b, _ := os.ReadFile(path)
			r := Record{Seq: 3, Event: Event{Action: "c"}, Prev: verify(t, dir, Expect{}).Last.Hash}
			b, _ = appendLine(b, &r)
			if err := os.WriteFile(path, tear(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if rep := verify(t, dir, Expect{}); len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0].What, "torn") {
				t.Errorf("before the restart: %v", rep.Problems)
			}
			l = openIn(t, dir, nil)
			write(t, l, "d")
			got := strings.Join(actions(t, l), " ")
			if got != "a b audit.torn d" && (name != "zeros" || got != "a b c audit.torn d") {
				t.Error(got)
			}
			_ = l.Close()
			if rep := verify(t, dir, Expect{}); len(rep.Problems) > 0 {
				t.Errorf("after it: %v", rep.Problems)
			}
		})
	}
}

func TestDamageIsSaidAndStays(t *testing.T) {
	dir := t.TempDir()
	l := openIn(t, dir, nil)
	write(t, l, "a", "b", "c")
	_ = l.Close()
	path := filepath.Join(dir, fileName(1))
	b, _ := os.ReadFile(path)
	if err := os.WriteFile(path, bytes.Replace(b, []byte(`"b"`), []byte(`"B"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	l = openIn(t, dir, nil)
	write(t, l, "d")
	if got := strings.Join(actions(t, l), " "); got != "a c audit.damaged d" {
		t.Error(got)
	}
	_ = l.Close()
	if r := verify(t, dir, Expect{}); len(r.Problems) != 1 || r.Problems[0].Line != 2 {
		t.Errorf("%v", r.Problems)
	}

	if err := os.WriteFile(path, nil, 0o600); err != nil { // all that was in it
		t.Fatal(err)
	}
	l = openIn(t, dir, nil)
	write(t, l, "e")
	_ = l.Close()
	if r := verify(t, dir, Expect{}); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "1 to 3 are missing") {
		t.Errorf("%v", r.Problems)
	}
}

func TestLinesCutOffTheEndAreFound(t *testing.T) {
	dir := t.TempDir()
	l := openIn(t, dir, nil)
	write(t, l, "a", "b", "c")
	_ = l.Close()
	path := filepath.Join(dir, fileName(1))
	b, _ := os.ReadFile(path)
	lines := bytes.SplitAfter(b, newline)
	if err := os.WriteFile(path, bytes.Join(lines[:2], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir, Expect{}); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "removed") {
		t.Errorf("%v", r.Problems)
	}
	l = openIn(t, dir, nil) // a start does not hide it
	write(t, l, "d")
	_ = l.Close()
	if r := verify(t, dir, Expect{}); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "lines 3 to 3 are missing") {
		t.Errorf("%v", r.Problems)
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

// sickDisk refuses what it is told to.
type sickDisk struct {
	full, broken atomic.Bool // nothing can be reserved; nothing can be written or synced
	torn         atomic.Bool // a refused write leaves half of itself
}

func (d *sickDisk) open(dir, name string, fresh bool) (file, error) {
	f, err := openFile(dir, name, fresh)
	return &sickFile{f, d}, err
}

type sickFile struct {
	file
	disk *sickDisk
}

func (f *sickFile) WriteAt(p []byte, off int64) (int, error) {
	if f.disk.broken.Load() {
		if f.disk.torn.Load() {
			_, _ = f.file.WriteAt(p[:len(p)/2], off)
		}
		return 0, unix.ENOSPC
	}
	return f.file.WriteAt(p, off)
}

func (f *sickFile) Sync() error {
	if f.disk.broken.Load() {
		return unix.EIO
	}
	return f.file.Sync()
}

func (f *sickFile) Reserve(off, n int64) error {
	if f.disk.full.Load() || f.disk.broken.Load() {
		return unix.ENOSPC
	}
	return f.file.Reserve(off, n)
}

// TestFullDiskRefusesWhatWouldBegin: what was begun before is written to its end, from what was reserved.
func TestFullDiskRefusesWhatWouldBegin(t *testing.T) {
	var disk sickDisk
	dir := t.TempDir()
	l := openIn(t, dir, func(o *Options) { o.open = disk.open })
	ctx := context.Background()
	if err := l.Begin(ctx, Event{Action: "one"}); err != nil {
		t.Fatal(err)
	}
	disk.full.Store(true)
	big := Event{Action: "fill", Detail: map[string]string{"x": strings.Repeat("x", 500)}}
	refused := false
	for range 1000 {
		err := l.Begin(ctx, big)
		if errors.Is(err, ErrUnavailable) && errors.Is(err, unix.ENOSPC) {
			refused = true
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !refused {
		t.Fatal("nothing was refused")
	}
	if err := l.Write(ctx, Event{Action: "one", Result: OK}); err != nil {
		t.Errorf("the end of what had begun: %v", err)
	}
	disk.full.Store(false)
	if err := l.Begin(ctx, Event{Action: "two"}); err != nil {
		t.Errorf("after the disk has room again: %v", err)
	}
	_ = l.Close()
	if r := verify(t, dir, Expect{}); len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
}

func TestBrokenDiskLosesNothingThatFitsInMemory(t *testing.T) {
	var disk sickDisk
	dir := t.TempDir()
	l := openIn(t, dir, func(o *Options) { o.open = disk.open })
	ctx := context.Background()
	write(t, l, "before")
	disk.torn.Store(true)
	disk.broken.Store(true)
	if err := l.Write(ctx, Event{Action: "end"}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if err := l.Begin(ctx, Event{Action: "refused"}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	noted := 0
	long := strings.Repeat("y", 500)
	for l.Stats().Dropped == 0 { // until memory is full
		l.Note(Event{Action: "noted", Detail: map[string]string{"y": long}})
		if noted++; noted > 1_000_000 {
			t.Fatal("memory has no bound")
		}
	}
	if !l.Stats().Failing {
		t.Error("the log does not say that it fails")
	}
	disk.broken.Store(false)
	for end := time.Now().Add(20 * time.Second); l.Stats().Failing; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not written again")
		}
	}
	write(t, l, "after")
	_ = l.Close()
	r := verify(t, dir, Expect{})
	if len(r.Problems) > 0 {
		t.Fatal(r.Problems)
	}
	l = openIn(t, dir, nil)
	got := map[string]int64{}
	_ = l.Tail(ctx, Query{Last: 1 << 20}, func(r *Record) error {
		got[r.Action]++
		got["dropped"] += r.Dropped
		return nil
	})
	if got["before"] != 1 || got["end"] != 1 || got["refused"] != 0 || got["after"] != 1 || got["audit.resumed"] != 1 {
		t.Error(got)
	}
	if got["noted"]+got["dropped"] != int64(noted) || got["dropped"] == 0 {
		t.Errorf("%d noted, %v", noted, got)
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
