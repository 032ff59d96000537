package audit

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"paddock/internal/testenv"

	"golang.org/x/sys/unix"
)

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
	testenv.Await(t, "it is written again", func() bool { return !l.Stats().Failing })
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
