//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
	"paddock/pool/cgroup"
	"paddock/pool/enginetest"
)

// TestImages makes what containers run, if it is not there. run.sh runs it before the machine boots, since that has no network.
func TestImages(t *testing.T) {
	t.Logf("%s, %s", testenv.NodeImage(t).Rootfs, enginetest.ProbeImage(t).Rootfs)
}

func TestOnlyCgroup2(t *testing.T) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[2] == "cgroup" {
			t.Errorf("cgroup v1 is mounted: %s", line)
		}
	}
	groups, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if groups.Version() != 2 {
		t.Errorf("cgroup v%d was found, want 2", groups.Version())
	}
}

func TestUpRunc(t *testing.T)   { testUp(t, "oci", "runc") }
func TestUpGVisor(t *testing.T) { testUp(t, "oci", "gvisor") }
func TestUpDocker(t *testing.T) { testUp(t, "docker", "runc") }

// testUp starts the service, runs the demo's hostile code and wants each end told by its name.
func testUp(t *testing.T, engine, isolation string) {
	s := start(t, engine, isolation)
	for _, c := range []struct {
		name, source string
		timeout      time.Duration
		want         []string // Paddock-Error, with "/cause" of a sandbox that was lost
	}{
		{"well", "() => 6 * 7", 30 * time.Second, []string{""}},
		{"spin", example(t, "spin.js"), 3 * time.Second, []string{"timeout"}},
		{"memory", example(t, "memory-bomb.js"), 120 * time.Second, []string{"out_of_memory"}},
		// which limit a fork bomb meets first is the machine's pace: its time, its memory or its processes; it never just crashes
		{"forks", example(t, "fork-bomb.js"), 30 * time.Second, []string{"timeout", "out_of_memory", "sandbox_lost/pids"}},
		{"well again", "() => 6 * 7", 30 * time.Second, []string{""}},
	} {
		began := time.Now()
		got, body := s.run(t, c.source, c.timeout)
		t.Logf("%s: %q after %s: %s", c.name, got, time.Since(began).Round(time.Millisecond), body)
		if !slices.Contains(c.want, got) {
			t.Errorf("%s: %q, want one of %q: %s", c.name, got, c.want, body)
		}
		if got == "" && body != "42" {
			t.Errorf("%s: %s, want 42", c.name, body)
		}
	}
	groups, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	mine := groups.At("paddock/" + s.id())
	if engine == "oci" && !mine.Exists() {
		t.Errorf("%s is not there while the service runs: the test looks in the wrong place", mine.Path())
	}
	s.stop(t)
	if mine.Exists() {
		t.Errorf("%s is there after the end", mine.Path())
	}
}

func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "examples", "hostile", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// service is the program under test, PADDOCK_BIN.
type service struct {
	cmd    *exec.Cmd
	data   string
	exited chan error
	log    testenv.Log
	URL    string `json:"http"`
}

func start(t *testing.T, engine, isolation string) *service {
	t.Helper()
	base := t.TempDir()
	for _, d := range []string{base, filepath.Dir(base)} { // sandboxes pass through, under ids of their own
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &service{data: filepath.Join(base, "data"), exited: make(chan error, 1)}
	ready := filepath.Join(base, "ready.json")
	s.cmd = exec.Command(os.Getenv("PADDOCK_BIN"), "up", "--data-dir", s.data, "--cache-dir", filepath.Join(testenv.CacheDir, "downloads"),
		"--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--engine", engine, "--isolation", isolation, "--ready-file", ready,
		"--memory-budget", "2GiB", "--min-ready", "2")
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start PADDOCK_BIN: %v", err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("the service's log:\n%s", s.log.String())
		}
	})
	for end := time.Now().Add(testenv.Patience(5 * time.Minute)); ; time.Sleep(50 * time.Millisecond) {
		if b, err := os.ReadFile(ready); err == nil && json.Unmarshal(b, s) == nil {
			return s
		}
		select {
		case err := <-s.exited:
			s.cmd = nil
			t.Fatalf("paddock up ended: %v", err)
		default:
		}
		if time.Now().After(end) {
			t.Fatal("paddock up is not ready in time")
		}
	}
}

// run makes a call and returns Paddock-Error with the cause, and the body.
func (s *service) run(t *testing.T, source string, timeout time.Duration) (kind, body string) {
	t.Helper()
	req, err := http.NewRequest("POST", fmt.Sprintf("%s/v1/run?timeout=%s", s.URL, timeout), strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(s.data, "operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	req.Header.Set("Paddock-Tenant", "default")
	req.Header.Set("Content-Type", "application/javascript")
	res, err := (&http.Client{Timeout: timeout + testenv.Patience(10*time.Second)}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	kind = res.Header.Get("Paddock-Error")
	var problem struct{ Cause string }
	if kind == "sandbox_lost" && json.Unmarshal(text, &problem) == nil {
		kind += "/" + problem.Cause
	}
	return kind, strings.TrimSpace(string(text))
}

func (s *service) id() string {
	text, _ := os.ReadFile(filepath.Join(s.data, "id")) // what is missing is found to be no group
	return strings.TrimSpace(string(text))
}

// stop wants a good end after SIGTERM. Idempotent.
func (s *service) stop(t *testing.T) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			t.Errorf("paddock up ended with %v", err)
		}
	case <-time.After(testenv.Patience(time.Minute)):
		t.Error("paddock up does not stop", s.cmd.Process.Kill())
	}
	s.cmd = nil
}
