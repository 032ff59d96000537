package pool_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/errs"
	"paddock/pool"
	"paddock/pool/fake"
)

// The next process takes over what Release has left: whose it was stays its own.
func TestAdoption(t *testing.T) {
	both(t, func(t *testing.T, o func(*fake.Options, *pool.Config)) {
		r := newRig(t, func(fo *fake.Options, c *pool.Config) {
			o(fo, c)
			c.AdoptTimeout = time.Second
		})
		r.untilReady(2)
		mine := r.must("a", "id").Container
		torn := r.must("b", "id").Container
		dead := r.must("c", "id").Container
		r.untilReady(2)
		if err := r.engine.Container(mine).Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		hung := make(chan *errs.Error, 1)
		go func() {
			_, err := r.run(r.req("d", "gate never"))
			hung <- err
		}()
		r.until("the call runs", func(s pool.Stats) bool { return s.InFlight == 1 })
		r.untilReady(2)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := r.Release(ctx); err != nil {
			t.Fatal(err)
		}
		if e := <-hung; e == nil || e.Kind != errs.SandboxLost || e.Cause != "controller" || e.WhetherStarted() != errs.StartedMaybe {
			t.Errorf("the call in flight: %v", e)
		}
		before := len(r.engine.Live())
		if before != 6 {
			t.Fatalf("%d containers were left, want 6", before)
		}
		if err := os.WriteFile(filepath.Join(r.cfg.RunDir, "s/pool", string(torn), "tenant"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.engine.Container(dead).End(pool.Exit{Code: 1})
		stray := filepath.Join(r.cfg.RunDir, "c", "0123")
		if err := os.Mkdir(stray, 0o711); err != nil {
			t.Fatal(err)
		}

		r.start()
		defer r.stop()
		if s := r.Stats(); s.Adopted != 4 || s.Assigned != 2 {
			t.Errorf("%+v", s)
		}
		if res := r.must("a", "id"); res.Container != mine || res.Start != "warm" {
			t.Errorf("a's container was not adopted: %+v", res)
		}
		if res := r.must("b", "id"); res.Container == torn {
			t.Error("a container with a torn latch served a call")
		}
		if res := r.must("c", "id"); res.Container == dead {
			t.Error("a dead container served a call")
		}
		if _, err := os.Stat(stray); err == nil {
			t.Error("a stray directory is left")
		}
		r.until("the others are gone", func(pool.Stats) bool {
			return r.engine.Container(torn) == nil && r.engine.Container(dead) == nil
		})
		r.until("the observer is told of the adopted assignment", func(pool.Stats) bool {
			r.heard.mu.Lock()
			defer r.heard.mu.Unlock()
			return r.heard.assigned[mine] == "a"
		})
	})
}

func TestAdoptionOfAnotherImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inMemory)
		r.untilReady(2)
		old := r.must("a", "id").Container
		if err := r.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.cfg.Image.Digest = "image-2"
		r.start()
		defer r.stop()
		time.Sleep(15 * time.Second) // assigned ones go as they are idle
		synctest.Wait()
		if s := r.Stats(); s.Recycled[pool.CauseRollout] == 0 || r.engine.Container(old) != nil {
			t.Errorf("%+v", s)
		}
		for _, c := range r.engine.Live() {
			if c.Facts().ImageDigest != "image-2" {
				t.Error("a container of the old image lives")
			}
		}
	})
}

// Whoever does not say HELLO again is destroyed.
func TestAdoptionOfTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New(fake.Options{InMemory: true})
		r := &rig{t: t, engine: e, cfg: pool.Config{Engine: e, Listen: e.Listen, RunDir: t.TempDir(), MinReady: 1}}
		r.start()
		time.Sleep(time.Second)
		if err := r.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.cfg.Listen = func(string, uint32, uint32) (pool.Listener, error) { return deaf{}, nil }
		began := time.Now()
		cfg := r.cfg
		p, err := pool.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		old := e.Live()[0].ID()
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != pool.DefaultAdoptTimeout {
			t.Errorf("Start took %s", d)
		}
		synctest.Wait()
		if e.Container(old) != nil {
			t.Error("the silent one lives")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
}

// deaf is a Listener to which nobody connects.
type deaf struct{}

func (deaf) Accept(ctx context.Context, _ pool.LinkOptions) (pool.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (deaf) Close() error { return nil }
