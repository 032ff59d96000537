package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Defaults and bounds of a Log.
const (
	DefaultRotateBytes = 32 << 20
	// syncEvery is how long a line that nobody waits for may stay off the disk, and how often a log that cannot be written
	// is tried again.
	syncEvery  = time.Second
	queueLines = 4096
	batchLines = 512
	// reserved is kept allocated beyond the end: what was begun can be written to its end although the disk is full.
	reserved = 256 << 10
	// maxUnwritten bounds the lines that are kept in memory while the disk refuses them.
	maxUnwritten = 1 << 20
)

// Errors of a Log.
var (
	ErrUnavailable = errors.New("the audit log cannot be written")
	ErrClosed      = errors.New("the audit log is closed")
)

// Options say where a Log is kept.
type Options struct {
	Dir         string // made if missing, 0700
	RotateBytes int64  // a file of this size is full; 0: DefaultRotateBytes
	Logger      *slog.Logger
	// open replaces openFile in tests of failing disks.
	open func(dir, name string, fresh bool) (file, error)
}

// Log appends to the log of one directory, which it holds alone. Write and Begin return when their line is on disk; lines
// of callers that wait at the same time share one fdatasync. Note does not wait: its line is on disk a second later at the
// latest. While the disk refuses lines, Begin and Write fail at once, what was noted is kept in memory as far as it fits
// and counted beyond, and the log is tried again every second. Safe for concurrent use; Close ends it.
type Log struct {
	opts Options
	log  *slog.Logger
	head *os.File // holds the lock

	queue    chan entry
	quit     chan struct{}
	finished chan struct{}
	closing  sync.Once
	failed   atomic.Pointer[error] // why lines cannot be written now
	dropped  atomic.Int64          // noted and not taken since the last line that says so
	lost     atomic.Int64          // all that were dropped
	lines    atomic.Int64          // written

	mu      sync.Mutex // of what Tail reads
	end     position
	changed chan struct{} // closed and replaced when end moves

	// Of the goroutine that runs:
	last      Mark
	name      string
	out       file
	synced    int64  // bytes of out that are known to be on disk
	written   int64  // bytes of out
	allocated int64  // bytes that out may grow to on a full disk
	unsynced  []byte // the lines from synced on
}

// entry is an event on its way to the disk.
type entry struct {
	event Event
	at    time.Time
	begin bool
	done  chan error // nil: nobody waits
}

// position is an offset in a file.
type position struct {
	name   string
	offset int64
}

// Open opens the log in o.Dir and goes on with its chain. What a crash tore off is cut away, what was damaged otherwise is
// left for Verify; a line says so.
func Open(o Options) (*Log, error) {
	if o.RotateBytes <= 0 {
		o.RotateBytes = DefaultRotateBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.open == nil {
		o.open = openFile
	}
	l := &Log{
		opts: o, log: o.Logger, queue: make(chan entry, queueLines), quit: make(chan struct{}), finished: make(chan struct{}),
		changed: make(chan struct{}),
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("audit log %s: %w", o.Dir, err)
	}
	go l.run()
	return l, nil
}

func (l *Log) open() (err error) {
	if err := os.MkdirAll(l.opts.Dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(l.opts.Dir, 0o700); err != nil {
		return err
	}
	l.head, err = os.OpenFile(filepath.Join(l.opts.Dir, headName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(l.head.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = l.head.Close()
		return fmt.Errorf("another process writes it: %w", err)
	}
	events, err := l.recover()
	if err != nil {
		_ = l.head.Close()
		return err
	}
	for _, e := range events {
		l.log.Error("audit log: "+e.Action, "detail", e.Detail)
		l.Note(e)
	}
	return nil
}

// Write appends e and returns once it is on disk.
func (l *Log) Write(ctx context.Context, e Event) error { return l.wait(ctx, entry{event: e}) }

// Begin appends that e is about to be done and returns once that is on disk. It fails where the line that says how it
// ended could not be written: then e must not be done.
func (l *Log) Begin(ctx context.Context, e Event) error {
	e.Decision, e.Result = Allow, Begun
	return l.wait(ctx, entry{event: e, begin: true})
}

func (l *Log) wait(ctx context.Context, e entry) error {
	if why := l.failed.Load(); why != nil && e.begin {
		return unavailable(*why)
	}
	e.at, e.done = time.Now(), make(chan error, 1)
	select {
	case l.queue <- e:
	case <-l.quit:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-e.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.finished:
	}
	select {
	case err := <-e.done: // answered by the last batch
		return err
	default:
		return ErrClosed
	}
}

func unavailable(why error) error { return fmt.Errorf("%w: %w", ErrUnavailable, why) }

// Note appends e without waiting. What does not fit is counted, and the next line that fits says how many.
func (l *Log) Note(e Event) {
	select {
	case l.queue <- entry{event: e, at: time.Now()}:
	default:
		l.drop(1)
	}
}

func (l *Log) drop(n int64) {
	l.dropped.Add(n)
	l.lost.Add(n)
}

// Stats is a snapshot of a Log.
type Stats struct {
	Lines   int64 // written since it was opened
	Dropped int64 // noted and lost since
	Failing bool  // lines cannot be written now
}

// Stats counts what became of events.
func (l *Log) Stats() Stats {
	return Stats{Lines: l.lines.Load(), Dropped: l.lost.Load(), Failing: l.failed.Load() != nil}
}

// Close writes what was handed in before and closes the log.
func (l *Log) Close() error {
	l.closing.Do(func() { close(l.quit) })
	<-l.finished
	if why := l.failed.Load(); why != nil {
		return unavailable(*why)
	}
	return nil
}

// run is the one goroutine that writes.
func (l *Log) run() {
	defer close(l.finished)
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-l.queue:
			l.commit(l.batch(e))
		case <-tick.C:
			l.tick()
		case <-l.quit:
			l.finish()
			return
		}
	}
}

// finish writes the rest and lets go of the files.
func (l *Log) finish() {
	for {
		select {
		case e := <-l.queue:
			l.commit(l.batch(e))
			continue
		default:
		}
		break
	}
	l.tick()
	_ = l.head.Sync()
	_ = l.head.Close()
	if l.out != nil {
		_ = l.out.Truncate(l.written) // gives back what was reserved
		_ = l.out.Close()
	}
}

// batch takes what else is queued.
func (l *Log) batch(first entry) []entry {
	all := []entry{first}
	for len(all) < batchLines {
		select {
		case e := <-l.queue:
			all = append(all, e)
		default:
			return all
		}
	}
	return all
}

// commit writes a batch and answers who waits for it.
func (l *Log) commit(batch []entry) {
	waiting := l.gather(batch)
	var err error
	if why := l.failed.Load(); why != nil {
		err = *why // the lines wait for the next tick
	} else if err = l.write(); err == nil && (len(waiting) > 0 || len(l.unsynced) > maxUnwritten/4) {
		err = l.sync()
	}
	if err != nil {
		l.fail(err)
		err = unavailable(err)
	}
	for _, done := range waiting {
		done <- err
	}
}

// gather makes the lines of a batch and returns who waits for them. What cannot begin is answered here.
func (l *Log) gather(batch []entry) (waiting []chan error) {
	room := l.room(batch)
	if n := l.dropped.Swap(0); n > 0 {
		if l.add(entry{event: Event{Action: "audit.dropped", Dropped: n}, at: time.Now()}) != nil {
			l.dropped.Add(n)
		}
	}
	for _, e := range batch {
		err := room
		if !e.begin || room == nil {
			err = l.add(e)
		}
		switch {
		case err == nil && e.done != nil:
			waiting = append(waiting, e.done)
		case e.done != nil:
			e.done <- unavailable(err)
		case err != nil:
			l.drop(1)
		}
	}
	return waiting
}

// room makes sure, where something is to begin, that its end can be written.
func (l *Log) room(batch []entry) error {
	if !slices.ContainsFunc(batch, func(e entry) bool { return e.begin }) {
		return nil
	}
	if why := l.failed.Load(); why != nil {
		return *why
	}
	end := l.synced + int64(len(l.unsynced))
	if l.allocated-end > reserved/2 {
		return nil
	}
	if err := l.ensure(); err != nil {
		return err
	}
	if err := l.out.Reserve(end, reserved); err != nil {
		return err
	}
	l.allocated = end + reserved
	return nil
}

var errTooMany = errors.New("too many lines wait for the disk")

// add makes e's line and puts it behind those that are to be written.
func (l *Log) add(e entry) error {
	if len(l.unsynced) > maxUnwritten {
		return errTooMany
	}
	r := Record{Seq: l.last.Seq + 1, Time: e.at.UTC(), Event: e.event.cleaned(), Prev: l.last.Hash}
	b, err := appendLine(l.unsynced, &r)
	if err != nil {
		return err
	}
	l.unsynced, l.last = b, Mark{r.Seq, r.Hash}
	return nil
}

// write hands the lines to the file.
func (l *Log) write() error {
	done := l.written - l.synced
	if int64(len(l.unsynced)) == done {
		return nil
	}
	if err := l.ensure(); err != nil {
		return err
	}
	if _, err := l.out.WriteAt(l.unsynced[done:], l.written); err != nil {
		return err
	}
	l.written = l.synced + int64(len(l.unsynced))
	return nil
}

// sync sees to it that all lines, which have been written, are on disk, and notes how far the log goes.
func (l *Log) sync() error {
	if len(l.unsynced) == 0 {
		return nil
	}
	if err := l.out.Sync(); err != nil {
		return err
	}
	l.lines.Add(int64(bytes.Count(l.unsynced, newline)))
	l.synced, l.unsynced = l.written, l.unsynced[:0]
	if cap(l.unsynced) > 4*maxLine {
		l.unsynced = nil
	}
	// Not synced: a head that is behind only says less. It is never ahead of the log.
	_, _ = l.head.WriteAt(headLine(l.last), 0)
	l.move(position{l.name, l.synced})
	if l.written >= l.opts.RotateBytes {
		l.turn()
	}
	return nil
}

var newline = []byte("\n")

// move tells Tail how far the log goes.
func (l *Log) move(to position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = to
	close(l.changed)
	l.changed = make(chan struct{})
}

// ensure opens a file where there is none.
func (l *Log) ensure() error {
	if l.out != nil {
		return nil
	}
	name := fileName(l.last.Seq + 1 - int64(bytes.Count(l.unsynced, newline)))
	out, err := l.opts.open(l.opts.Dir, name, true)
	if err != nil {
		return err
	}
	l.out, l.name, l.synced, l.written, l.allocated = out, name, 0, 0, 0
	l.move(position{name, 0})
	return nil
}

// turn goes on in a new file, all lines of the present one being on disk. If there can be none, the present one grows on.
func (l *Log) turn() {
	full, size := l.out, l.written
	l.out = nil
	if err := l.ensure(); err != nil {
		l.out = full
		l.log.Warn("audit log: no new file; the present one grows on", "err", err)
		return
	}
	_ = full.Truncate(size) // gives back what was reserved
	_ = full.Close()
}

// fail notes that lines cannot be written, until tick has written them after all.
func (l *Log) fail(err error) {
	if l.failed.Swap(&err) == nil {
		l.log.Error("the audit log cannot be written: changes are refused until it can; calls go on", "err", err)
	}
}

// tick puts on disk what nobody waits for, or tries again what failed: from the last byte that is known to be good, since
// after a failed sync nobody knows what is on disk.
func (l *Log) tick() {
	why := l.failed.Load()
	if why != nil && l.out != nil {
		if err := l.out.Truncate(l.synced); err != nil {
			return
		}
		l.written, l.allocated = l.synced, 0
	}
	err := l.write()
	if err == nil {
		err = l.sync()
	}
	if err != nil {
		l.fail(err)
		return
	}
	if why != nil {
		l.failed.Store(nil)
		l.log.Info("the audit log is written again")
		resumed := Event{Action: "audit.resumed", Result: OK, Detail: map[string]string{
			"after": (*why).Error(), "dropped": strconv.FormatInt(l.dropped.Load(), 10),
		}}
		if l.add(entry{event: resumed, at: time.Now()}) != nil { // not by the queue, which may be full just then
			l.drop(1)
		}
	}
}
