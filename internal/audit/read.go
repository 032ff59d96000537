package audit

import (
	"bufio"
	"errors"
	"io"
)

// lineReader reads lines of any length without holding more than maxLine of one.
type lineReader struct {
	r      *bufio.Reader
	number int   // of the line read last, from 1
	start  int64 // where it begins
	offset int64 // where it ends, with its newline
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, maxLine+1)}
}

// next returns the next line without its newline, valid until the next call, and whether it had one. Of a line beyond
// maxLine it returns the beginning, longer than maxLine.
func (l *lineReader) next() (line []byte, whole bool, err error) {
	l.start = l.offset
	line, err = l.r.ReadSlice('\n')
	l.offset += int64(len(line))
	switch {
	case err == nil:
		l.number++
		return line[:len(line)-1], true, nil
	case errors.Is(err, io.EOF) && len(line) > 0:
		l.number++
		return line, false, nil
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, false, err
	}
	l.number++
	kept := append([]byte(nil), line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.r.ReadSlice('\n')
		l.offset += int64(len(line))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	return kept, err == nil, nil
}
