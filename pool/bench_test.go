package pool_test

import (
	"context"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool"
)

// instant is a Conn that answers at once: what remains is the pool's own cost of a warm call.
type instant struct {
	pool.Conn
}

func (i instant) Do(_ context.Context, _ *call.Request, _ call.Sink, settled func()) (*call.Result, error) {
	settled()
	return &call.Result{}, nil
}

type instantListener struct{ pool.Listener }

func (l instantListener) Accept(ctx context.Context, o pool.LinkOptions) (pool.Conn, error) {
	c, err := l.Listener.Accept(ctx, o)
	if err != nil {
		return nil, err
	}
	return instant{Conn: c}, nil
}

func benchPool(b *testing.B) *rig {
	r := newRig(b, inMemory)
	if err := r.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
	r.cfg.Listen = func(dir string, uid, gid uint32) (pool.Listener, error) {
		l, err := r.engine.Listen(dir, uid, gid)
		return instantListener{l}, err
	}
	r.start()
	b.Cleanup(r.stop)
	return r
}

func BenchmarkWarmCall(b *testing.B) {
	r := benchPool(b)
	req := r.req("a", "value 1")
	req.Deadline = time.Now().Add(time.Hour)
	r.must("a", "value 1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Do(b.Context(), req, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWarmCallsOfManyTenants(b *testing.B) {
	r := benchPool(b)
	reqs := make([]*call.Request, 16)
	for i := range reqs {
		reqs[i] = r.req(tenant.ID(rune('a'+i)), "value 1")
		reqs[i].Deadline = time.Now().Add(time.Hour)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := r.Do(context.Background(), reqs[i%len(reqs)], nil); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
