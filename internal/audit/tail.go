package audit

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Query says what Tail reads.
type Query struct {
	Last   int  // so many of the newest lines that Match takes
	Follow bool // then go on with new ones until ctx ends
	Match  func(*Record) bool
}

// Tail calls each with the lines of q, oldest first, until there are no more, ctx ends (which is no error) or each fails.
// It reads files: a slow reader costs the log nothing. Lines appear once they are on disk.
func (l *Log) Tail(ctx context.Context, q Query, each func(*Record) error) error {
	if q.Match == nil {
		q.Match = func(*Record) bool { return true }
	}
	at, _ := l.position()
	kept, err := l.newest(ctx, q, at)
	if err != nil {
		return err
	}
	for i := range kept {
		if err := each(&kept[i]); err != nil {
			return err
		}
	}
	kept = nil
	for q.Follow && ctx.Err() == nil {
		end, changed := l.position()
		if at == end {
			select {
			case <-changed:
			case <-l.finished:
				return nil
			case <-ctx.Done():
			}
			continue
		}
		if at, err = l.between(ctx, at, end, q.Match, each); err != nil {
			return err
		}
	}
	return nil
}

// position is how far the log goes on disk, and a channel that is closed when it goes further.
func (l *Log) position() (position, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end, l.changed
}

// newest returns the last lines up to end that q wants, oldest first. It reads back file by file until there are enough.
func (l *Log) newest(ctx context.Context, q Query, end position) ([]Record, error) {
	if q.Last <= 0 {
		return nil, nil
	}
	names, err := files(l.opts.Dir)
	if err != nil {
		return nil, err
	}
	var kept []Record
	for i := len(names) - 1; i >= 0 && len(kept) < q.Last && ctx.Err() == nil; i-- {
		limit := int64(-1)
		switch newer := slices.Index(names, end.name); {
		case newer >= 0 && i > newer: // begun since
			continue
		case i == newer:
			limit = end.offset
		}
		var here []Record
		_, err := l.read(ctx, position{names[i], 0}, limit, func(r *Record) error {
			if q.Match(r) {
				here = append(here, *r)
				if len(here) >= 2*q.Last {
					here = slices.Clone(here[len(here)-q.Last:])
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		kept = append(here, kept...)
		kept = kept[max(0, len(kept)-q.Last):]
	}
	return kept, nil
}

// between reads from at to end, across files, and returns where it got to.
func (l *Log) between(ctx context.Context, at, end position, match func(*Record) bool, each func(*Record) error) (position, error) {
	pass := func(r *Record) error {
		if !match(r) {
			return nil
		}
		return each(r)
	}
	if at.name == end.name {
		return l.read(ctx, at, end.offset, pass)
	}
	if _, err := l.read(ctx, at, -1, pass); err != nil {
		return at, err
	}
	names, err := files(l.opts.Dir)
	if err != nil {
		return at, err
	}
	was, _ := firstOf(at.name)
	for _, name := range names {
		if first, _ := firstOf(name); first > was {
			return position{name, 0}, nil
		}
	}
	return end, nil
}

// read passes on the lines of a file from an offset up to limit, all for -1, and returns where it ended. Lines that cannot
// be read are Verify's to name.
func (l *Log) read(ctx context.Context, from position, limit int64, each func(*Record) error) (position, error) {
	f, err := os.Open(filepath.Join(l.opts.Dir, from.name))
	if errors.Is(err, os.ErrNotExist) { // taken away by the operator
		return position{from.name, max(limit, from.offset)}, nil
	}
	if err != nil {
		return from, err
	}
	defer f.Close()
	if limit < 0 {
		info, err := f.Stat()
		if err != nil {
			return from, err
		}
		limit = info.Size()
	}
	lines := newLineReader(io.NewSectionReader(f, from.offset, limit-from.offset))
	for ctx.Err() == nil {
		line, whole, err := lines.next()
		if errors.Is(err, io.EOF) || err == nil && !whole {
			return position{from.name, limit}, nil
		}
		if err != nil {
			return from, err
		}
		if r, err := parseLine(line); err == nil {
			if err := each(&r); err != nil {
				return from, err
			}
		}
	}
	return position{from.name, limit}, nil
}
