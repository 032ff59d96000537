package pool

import (
	"context"
	"errors"
	"testing"
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
