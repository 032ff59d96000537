package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/link"
	"paddock/pool/oci"
	"paddock/runtimes"
	"paddock/runtimes/node"
)

// cold compares the first answer with an empty pool with what the engine itself needs to start a booted node.
func (b *bench) cold(ctx context.Context) error {
	return b.inEach(ctx, "cold", b.coldAgainstEngine, "--min-ready", "1")
}

func (b *bench) coldAgainstEngine(ctx context.Context, s *service) error {
	const samples = 15
	raw, err := b.startEngine(ctx, s)
	if err != nil {
		return err
	}
	defer raw.stop()
	if err := s.manage("POST", "/v1/pool/resize", "", map[string]any{"minReady": 0, "maxReady": 0}, nil); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"source": "module.exports = " + handler + ";", "input": json.RawMessage(input)})
	if err != nil {
		return err
	}
	var ratio, alone, first []float64
	for i := range samples + 2 {
		own, err := raw.start(ctx)
		if err != nil {
			return err
		}
		took, err := s.coldAnswer(fmt.Sprintf("cold-%d", i), body)
		if err != nil {
			return err
		}
		if i < 2 { // the first two also fill the page cache and use up what was warm
			continue
		}
		ratio = append(ratio, took.Seconds()/own.Seconds())
		alone = append(alone, ms(own))
		first = append(first, ms(took))
	}
	b.atMost("pool empty: first answer against the engine's own start, "+s.isolation, median(ratio), 1.3, " x",
		fmt.Sprintf("(%.0f ms against %.0f ms)", median(first), median(alone)))
	return nil
}

// coldAnswer is a new tenant's first answer; a container that was already warm makes it an error.
func (s *service) coldAnswer(id string, body []byte) (time.Duration, error) {
	if err := s.tenant(id, nil); err != nil {
		return 0, err
	}
	key, err := s.invokeKey(id)
	if err != nil {
		return 0, err
	}
	if err := s.settle(0); err != nil {
		return 0, err
	}
	c, err := dial(target{"cold", s.http, request(s.http, "/v1/run", string(body), "Authorization: Bearer "+key), []byte(output)})
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	started := time.Now()
	if err := c.once(); err != nil {
		return 0, err
	}
	took := time.Since(started)
	return took, s.manage("DELETE", "/v1/tenants/"+id, "", nil, nil)
}

// bareEngine starts containers without a pool.
type bareEngine struct {
	engine *oci.Engine
	image  runtimes.Image
	dir    string
	lock   *os.File
	uid    atomic.Uint32 // of the last one
}

func (b *bench) startEngine(ctx context.Context, s *service) (*bareEngine, error) {
	dir, err := os.MkdirTemp("/dev/shm", "pdb-")
	if err != nil {
		return nil, err
	}
	r := &bareEngine{dir: dir}
	r.uid.Store(1_900_000_000)
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	if r.image, err = node.Build(ctx, node.Options{Dir: filepath.Join(s.dir, "data", "images"), CacheDir: b.cache}); err != nil {
		return nil, err
	}
	if r.lock, err = os.Create(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(r.lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	runtime := map[string]string{"runc": "runc", "gvisor": "runsc"}[s.isolation]
	r.engine, err = oci.New(ctx, oci.Options{
		Runtime: filepath.Join(filepath.Dir(b.binary), runtime), Isolation: tenant.Isolation(s.isolation),
		StateDir: filepath.Join(dir, "s"), ControllerID: randomID(4), Keeper: []string{b.binary, "keeper"}, LockFile: r.lock.Name(),
		KeeperGrace: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	return r, err
}

// start makes one container as the pool does, destroys it, and returns how long its agent took to say HELLO.
func (r *bareEngine) start(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	destroy, err := r.make(ctx)
	took := time.Since(started)
	if err != nil {
		return 0, err
	}
	return took, destroy()
}

// make makes one container as the pool does; its agent has said HELLO. Several may be made at once.
func (r *bareEngine) make(ctx context.Context) (destroy func() error, _ error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	id := randomID(16)
	spec := pool.Spec{ID: pool.ContainerID(id), Image: r.image, UID: r.uid.Add(2), LinkDir: filepath.Join(r.dir, id[:8]),
		MemoryBytes: tenant.DefaultMemoryBytes, CPUMillis: tenant.DefaultCPUMillis, TmpBytes: 16 << 20}
	if err := os.Mkdir(spec.LinkDir, 0o711); err != nil {
		return nil, err
	}
	ln, err := link.Listen(spec.LinkDir, spec.UID, spec.UID)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	c, err := r.engine.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	remove := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return errors.Join(c.Destroy(ctx), os.RemoveAll(spec.LinkDir))
	}
	conn, err := ln.Accept(ctx, link.Options{Container: spec.ID})
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return func() error { conn.Close(); return remove() }, nil
}

// stop lets go; the keeper ends by itself once the lock is free and nothing is left.
func (r *bareEngine) stop() {
	r.engine.Close()
	r.lock.Close()
	os.RemoveAll(r.dir)
}

func randomID(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
