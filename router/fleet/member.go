package fleet

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/nodewire"
	pb "paddock/proto/paddock/v1"
	"paddock/router/remote"
)

// member is one controller: its connection, and what probes and calls have shown of it.
type member struct {
	id, address string
	node        *remote.Node
	closer      io.Closer
	stop        context.CancelFunc
	log         *slog.Logger

	record   atomic.Pointer[catalog.ControllerView]
	unlisted atomic.Int64 // since when it is not registered, in ns since the fleet began; 0: it is
	missed   atomic.Int32 // probes in a row
	draining atomic.Bool
	inFlight atomic.Int64 // calls from here
	foreign  atomic.Bool  // it speaks no version of the protocol that this router does
}

// usable says whether it gets new calls.
func (m *member) usable() bool { return m.missed.Load() < missedProbes && !m.foreign.Load() }

// drains says that it is about to leave: who asked it before may go on asking until there is another one.
func (m *member) drains() bool { return m.draining.Load() || m.record.Load().Draining }

// unreachable notes that a connection could not be made. The next probe that is answered takes it back.
func (m *member) unreachable() {
	if m.missed.Swap(missedProbes) < missedProbes {
		m.log.Warn("a controller cannot be reached: no new calls go there", "controller", m.id, "address", m.address)
	}
}

// probe asks, once a second, until ctx ends.
func (m *member) probe(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		m.ask(ctx)
		rest := probeEvery*9/10 + rand.N(probeEvery/5) - time.Since(began)
		if m.missed.Load() > 0 {
			rest = min(rest, probeEvery/10) // who was lost a moment ago may be there again, or be lost
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(rest, 10*time.Millisecond)):
		}
	}
}

func (m *member) ask(ctx context.Context) {
	m.node.Tidy()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	res, err := m.node.Client().Probe(ctx, &pb.ProbeRequest{Protocol: nodewire.Protocol, OldestProtocol: nodewire.OldestProtocol})
	if err == nil && res.GetController() == m.id {
		if foreign := !nodewire.Understands(res.GetProtocol(), res.GetOldestProtocol()); m.foreign.Swap(foreign) != foreign {
			m.log.Error("a controller of another version: whether it is used has changed", "controller", m.id, "used", !foreign,
				"its_protocol", max(1, res.GetProtocol()), "protocol", nodewire.Protocol)
		}
		m.draining.Store(res.GetDraining())
		if m.missed.Swap(0) >= missedProbes {
			m.log.Info("a controller answers again", "controller", m.id)
		}
		return
	}
	if n := m.missed.Add(1); n == missedProbes {
		m.log.Warn("a controller does not answer: no new calls go there", "controller", m.id, "address", m.address, "err", err)
	} else if n > 1<<20 {
		m.missed.Store(missedProbes)
	}
}

// leave ends the member; calls on its connection fail.
func (m *member) leave() {
	m.stop()
	_ = m.closer.Close()
	m.log.Info("a controller is let go", "controller", m.id)
}
