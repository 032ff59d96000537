package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Problem is something that is wrong with a line.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"` // in the file, from 1; 0: the file itself
	Seq  int64  `json:"seq,omitempty"`
	What string `json:"what"`
}

func (p Problem) String() string {
	where := fmt.Sprintf("%s:%d", p.File, p.Line)
	if p.Seq > 0 {
		where += fmt.Sprintf(" (number %d)", p.Seq)
	}
	return where + ": " + p.What
}

// Report is what Verify found.
type Report struct {
	Files    int       `json:"files"`
	Lines    int64     `json:"lines"`
	First    int64     `json:"first"`
	Last     Mark      `json:"-"` // the newest line: note it down elsewhere
	Problems []Problem `json:"problems"`
	More     int64     `json:"more,omitempty"` // problems beyond those listed
}

// maxProblems bounds the list of a log that is wrong throughout.
const maxProblems = 1000

// Expect is what the reader knows from elsewhere; the zero Mark is nothing.
type Expect struct {
	// After is the last line of an older part that was taken away: the log goes on from there.
	After Mark
	// Holds is a line that must still be there.
	Holds Mark
}

// Verify reads the log in dir from its first line to its last and finds every line that was changed, removed, inserted or
// moved since it was written. The chain alone cannot tell whether lines at its end were removed, or the whole rewritten:
// the head file tells the first as long as it is not rewritten too, and Expect.Holds both. The log may be written meanwhile.
func Verify(dir string, want Expect) (*Report, error) {
	head, headErr := readHead(dir) // before the lines: it is never ahead of them
	names, err := files(dir)
	if err != nil {
		return nil, err
	}
	v := newVerifier(head, want)
	if headErr != nil {
		v.problem(Problem{File: headName, What: headErr.Error()})
	}
	for i, name := range names {
		if err := v.file(dir, name, i == len(names)-1); err != nil {
			return nil, err
		}
	}
	v.finish()
	v.Files, v.Last = len(names), v.last
	return &v.Report, nil
}

func newVerifier(head Mark, want Expect) *verifier {
	v := &verifier{last: Mark{0, Genesis}, want: want, head: head, holds: map[int64]string{}}
	if want.After.Seq > 0 {
		v.last = want.After
	}
	return v
}

// verifier follows the chain.
type verifier struct {
	Report
	want  Expect
	head  Mark
	last  Mark             // the line before
	holds map[int64]string // hashes of the lines that head and want name
}

func (v *verifier) problem(p Problem) {
	if len(v.Problems) == maxProblems {
		v.More++
		return
	}
	v.Problems = append(v.Problems, p)
}

// settle is how long a line that is being written may take to be whole.
const settle = 200 * time.Millisecond

func (v *verifier) file(dir, name string, newest bool) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	return v.read(name, f, func(offset int64) bool { return newest && grows(f, offset) })
}

// read follows the chain through a file. grows says whether a last line that is not whole is being written: then what is
// whole was read.
func (v *verifier) read(name string, r io.Reader, grows func(offset int64) bool) error {
	lines := newLineReader(r)
	for {
		line, whole, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !whole && grows(lines.offset):
			return nil
		case !whole:
			v.problem(Problem{File: name, Line: lines.number, What: fmt.Sprintf(
				"the last line is torn off after %d bytes: a crash leaves that, and the next start of the service mends it", len(line))})
			return nil
		}
		v.line(name, lines.number, line)
	}
}

// grows says whether a file goes on beyond offset, or soon does.
func grows(f *os.File, offset int64) bool {
	for range 2 {
		if info, err := f.Stat(); err == nil && info.Size() > offset {
			return true
		}
		time.Sleep(settle / 2)
	}
	return false
}

// line checks one line against the one before. Of a line that is wrong, what it claims is gone on from: so only those are
// named that were touched, or stand beside a gap.
func (v *verifier) line(name string, number int, line []byte) {
	r, err := parseLine(line)
	if err != nil {
		v.problem(Problem{File: name, Line: number, Seq: r.Seq, What: err.Error() + ": it was changed or inserted"})
		if !errors.Is(err, errHash) {
			return
		}
	}
	v.Lines++
	if v.First == 0 {
		v.First = r.Seq
	}
	v.order(name, number, &r)
	if number == 1 && r.Seq == v.last.Seq+1 && name != fileName(r.Seq) {
		v.problem(Problem{File: name, Line: 1, Seq: r.Seq, What: "the file has another name than its first line gives it"})
	}
	if r.Seq == v.head.Seq || r.Seq == v.want.Holds.Seq {
		v.holds[r.Seq] = r.Hash
	}
	v.last = Mark{r.Seq, r.Hash}
}

// order compares a line's number and prev with the line before.
func (v *verifier) order(name string, number int, r *Record) {
	wrong := func(format string, args ...any) {
		v.problem(Problem{File: name, Line: number, Seq: r.Seq, What: fmt.Sprintf(format, args...)})
	}
	switch next := v.last.Seq + 1; {
	case r.Seq == next && r.Prev != v.last.Hash:
		wrong("it goes on from another line %d than the one before it: one of the two was changed", v.last.Seq)
	case r.Seq > next && v.last.Seq == 0:
		wrong("lines 1 to %d are missing before it; if they are kept elsewhere, say after which mark the log begins", r.Seq-1)
	case r.Seq > next:
		wrong("lines %d to %d are missing before it", next, r.Seq-1)
	case r.Seq < next:
		wrong("it stands after line %d: it was inserted, repeated or moved", v.last.Seq)
	}
}

// finish checks that the log reaches as far as is known.
func (v *verifier) finish() {
	for _, m := range []struct {
		Mark
		source string
	}{{v.head, "the head file"}, {v.want.Holds, "the mark that was given"}} {
		if m.Seq == 0 || m.Seq <= v.want.After.Seq {
			continue
		}
		hash, there := v.holds[m.Seq]
		switch {
		case m.Seq > v.last.Seq:
			v.problem(Problem{File: headName, Seq: m.Seq, What: fmt.Sprintf(
				"%s knows line %d and the log ends at %d: lines at its end were removed", m.source, m.Seq, v.last.Seq)})
		case there && hash != m.Hash:
			v.problem(Problem{File: headName, Seq: m.Seq, What: fmt.Sprintf(
				"%s knows another line %d than the log has: it was rewritten", m.source, m.Seq)})
		}
	}
}
