package enginetest

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/runtimes"
)

// buildProbe makes the image once per content of the probe's source; test processes at the same time share it.
var buildProbe = sync.OnceValues(func() (runtimes.Image, error) {
	im := runtimes.Image{
		Runtime: "probe", Version: "v1", Env: []string{"GOMAXPROCS=2", "PROBE=yes"}, Argv: []string{"/probe"}, HeapPercent: 50,
	}
	source := "pool/enginetest/testdata/probe"
	root := testenv.Root(noTest{})
	text, err := os.ReadFile(filepath.Join(root, source, "main.go"))
	if err != nil {
		return im, err
	}
	im.Digest = fmt.Sprintf("%x", sha256.Sum256(text))
	im.Rootfs = filepath.Join(testenv.CacheDir, "probe-"+im.Digest[:16])
	if _, err := os.Stat(im.Rootfs); err == nil {
		return im, nil
	}
	if err := os.MkdirAll(testenv.CacheDir, 0o711); err != nil {
		return im, err
	}
	dir, err := os.MkdirTemp(testenv.CacheDir, "new-")
	if err != nil {
		return im, err
	}
	defer os.RemoveAll(dir)
	for _, d := range []string{"tmp", "proc", "dev", "sys", "run/paddock", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return im, err
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "tmp"), os.ModeSticky|0o777)); err != nil {
		return im, err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "probe"), "./"+source)
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return im, fmt.Errorf("build the probe: %w: %s", err, out)
	}
	if err := os.Rename(dir, im.Rootfs); err != nil && !errors.Is(err, fs.ErrExist) {
		return im, err
	}
	return im, nil
})

// noTest lets the shared build ask for what needs a testing.TB only to fail.
type noTest struct{ testing.TB }

func (noTest) Helper()                         {}
func (noTest) Fatal(args ...any)               { panic(fmt.Sprint(args...)) }
func (noTest) Fatalf(form string, args ...any) { panic(fmt.Sprintf(form, args...)) }

// ProbeImage returns an image whose only file is the probe.
func ProbeImage(t *testing.T) runtimes.Image {
	t.Helper()
	im, err := buildProbe()
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// door is the host's end of a container's socket before the container has come.
type door struct{ listener *net.UnixListener }

// listen makes the socket as the pool does: under another name, with the container's owner, then renamed.
func listen(t *testing.T, s pool.Spec) *door {
	t.Helper()
	path := filepath.Join(s.LinkDir, "link")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".new", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path+".new", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path+".new", int(s.UID), int(s.UID)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return &door{listener: l}
}

func (d *door) accept(t *testing.T, c pool.Container) *probe {
	t.Helper()
	if err := d.listener.SetDeadline(time.Now().Add(testenv.Patience(20 * time.Second))); err != nil {
		t.Fatal(err)
	}
	conn, err := d.listener.Accept()
	if err != nil {
		t.Fatalf("container %s does not connect: %v; its output: %s", c.ID(), err, short(c.Output()))
	}
	d.listener.Close()
	t.Cleanup(func() { conn.Close() })
	return &probe{conn: conn, in: bufio.NewReader(conn)}
}

// probe is the connection to a container's probe. Not safe for concurrent use.
type probe struct {
	conn net.Conn
	in   *bufio.Reader
}

type order struct {
	Op   string
	N    int64
	Path string
	Args []uintptr
}

type answer struct {
	N     int64
	Text  string
	Errno syscall.Errno
	Error string
}

// send gives an order and does not wait.
func (p *probe) send(t *testing.T, o order) {
	t.Helper()
	if err := json.NewEncoder(p.conn).Encode(o); err != nil {
		t.Fatal(err)
	}
}

// ask gives an order and waits for the answer.
func (p *probe) ask(t *testing.T, o order) answer {
	t.Helper()
	a, err := p.try(o, testenv.Patience(20*time.Second))
	if err != nil {
		t.Fatalf("order %+v: %v", o, err)
	}
	return a
}

func (p *probe) try(o order, timeout time.Duration) (a answer, err error) {
	if err := p.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return a, err
	}
	if err := json.NewEncoder(p.conn).Encode(o); err != nil {
		return a, err
	}
	return p.answer(timeout)
}

// answer reads the next answer.
func (p *probe) answer(timeout time.Duration) (a answer, err error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return a, err
	}
	line, err := p.in.ReadBytes('\n')
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(line, &a)
}
