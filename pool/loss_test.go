package pool

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An end that is slow to be told is not taken for a breach of the protocol.
func TestSlowEndsAreToldApart(t *testing.T) {
	for _, c := range []struct {
		name     string
		exit     Exit
		breached bool
		want     lossKind
	}{
		{"it lived on without a link and was killed", Exit{Code: -1, Signal: 9, Known: true}, false, lossProtocol},
		{"the same, told as an exit code", Exit{Code: 137, Known: true}, false, lossProtocol},
		{"nobody says how it ended", Exit{Code: -1}, false, lossProtocol},
		{"it crashed, slowly", Exit{Code: -1, Signal: 11, Known: true}, false, lossCrashed},
		{"it exited, slowly", Exit{Code: 1, Known: true}, false, lossCrashed},
		{"memory ran out", Exit{Code: -1, OOMKilled: true}, false, lossOutOfMemory},
		{"forks were refused", Exit{Code: -1, PidsHit: true}, false, lossPids},
		{"a breach, and then it crashed", Exit{Code: -1, Signal: 11, Known: true}, true, lossProtocol},
	} {
		if got := classify(c.exit, c.breached, !endedByItself(c.exit)); got.kind != c.want {
			t.Errorf("%s: %+v, want %d", c.name, got, c.want)
		}
	}
}

// usageOf is a container of which only the counters are known.
type usageOf struct {
	Container
	usage Usage
	err   error
}

func (u usageOf) Usage(context.Context) (Usage, error) { return u.usage, u.err }

func TestCountersTellWhatTheStatusDoesNot(t *testing.T) {
	for _, c := range []struct {
		engine usageOf
		want   lossKind
	}{
		{usageOf{usage: Usage{OOMKills: 1}}, lossOutOfMemory},
		{usageOf{usage: Usage{PidsRefused: 7}}, lossPids},
		{usageOf{}, lossProtocol},
		{usageOf{usage: Usage{OOMKills: 1}, err: errors.New("gone")}, lossProtocol},
	} {
		x := (&container{engine: c.engine}).counted()
		if got := classify(x, false, !endedByItself(x)); got.kind != c.want {
			t.Errorf("%+v: %+v, want %d", c.engine, got, c.want)
		}
	}
}

// slow is a container that ended by itself while its engine was too busy to say so.
type slow struct {
	usageOf
	exited chan struct{}
	exit   Exit
	says   string
	kill   func()
}

func (s *slow) Kill() error {
	if s.kill != nil {
		s.kill()
	}
	return nil
}
func (s *slow) Exited() <-chan struct{} { return s.exited }
func (s *slow) Exit() Exit              { return s.exit }
func (s *slow) Output() []byte          { return []byte(s.says) }

// closedLink is a connection that ended without a breach.
type closedLink struct{ Conn }

func (closedLink) Breached() bool { return false }
func (closedLink) Err() error     { return errors.New("EOF") }

func TestACrashThatIsToldLateIsNoBreach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
		s := &slow{exited: make(chan struct{}), exit: Exit{Code: 133, Known: true}}
		time.AfterFunc(exitWait+killWait+time.Second, func() { close(s.exited) })
		if l := p.autopsy(&container{conn: closedLink{}, engine: s}); l.kind != lossCrashed {
			t.Errorf("it was told as %+v, want crashed", l)
		}
	})
}

// Its runtime's last words are out, and its sandbox takes a second to end: killed meanwhile, it would be one that lived on without a link.
func TestAnAbortThatIsToldLateIsNoBreach(t *testing.T) {
	const words = "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"
	for _, c := range []struct {
		says   string
		aborts bool
		want   lossKind
	}{{words, true, lossOutOfMemory}, {words, false, lossProtocol}, {"", false, lossProtocol}} {
		synctest.Test(t, func(t *testing.T) {
			p := &Pool{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
			s := &slow{exited: make(chan struct{}), says: c.says}
			end := sync.OnceFunc(func() { close(s.exited) })
			s.kill = func() {
				if !closed(s.exited) {
					s.exit = Exit{Code: -1, Signal: 9, Known: true}
				}
				end()
			}
			if c.aborts {
				time.AfterFunc(exitWait+time.Second, func() {
					s.exit = Exit{Code: 134, HeapAbort: true, Known: true}
					end()
				})
			}
			began := time.Now()
			if l := p.autopsy(&container{conn: closedLink{}, engine: s}); l.kind != c.want {
				t.Errorf("%+v was told as %+v", c, l)
			}
			if took := time.Since(began); took > exitWait+slowWait || c.says == "" && took > exitWait {
				t.Errorf("%+v was killed after %v", c, took)
			}
		})
	}
}
