package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/link"
)

// BenchmarkCreate makes containers one after the other and reports how long it takes until the first process runs and until
// the agent has said HELLO.
func BenchmarkCreate(b *testing.B) {
	e, err := New(b.Context(), Options{ControllerID: testenv.ControllerID(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	image := testenv.NodeImage(b)
	if err := e.Prepare(b.Context(), image); err != nil {
		b.Fatal(err)
	}
	run, uid := testenv.RunDir(b), testenv.UID(b)
	var created, hello, destroyed time.Duration
	n := 0
	for b.Loop() {
		var id [16]byte
		if _, err := rand.Read(id[:]); err != nil {
			b.Fatal(err)
		}
		spec := pool.Spec{
			ID: call.ContainerID(hex.EncodeToString(id[:])), Image: image, UID: uid,
			MemoryBytes: 128 << 20, CPUMillis: 1000, TmpBytes: 16 << 20,
		}
		spec.LinkDir = filepath.Join(run, string(spec.ID))
		if err := os.Mkdir(spec.LinkDir, 0o711); err != nil {
			b.Fatal(err)
		}
		l, err := link.Listen(spec.LinkDir, spec.UID, spec.UID)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		start := time.Now()
		c, err := e.Create(ctx, spec)
		if err != nil {
			b.Fatal(err)
		}
		created += time.Since(start)
		conn, err := l.Accept(ctx, link.Options{Container: spec.ID})
		if err != nil {
			b.Fatalf("no HELLO: %v; its output: %.2000q", err, c.Output())
		}
		hello += time.Since(start)
		start = time.Now()
		if err := c.Destroy(ctx); err != nil {
			b.Fatal(err)
		}
		destroyed += time.Since(start)
		conn.Close()
		cancel()
		n++
	}
	b.ReportMetric(float64(created.Milliseconds())/float64(n), "ms/create")
	b.ReportMetric(float64(hello.Milliseconds())/float64(n), "ms/hello")
	b.ReportMetric(float64(destroyed.Milliseconds())/float64(n), "ms/destroy")
}
