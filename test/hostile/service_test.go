package hostile

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
	"paddock/pool/cgroup"
)

// minReady warm sandboxes are enough for attacks that come one after the other.
const minReady = 3

// program is the real program: PADDOCK_BIN, else it is built once per test run.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("PADDOCK_BIN"); path != "" {
		return path, nil
	}
	return build("paddock/cmd/paddock")
})

// probe is the native code of some attacks.
var probe = sync.OnceValues(func() (string, error) { return build("paddock/test/hostile/probe") })

// build makes a static program of a package.
func build(pkg string) (string, error) {
	path := filepath.Join(built, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// built is where programs are built; TestMain removes it.
var built string

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if built, err = os.MkdirTemp("", "paddock-hostile-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(built)
	os.Exit(code)
}

// engine is one way to make sandboxes.
type engine struct{ name, isolation string }

func (e engine) String() string { return e.name + "/" + e.isolation }
func (e engine) gvisor() bool   { return e.isolation == "gvisor" }

// service is the real program, serving on a data directory of its own.
type service struct {
	t       *testing.T
	engine  engine
	data    string
	run     string // base of its run directory
	command []string
	ready   string // the file that it writes when it serves
	cmd     *exec.Cmd
	exited  chan error
	log     testenv.Log // its standard error: JSON lines
	id      string      // the controller's
	key     string      // the operator's
	http    *http.Client
	URL     string `json:"http"`
	GRPC    string `json:"grpc"`
	PID     int    `json:"pid"`
}

// startService starts the program and returns when its first sandbox is warm. Whatever the test does, nothing of it stays.
func startService(t *testing.T, e engine) *service {
	t.Helper()
	testenv.NeedRoot(t)
	base := t.TempDir()
	for _, d := range []string{base, filepath.Dir(base)} { // sandboxes pass through, under ids of their own
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, engine: e, data: filepath.Join(base, "data"), run: filepath.Join("/run", "pt-"+testenv.ControllerID(t)),
		http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	conf := filepath.Join(base, "paddock.yml")
	text := fmt.Sprintf("uid_base: %d\ncache_dir: %s\npool: {min_ready: %d}\n", freeUIDs(t),
		filepath.Join(testenv.CacheDir, "downloads"), minReady)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ready := filepath.Join(base, "ready.json")
	args := []string{"up", "--config", conf, "--data-dir", s.data, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
		"--engine", e.name, "--isolation", e.isolation, "--ready-file", ready, "--memory-budget", "4GiB"}
	if e.name == "oci" {
		args = append(args, "--runtime", testenv.Binary(t, map[string]string{"gvisor": "runsc", "runc": "runc"}[e.isolation]))
	}
	s.command, s.ready = append([]string{path}, args...), ready
	t.Cleanup(s.stop)
	s.start()
	s.id = s.file("id")
	s.key = s.file("operator.key")
	return s
}

// start runs the program until it is ready.
func (s *service) start() {
	s.t.Helper()
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Env = append(os.Environ(), "PADDOCK_RUN_DIR="+s.run)
	cmd.Stderr = &s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// The signal at a parent's death comes when the thread that started it ends, and threads that entered a container's mounts do end:
	// this one belongs to the program as long as it runs.
	started, exited := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.cmd, s.exited = cmd, exited
	s.awaitReady(s.ready)
}

// restart kills the program and starts it again on the same data. Its sandboxes live on meanwhile.
func (s *service) restart() {
	s.t.Helper()
	s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
	if err := os.Remove(s.ready); err != nil {
		s.t.Fatal(err)
	}
	s.start()
}

func (s *service) awaitReady(file string) {
	s.t.Helper()
	deadline := time.After(5 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, s) == nil {
			return
		}
		select {
		case err := <-s.exited:
			s.t.Fatalf("%v ended before it was ready: %v\n%s", s.engine, err, s.log.Tail(30))
		case <-deadline:
			s.t.Fatalf("%v: not ready in time\n%s", s.engine, s.log.Tail(30))
		case <-tick.C:
		}
	}
}

// stop ends the program with SIGTERM, which must end well and leave nothing. Idempotent.
func (s *service) stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		if err != nil {
			s.t.Errorf("%v: after SIGTERM: %v\n%s", s.engine, err, s.log.Tail(30))
		}
	case <-time.After(time.Minute):
		s.cmd.Process.Kill()
		s.t.Errorf("%v did not stop within a minute\n%s", s.engine, s.log.Tail(30))
	}
	s.cmd = nil
	for _, left := range s.remains() {
		s.t.Errorf("%v left %s behind", s.engine, left)
	}
}

// remains lists what a stopped service left on this machine.
func (s *service) remains() (found []string) {
	all := &inside{tokens: []string{"/" + s.id, s.run}}
	found = append(found, all.processes()...)
	found = append(found, all.mounts()...)
	if groups, err := cgroup.Detect(); err != nil || groups.At("paddock/"+s.id).Exists() {
		found = append(found, fmt.Sprintf("control group paddock/%s (%v)", s.id, err))
	}
	if _, err := os.Stat(s.run); err == nil {
		found = append(found, s.run)
	}
	return found
}

func (s *service) file(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.data, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
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

// operator makes a management request with the operator's key, as tenant if it is not "", and decodes the answer into out.
func (s *service) operator(method, path, tenant string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, s.URL+path, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	if tenant != "" {
		req.Header.Set("Paddock-Tenant", tenant)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text.String())
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text.Bytes(), out)
}

// admit makes a tenant with a policy and returns a key of the lowest role for it.
func (s *service) admit(tenant string, policy map[string]any) (key string, err error) {
	if err := s.operator("POST", "/v1/tenants", "", map[string]any{"id": tenant, "policy": policy}, nil); err != nil {
		return "", err
	}
	var made struct{ Secret string }
	err = s.operator("POST", "/v1/keys", "", map[string]any{"tenant": tenant, "role": "invoke"}, &made)
	return made.Secret, err
}

func (s *service) deploy(tenant, name, source string) error {
	return s.operator("PUT", "/v1/functions/"+name, tenant, map[string]any{"source": []byte(source)}, nil)
}

// logs returns what the tenant can read of its log.
func (s *service) logs(tenant string) (string, error) {
	req, err := http.NewRequest("GET", s.URL+"/v1/logs?follow=false&lines=1000", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Paddock-Tenant", tenant)
	res, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("logs of %s: %s: %s", tenant, res.Status, text.String())
	}
	return text.String(), err
}

// box is one container as the operator sees it.
type box struct {
	ID, State, Tenant, Cause string
	Frozen                   bool
}

func (s *service) boxes(tenant string) ([]box, error) {
	var list struct{ Containers []box }
	err := s.operator("GET", "/v1/pool/containers?tenant="+url.QueryEscape(tenant), "", nil, &list)
	return list.Containers, err
}

// about returns the lines of a log that name something.
func about(log *testenv.Log, name string) string {
	var found strings.Builder
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, name) {
			found.WriteString(line)
		}
	}
	return found.String()
}
