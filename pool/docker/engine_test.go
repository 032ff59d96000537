package docker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/testenv"
	"paddock/pool"
)

// patience bounds every wait of these tests; nothing is expected to need it.
const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	return ctx
}

// newEngine returns an engine of a controller of its own, and destroys what is left of that controller after the test.
func newEngine(t *testing.T, controller string) *Engine {
	t.Helper()
	testenv.NeedRoot(t)
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	e, err := New(within(t), Options{ControllerID: controller, MemoryBudgetBytes: 2 << 30, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer e.Close()
		if e.ctx.Err() != nil {
			return // closed by the test, which has another one
		}
		left, err := e.List(within(t))
		if err != nil {
			t.Error(err)
		}
		for _, c := range left {
			if err := c.Destroy(within(t)); err != nil {
				t.Error(err)
			}
		}
	})
	return e
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

func newID(t *testing.T) call.ContainerID {
	t.Helper()
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return call.ContainerID(hex.EncodeToString(b[:]))
}

// newSpec returns a container that runs a script instead of the agent.
func newSpec(t *testing.T, script string) pool.Spec {
	t.Helper()
	image := testenv.NodeImage(t)
	image.Argv = append(slices.Clone(image.Argv[:len(image.Argv)-1]), "-e", script) // its flags, without the agent
	image.Env = []string{"HOME=/tmp", "PATH=/paddock/bin"}
	dir := filepath.Join(testenv.RunDir(t), "c")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return pool.Spec{
		ID: newID(t), Image: image, UID: testenv.UID(t), LinkDir: dir,
		MemoryBytes: 128 << 20, CPUMillis: 1000, TmpBytes: 16 << 20,
	}
}

func create(t *testing.T, e *Engine, spec pool.Spec) *Container {
	t.Helper()
	c, err := e.Create(within(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Container)
}

// said waits until the container has written text.
func said(t *testing.T, c pool.Container, text string) {
	t.Helper()
	ctx := within(t)
	for !bytes.Contains(c.Output(), []byte(text)) {
		select {
		case <-ctx.Done():
			t.Fatalf("the container did not say %q, but: %.2000q", text, c.Output())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func exited(t *testing.T, c pool.Container) pool.Exit {
	t.Helper()
	select {
	case <-c.Exited():
		return c.Exit()
	case <-within(t).Done():
		t.Fatalf("the container did not end; it said: %.2000q", c.Output())
		return pool.Exit{}
	}
}

const stay = `console.log('up'); setInterval(() => {}, 1e6)`

func TestLifecycle(t *testing.T) {
	e := newEngine(t, testenv.ControllerID(t))
	spec := newSpec(t, stay)
	c := create(t, e, spec)
	said(t, c, "up")
	if f := c.Facts(); f.UID != spec.UID || f.LimitBytes != spec.MemoryBytes+e.Overhead() || f.ImageDigest != spec.Image.Digest {
		t.Errorf("facts %+v do not match the spec", f)
	}
	if _, err := e.Create(within(t), spec); err == nil {
		t.Error("a second container of the same id was made")
	}
	u, err := c.Usage(within(t))
	if err != nil || u.MemoryBytes == 0 || u.CPU == 0 || u.Pids < 5 {
		t.Errorf("usage %+v, %v", u, err)
	}
	for range 2 {
		if err := c.Freeze(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	frozen, err := c.group.Frozen()
	if err != nil || !frozen {
		t.Errorf("frozen = %v, %v after Freeze", frozen, err)
	}
	for range 2 {
		if err := c.Thaw(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Freeze(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if exit := exited(t, c); !exit.Known || exit.Signal != 9 || exit.OOMKilled || exit.PidsHit || exit.HeapAbort {
		t.Errorf("exit of a frozen and killed container: %+v", exit)
	}
	group := *c.group
	for range 2 {
		if err := c.Destroy(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if group.Exists() {
		t.Errorf("control group %s is still there", group.Path())
	}
	left, err := e.List(within(t))
	if err != nil || len(left) != 0 {
		t.Errorf("list after destroy: %v, %v", left, err)
	}
	if err := c.Freeze(within(t)); err == nil {
		t.Error("a destroyed container was frozen")
	}
}

// TestExit tells the ways to end apart.
func TestExit(t *testing.T) {
	e := newEngine(t, testenv.ControllerID(t))
	for _, tt := range []struct {
		name, script string
		ok           func(pool.Exit) bool
	}{
		{"exit", `console.log('bye'); process.exit(7)`, func(x pool.Exit) bool {
			return x.Known && x.Code == 7 && x.Signal == 0 && !x.OOMKilled && !x.HeapAbort && !x.PidsHit && string(x.Tail) == "bye\n"
		}},
		{"heap", `const a = []; for (;;) a.push({a: [a.length]})`, func(x pool.Exit) bool {
			return x.Known && x.HeapAbort && !x.OOMKilled && x.Signal != 0
		}},
		{"buffers", `const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1))`, func(x pool.Exit) bool {
			return x.Known && x.OOMKilled && !x.HeapAbort && x.Signal == 9
		}},
		{"pids", `const {spawn} = require('child_process'); let n = 0;
			for (let i = 0; i < 80; i++) spawn(process.execPath, ['-e', '0']).on('error', () => process.exit(3))`,
			func(x pool.Exit) bool { return x.Known && (x.PidsHit || x.OOMKilled) && !x.HeapAbort }},
		{"fake heap", `console.log('JavaScript heap out of memory'); process.exit(134)`, func(x pool.Exit) bool {
			return !x.OOMKilled && !x.PidsHit
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := create(t, e, newSpec(t, tt.script))
			if x := exited(t, c); !tt.ok(x) {
				t.Errorf("exit %+v, tail %q", x, x.Tail)
			}
			if err := c.Destroy(within(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAdopt lets one engine go, as a controller that was killed does, and finds everything again with another.
func TestAdopt(t *testing.T) {
	controller := testenv.ControllerID(t)
	first := newEngine(t, controller)
	// It floods its output all the time: nobody who stops reading may stop it.
	flood := `const fs = require('fs'), line = 'x'.repeat(4000) + '\n'; let n = 0
		const write = (text) => { try { fs.writeSync(1, text) } catch (e) { if (e.code !== 'EAGAIN') throw e } }
		setInterval(() => { for (let i = 0; i < 20; i++) write(line); write('round ' + ++n + '\n') }, 5)`
	live, frozen, dead := newSpec(t, flood), newSpec(t, stay), newSpec(t, `process.exit(5)`)
	a, b, d := create(t, first, live), create(t, first, frozen), create(t, first, dead)
	said(t, a, "round ")
	said(t, b, "up")
	exited(t, d)
	if err := b.Freeze(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := a.group.CPU()
	if err != nil {
		t.Fatal(err)
	}
	second := newEngine(t, controller)
	found, err := second.List(within(t))
	if err != nil || len(found) != 3 {
		t.Fatalf("adopted %v, %v; want 3", found, err)
	}
	byID := map[call.ContainerID]*Container{}
	for _, c := range found {
		byID[c.ID()] = c.(*Container)
	}
	if got, want := byID[live.ID].Facts(), a.Facts(); !got.Created.Equal(want.Created) || got.UID != want.UID ||
		got.LimitBytes != want.LimitBytes || got.MemoryBytes != want.MemoryBytes || got.ImageDigest != want.ImageDigest {
		t.Errorf("facts %+v, want %+v", got, want)
	}
	said(t, byID[live.ID], "round ")
	if after, err := byID[live.ID].group.CPU(); err != nil || after <= before {
		t.Errorf("the flooding container stood still without a reader: %v then %v, %v", before, after, err)
	}
	if n := len(byID[live.ID].Output()); n > ringBytes {
		t.Errorf("%d bytes of output kept", n)
	}
	if err := byID[frozen.ID].Thaw(within(t)); err != nil {
		t.Error(err)
	}
	if x := exited(t, byID[dead.ID]); !x.Known || x.Code != 5 {
		t.Errorf("exit of the dead one: %+v", x)
	}
	again, err := second.List(within(t))
	if err != nil || len(again) != 3 {
		t.Errorf("second list: %v, %v", again, err)
	}
	for _, c := range again {
		if c != pool.Container(byID[c.ID()]) {
			t.Errorf("%s was adopted twice", c.ID())
		}
		if err := c.Destroy(within(t)); err != nil {
			t.Error(err)
		}
	}
}

// TestLinkDir connects to a socket of the host as the sandbox's user, and tries to change the directory.
func TestLinkDir(t *testing.T) {
	e := newEngine(t, testenv.ControllerID(t))
	script := `const fs = require('fs'), net = require('net'), out = [];
		for (const f of [() => fs.writeFileSync('/run/paddock/x', ''), () => fs.unlinkSync('/run/paddock/link'),
			() => fs.renameSync('/run/paddock/link', '/run/paddock/l2'), () => fs.chmodSync('/run/paddock/link', 0o777),
			() => fs.writeFileSync('/x', ''), () => fs.writeFileSync('/paddock/agent.js', '')])
			try { f(); out.push('done') } catch (e) { out.push(e.code) }
		net.connect('/run/paddock/link', function () { this.write(out.join(' ') + '\n') })`
	spec := newSpec(t, script)
	path := filepath.Join(spec.LinkDir, "link")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chown(path, int(spec.UID), int(spec.UID)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	c := create(t, e, spec)
	if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("%v; the container says: %s", err, c.Output())
	}
	defer conn.Close()
	buf := make([]byte, 200)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range strings.Fields(string(buf[:n])) {
		if code != "EROFS" && code != "EACCES" && code != "EPERM" {
			t.Errorf("answers of the attempts: %s", buf[:n])
		}
	}
}
