package pooltest

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
)

// Hostile code ends in the listed way, its container is replaced, and another tenant's calls go on meanwhile.
func testHostileCode(t *testing.T, h *host) {
	mine := h.must("canary", double).Container
	stop := make(chan struct{})
	var canary sync.WaitGroup
	silence := sync.OnceFunc(func() { close(stop); canary.Wait() })
	defer silence()
	calls := 0
	reqs := make([]*call.Request, 4000)
	for i := range reqs {
		reqs[i] = h.req("canary", double, 0)
	}
	canary.Go(func() {
		for _, req := range reqs {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			own := *req
			own.Deadline = time.Now().Add(testenv.Patience(5 * time.Second))
			res, err := h.Do(t.Context(), &own, nil)
			if err != nil || res.Container != mine || string(res.Value) != "40" {
				t.Errorf("the canary: %+v, %v", res, err)
				return
			}
			calls++
		}
	})
	for _, c := range []struct {
		name, source string
		limit        time.Duration
		want         []errs.Kind
	}{
		{"spin", `() => { while (true) {} }`, time.Second, []errs.Kind{errs.Timeout}},
		{"buffers", `() => { const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1)) }`, 15 * time.Second, []errs.Kind{errs.OutOfMemory}},
		{"heap", `() => { const a = []; for (;;) a.push(new Array(1000).fill(a.length + 0.5)) }`, 15 * time.Second,
			[]errs.Kind{errs.OutOfMemory}},
		{"forks", `async () => { const { spawn } = require('child_process')
			for (;;) { try { spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)']).on('error', () => {}) } catch {}
				await new Promise(setImmediate) } }`, 4 * time.Second, []errs.Kind{errs.Timeout, errs.OutOfMemory, errs.SandboxLost}},
		// the kernel kills the child, which its parent bears; it may take the parent as well
		{"child", `async () => { const { spawn } = require('child_process')
			const child = spawn(process.execPath, ['-e', 'const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1))'])
			return await new Promise((ok) => child.on('exit', (code, signal) => ok(signal))) }`, 20 * time.Second,
			[]errs.Kind{"", errs.OutOfMemory}},
		{"fork-bomb", forkBomb(t), 3 * time.Second, []errs.Kind{errs.Timeout, errs.OutOfMemory, errs.SandboxLost}},
	} {
		id := tenant.ID("evil-" + c.name)
		before := h.must(id, double).Container
		victim := h.found(before)
		began := time.Now()
		_, err := h.Do(t.Context(), h.req(id, c.source, c.limit), nil)
		took := time.Since(began)
		ok := false
		for _, k := range c.want {
			ok = ok || errs.Is(err, k) || k == "" && err == nil
		}
		t.Logf("%s: %v after %s", c.name, err, took.Round(time.Millisecond))
		if !ok || took > testenv.Patience(c.limit+5*time.Second) {
			t.Errorf("%s: %v after %s, want one of %v", c.name, err, took, c.want)
		}
		limit := testenv.Patience(stopLimit)
		if err == nil {
			limit += lookPause
		}
		h.untilGone(victim, limit)
		if after := h.must(id, double).Container; after == before {
			t.Errorf("%s: its container serves on", c.name)
		}
	}
	silence()
	if calls == 0 {
		t.Error("the canary never sang")
	}
}

// forkBomb is the one that the examples show.
func forkBomb(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "..", "examples", "hostile", "fork-bomb.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

// How soon after the answer a spoiled container must have stopped (usual: half a second; Docker, 1.8), and be gone without a
// trace, which is promised.
const (
	stopLimit = 8 * time.Second
	goneLimit = 10 * time.Second
	lookPause = time.Second // before anybody looks at a container whose call has succeeded
)

// untilGone waits until a container has stopped and nothing of it is left: the pool forgets it only then.
func (h *host) untilGone(c pool.Container, limit time.Duration) {
	h.t.Helper()
	began := time.Now()
	select {
	case <-c.Exited():
	case <-time.After(limit):
		h.t.Errorf("container %s runs %s after the answer: %+v", c.ID(), limit, h.Containers(""))
	}
	stopped := time.Since(began)
	for h.holds(c.ID()) {
		if time.Since(began) > testenv.Patience(goneLimit) {
			h.t.Errorf("container %s is there %s after the answer: %+v", c.ID(), goneLimit, h.Containers(""))
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Logf("stopped %s after the answer, gone after %s", stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// found returns the engine's view of a container.
func (h *host) found(id pool.ContainerID) pool.Container {
	h.t.Helper()
	all, err := h.engine.List(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, c := range all {
		if c.ID() == id {
			return c
		}
	}
	h.t.Fatalf("the engine does not know container %s", id)
	return nil
}

func (h *host) holds(id pool.ContainerID) bool {
	return slices.ContainsFunc(h.Containers(""), func(i pool.Info) bool { return i.ID == id })
}
