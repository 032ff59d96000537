package audit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
