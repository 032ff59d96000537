package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
)

// program builds the real program once per test run.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "paddock-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "paddock")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// site is a data directory with a run directory of its own, on which `paddock up` is started, several times perhaps.
type site struct {
	t      *testing.T
	data   string
	run    string // base of run directories
	flags  []string
	ready  string
	cmd    *exec.Cmd
	out    *testenv.Log // standard output
	log    *testenv.Log // standard error
	exited chan error
	HTTP   string `json:"http"`
	GRPC   string `json:"grpc"`
	PID    int    `json:"pid"`
}

// newSite prepares a site. Whatever the test does, nothing of it stays.
func newSite(t *testing.T, engine, isolation string, flags ...string) *site {
	t.Helper()
	testenv.NeedRoot(t)
	base := passableDir(t)
	s := &site{t: t, data: filepath.Join(base, "data"), run: filepath.Join("/run", "pt-"+testenv.ControllerID(t)),
		ready: filepath.Join(base, "ready.json")}
	conf := filepath.Join(base, "paddock.yml")
	text := fmt.Sprintf("uid_base: %d\ncache_dir: %s\npool: {min_ready: 2}\n", freeUIDs(t), filepath.Join(testenv.CacheDir, "downloads"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.flags = append([]string{"up", "--config", conf, "--data-dir", s.data, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
		"--engine", engine, "--isolation", isolation, "--ready-file", s.ready, "--memory-budget", "4GiB"}, flags...)
	if engine == "oci" {
		s.flags = append(s.flags, "--runtime", testenv.Binary(t, map[string]string{"gvisor": "runsc", "runc": "runc"}[isolation]))
	}
	t.Cleanup(s.cleanup)
	return s
}

// passableDir is a directory for one test that sandboxes, under ids of their own, can pass through.
func passableDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freeUIDs is a range of user ids that no other test is likely to use.
func freeUIDs(t *testing.T) uint32 {
	t.Helper()
	var b [2]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return 1<<30 + uint32(binary.BigEndian.Uint16(b[:])>>2)<<16
}

func (s *site) cleanup() {
	if s.cmd != nil {
		s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(time.Minute):
			s.cmd.Process.Kill()
			s.t.Error("paddock up did not stop within a minute")
		}
	}
	if s.t.Failed() && s.log != nil {
		s.t.Logf("standard output:\n%s\nstandard error:\n%s", s.out, s.log.Tail(40))
	}
}

// start starts the program and returns when its first sandbox is warm.
func (s *site) start() {
	s.t.Helper()
	if err := s.tryStart(); err != nil {
		s.t.Fatalf("paddock up: %v\n%s\n%s", err, s.out, s.log.Tail(30))
	}
}

func (s *site) tryStart(more ...string) error {
	s.t.Helper()
	os.Remove(s.ready)
	cmd := s.command(append(s.flags, more...)...)
	s.out, s.log = &testenv.Log{}, &testenv.Log{}
	cmd.Stdout, cmd.Stderr = s.out, s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	deadline := time.After(5 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(s.ready); err == nil && json.Unmarshal(b, s) == nil {
			s.cmd, s.exited = cmd, exited
			return nil
		}
		select {
		case err := <-exited:
			return fmt.Errorf("ended before it was ready: %w", err)
		case <-deadline:
			cmd.Process.Kill()
			return fmt.Errorf("not ready in time")
		case <-tick.C:
		}
	}
}

func (s *site) command(args ...string) *exec.Cmd {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "PADDOCK_RUN_DIR="+s.run)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd
}

// stop sends a signal and wants exit code 0.
func (s *site) stop(sig syscall.Signal) {
	s.t.Helper()
	s.cmd.Process.Signal(sig)
	select {
	case err := <-s.exited:
		if err != nil && sig != syscall.SIGKILL {
			s.t.Errorf("after %v: %v", sig, err)
		}
	case <-time.After(time.Minute):
		s.t.Fatalf("still running a minute after %v", sig)
	}
	s.cmd = nil
}

// id is the controller's.
func (s *site) id() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.data, "id"))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// leftovers lists what of the controller is on the machine: processes, mounts, control groups, files.
func (s *site) leftovers() (all []string) {
	s.t.Helper()
	id := s.id()
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(id)) {
			all = append(all, "process "+filepath.Base(filepath.Dir(p))+": "+string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, id) || strings.Contains(line, s.run) || strings.Contains(line, s.data) {
			all = append(all, "mount "+strings.TrimSpace(line))
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/paddock/" + id, "/sys/fs/cgroup/*/paddock/" + id, s.run + "/*", s.ready} {
		found, _ := filepath.Glob(pattern)
		all = append(all, found...)
	}
	if out, err := exec.Command("docker", "ps", "-aq", "--filter", "label=paddock.controller="+id).Output(); err == nil {
		for c := range strings.FieldsSeq(string(out)) {
			all = append(all, "docker container "+c)
		}
	}
	return all
}

// result is what a client command did.
type result struct {
	code        int
	out, stderr string
}

// cli runs a client command in this process, as root on the machine would.
func (s *site) cli(args ...string) result { return s.cliAs(nil, "", args...) }

// cliAs runs a client command with an environment and a standard input.
func (s *site) cliAs(env map[string]string, stdin string, args ...string) result {
	s.t.Helper()
	var out testenv.Log
	return s.cliInto(&out, env, stdin, args...)
}

// cliInto is cliAs with an output that can be read while the command runs.
func (s *site) cliInto(out *testenv.Log, env map[string]string, stdin string, args ...string) result {
	var stderr testenv.Log
	a := &app{
		stdin: strings.NewReader(stdin), stdout: out, stderr: &stderr,
		getenv: func(name string) string {
			if name == "PADDOCK_RUN_DIR" && env["PADDOCK_RUN_DIR"] == "" {
				return s.run
			}
			return env[name]
		},
	}
	code := a.main(args)
	return result{code, out.String(), stderr.String()}
}

// want fails the test unless the command ended as it should, and said so.
func (r result) want(t *testing.T, code int, out, stderr string) result {
	t.Helper()
	if r.code != code || !strings.Contains(r.out, out) || !strings.Contains(r.stderr, stderr) {
		t.Fatalf("exit code %d, want %d; output %q, want %q; errors %q, want %q", r.code, code, r.out, out, r.stderr, stderr)
	}
	return r
}

// source writes a file of source text and returns its path.
func source(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "code.js")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
