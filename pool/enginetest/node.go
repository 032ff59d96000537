package enginetest

import (
	"testing"
	"time"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/link"
)

// testNode runs the real runtime image: its agent says HELLO, and the ways in which node runs out of memory are told.
func testNode(t *testing.T, s *suite) {
	s.image = testenv.NodeImage(t)
	t.Run("Hello", func(t *testing.T) {
		spec := s.spec(t)
		l, err := link.Listen(spec.LinkDir, spec.UID, spec.UID)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c, err := s.engine.Create(patience(t), spec)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept(patience(t), link.Options{Container: spec.ID})
		if err != nil {
			t.Fatalf("no HELLO: %v; its output: %s", err, short(c.Output()))
		}
		defer conn.Close()
		t.Logf("%s in %v", conn.Hello().Version, time.Since(start))
		if conn.Hello().Runtime != spec.Image.Runtime {
			t.Errorf("HELLO of %+v in %s", conn.Hello(), spec.Image.Runtime)
		}
		s.checkThreads(t, spec)
		s.destroy(t, c)
	})
	t.Run("HeapAbort", func(t *testing.T) {
		c := s.script(t, `const a = []; for (;;) a.push({a: new Array(100).fill(a.length + 0.5)})`)
		if e := waitExit(t, c); !e.HeapAbort || e.OOMKilled {
			t.Errorf("exit %+v, want a heap abort; output %s", e, short(c.Output()))
		}
		s.destroy(t, c)
	})
	t.Run("BuffersOutOfMemory", func(t *testing.T) {
		c := s.script(t, `const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1))`)
		if e := waitExit(t, c); !e.OOMKilled {
			t.Errorf("exit %+v, want an OOM kill; output %s", e, short(c.Output()))
		}
		s.destroy(t, c)
	})
	t.Run("Threads", func(t *testing.T) {
		c := s.script(t, `const { Worker } = require('worker_threads'); const { execFileSync } = require('child_process')
			execFileSync(process.execPath, ['-e', '0'])
			new Worker('require("worker_threads").parentPort.postMessage(6)', { eval: true }).on('message', n => process.exit(n))`)
		if e := waitExit(t, c); !e.Known || e.Code != 6 {
			t.Errorf("exit %+v, want 6; output %s", e, short(c.Output()))
		}
		s.destroy(t, c)
	})
	t.Run("ReadsEveryFile", func(t *testing.T) { // a container that has read much can still open more
		c := s.script(t, `const fs = require('fs'), path = require('path'); let n = 0
			const walk = d => { for (const e of fs.readdirSync(d, { withFileTypes: true })) {
				const p = path.join(d, e.name)
				if (e.isDirectory()) walk(p); else if (e.isFile()) { fs.readFileSync(p); n++ } } }
			walk('/paddock/node_modules'); require('/paddock/node_modules/axios')
			process.exit(n > 5000 ? 7 : 8)`)
		if e := waitExit(t, c); !e.Known || e.Code != 7 {
			t.Errorf("exit %+v, want 7; output %s", e, short(c.Output()))
		}
		s.destroy(t, c)
	})
	if s.engine.Isolation() == tenant.IsolationRunc {
		t.Run("AbortIsNoHeapAbort", func(t *testing.T) {
			c := s.script(t, `process.abort()`)
			if e := waitExit(t, c); e.HeapAbort || e.Code == 0 {
				t.Errorf("exit %+v, want an abort that is not the heap's", e)
			}
			s.destroy(t, c)
		})
	}
}

// script runs a script with the image's node instead of the agent.
func (s *suite) script(t *testing.T, source string) pool.Container {
	t.Helper()
	spec := s.spec(t)
	argv := []string{spec.Image.Argv[0]}
	for _, a := range spec.Image.Argv[1:] {
		if len(a) > 2 && a[:2] == "--" { // flags of node, the heap limit among them; the agent's path goes
			argv = append(argv, a)
		}
	}
	spec.Image.Argv = append(argv, "-e", source)
	c, err := s.engine.Create(patience(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
