package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// recover finds the end of the chain and returns what there is to say of it. It cuts off what a crash has torn.
func (l *Log) recover() (said []Event, err error) {
	names, err := files(l.opts.Dir)
	if err != nil {
		return nil, err
	}
	l.last = Mark{0, Genesis}
	for i := len(names) - 1; i >= 0 && l.last.Seq == 0; i-- { // usually once: the newest may have been made just before a crash
		end, err := l.readEnd(names[i])
		if err != nil {
			return nil, err
		}
		said = append(said, end.said...)
		l.last = end.last
		switch {
		case end.broken && end.last.Seq == 0:
			l.last.Seq = end.first + int64(end.lines) // the next file gets a name of its own
		case end.broken:
		case end.last.Seq > 0 && i == len(names)-1:
			err = l.resume(names[i], end.size)
		case end.last.Seq == 0: // no line stands in it
			err = os.Remove(filepath.Join(l.opts.Dir, names[i]))
		}
		if err != nil {
			return nil, err
		}
	}
	said = append(said, l.checkHead()...)
	if l.out == nil {
		l.end = position{fileName(l.last.Seq + 1), 0} // where the next line will stand
	}
	return said, nil
}

// checkHead compares the end of the files with what the head file says. Numbers are not used twice: where lines are gone,
// the gap is to be seen.
func (l *Log) checkHead() []Event {
	head, err := readHead(l.opts.Dir)
	switch {
	case err != nil:
		return []Event{damaged(headName, 0, err.Error())}
	case head.Seq <= l.last.Seq:
		return nil
	}
	gone := damaged(headName, 0, fmt.Sprintf("the log went up to line %d and ends at %d", head.Seq, l.last.Seq))
	l.last = head
	if l.out != nil { // what follows begins a file
		_ = l.out.Close()
		l.out = nil
	}
	return []Event{gone}
}

// resume goes on in a file.
func (l *Log) resume(name string, size int64) (err error) {
	if l.out, err = l.opts.open(l.opts.Dir, name, false); err != nil {
		return err
	}
	l.name, l.synced, l.written = name, size, size
	l.end = position{name, size}
	return l.out.Sync() // the lines before this end may never have been synced
}

// fileEnd is how a file ends.
type fileEnd struct {
	first  int64 // the line that its name promises
	lines  int
	last   Mark // the last line that can be read
	size   int64
	broken bool // a line was changed: the file is left as it is
	said   []Event
}

// readEnd reads a file to its end. A last line that is not whole is what a crash leaves: it is cut away.
func (l *Log) readEnd(name string) (e fileEnd, err error) {
	f, err := os.OpenFile(filepath.Join(l.opts.Dir, name), os.O_RDWR, 0)
	if err != nil {
		return e, err
	}
	defer f.Close()
	e.first, _ = firstOf(name)
	e.last = Mark{0, Genesis}
	lines := newLineReader(f)
	for {
		line, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return e, nil
		}
		if err != nil {
			return e, err
		}
		if !whole && !e.broken {
			e.said = append(e.said, torn(name, lines, line))
			if err := f.Truncate(lines.start); err != nil {
				return e, err
			}
			return e, f.Sync()
		}
		e.lines, e.size = lines.number, lines.offset
		r, err := parseLine(line)
		if err == nil {
			e.last = Mark{r.Seq, r.Hash}
		} else if !e.broken {
			e.broken = true
			e.said = append(e.said, damaged(name, lines.number, err.Error()))
		}
	}
}

func torn(name string, lines *lineReader, line []byte) Event {
	return Event{Action: "audit.torn", Detail: map[string]string{
		"file": name, "line": strconv.Itoa(lines.number), "bytes": strconv.FormatInt(lines.offset-lines.start, 10),
		"text": string(line[:min(len(line), maxValue)]),
	}}
}

func damaged(name string, line int, what string) Event {
	return Event{Action: "audit.damaged", Detail: map[string]string{
		"file": name, "line": strconv.Itoa(line), "what": what, "verify": "paddock audit verify names every line",
	}}
}
