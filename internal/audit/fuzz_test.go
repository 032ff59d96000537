package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzParseLine: whatever stands in a line, reading it ends well, and what is taken hashes as it says.
func FuzzParseLine(f *testing.F) {
	good, _ := appendLine(nil, &Record{Seq: 1, Time: time.Unix(0, 0), Event: Event{Action: "a", Detail: map[string]string{"k": "v"}},
		Prev: Genesis})
	f.Add(bytes.TrimSuffix(good, newline))
	f.Add([]byte(`{"seq":1,"hash":"` + Genesis + `"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseLine(line)
		if err != nil {
			return
		}
		if hashOf(line[:len(line)-hashTail]) != r.Hash || r.Seq < 1 || len(line) > maxLine {
			t.Errorf("%q was taken", line)
		}
	})
}

// chains are contents of a file that fuzzing begins with.
func chains(f *testing.F) {
	var good []byte
	last := Genesis
	for i := range 3 {
		r := Record{Seq: int64(i + 1), Event: Event{Action: "a"}, Prev: last}
		good, _ = appendLine(good, &r)
		last = r.Hash
	}
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Add(append(bytes.Clone(good), make([]byte, 100)...))
	f.Add([]byte("\n\n{}\n"))
}

// FuzzVerify: a file of any bytes is read to its end, and is right only if it is one chain of whole lines.
func FuzzVerify(f *testing.F) {
	chains(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		v := newVerifier(Mark{}, Expect{})
		if err := v.read(fileName(1), bytes.NewReader(content), func(int64) bool { return false }); err != nil {
			t.Fatal(err)
		}
		v.finish()
		if len(v.Problems) > 0 {
			return
		}
		last := Genesis
		for i, line := range bytes.SplitAfter(content, newline) {
			if len(line) == 0 {
				continue
			}
			r, err := parseLine(bytes.TrimSuffix(line, newline))
			if err != nil || r.Seq != int64(i+1) || r.Prev != last || line[len(line)-1] != '\n' {
				t.Errorf("line %d of %q is right: %v", i+1, content, err)
			}
			last = r.Hash
		}
	})
}

// FuzzOpen: whatever a file holds, the log goes on behind it, and what was written since verifies.
func FuzzOpen(f *testing.F) {
	chains(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName(1)), content, 0o600); err != nil {
			t.Fatal(err)
		}
		r := verify(t, dir, Expect{})
		l := openIn(t, dir, nil)
		write(t, l, "next")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if after := verify(t, dir, Expect{}); len(after.Problems) > len(r.Problems)+1 {
			t.Errorf("%v became %v", r.Problems, after.Problems)
		}
	})
}
