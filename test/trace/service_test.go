//go:build trace

package trace

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
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
)

// service is the real program under strace, with its keeper under another one.
type service struct {
	t      *testing.T
	places places
	args   []string
	ready  string
	group  string
	files  []string // strace's
	cmd    *exec.Cmd
	exited chan error
	log    testenv.Log
	seen   map[int]bool // keepers that are traced
	http   http.Client
	URL    string `json:"http"`
	PID    int    `json:"pid"`
}

func newService(t *testing.T, engine, isolation string) *service {
	t.Helper()
	testenv.NeedRoot(t)
	id := testenv.ControllerID(t)
	base := filepath.Join("/var/lib", "pt-"+id) // no directory above it is anybody's but root's
	if err := os.Mkdir(base, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	program := os.Getenv("PADDOCK_BIN")
	if program == "" {
		program = filepath.Join(testenv.Root(t), "bin", "paddock")
	}
	s := &service{t: t, ready: filepath.Join(base, "data", "ready.json"), seen: map[int]bool{}, http: http.Client{Timeout: time.Minute}}
	s.places = places{data: filepath.Join(base, "data"), run: filepath.Join("/run", "pt-"+id), cache: filepath.Join(testenv.CacheDir, "downloads"),
		program: program}
	s.args = []string{"up", "--data-dir", s.places.data, "--cache-dir", s.places.cache, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
		"--engine", engine, "--isolation", isolation, "--ready-file", s.ready, "--memory-budget", "4GiB", "--min-ready", "2"}
	if engine == "oci" {
		s.places.runtime = testenv.Binary(t, map[string]string{"gvisor": "runsc", "runc": "runc"}[isolation])
		s.args = append(s.args, "--runtime", s.places.runtime)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.stop(syscall.SIGTERM)
		}
		if t.Failed() {
			t.Logf("the service's log ends:\n%s", s.log.Tail(30))
		}
	})
	return s
}

// strace returns the command that watches a process and its threads, but no program that it starts: what a runtime does is not
// the service's doing, and a sandbox that is traced is none.
func (s *service) strace(args ...string) *exec.Cmd {
	file := filepath.Join(filepath.Dir(s.places.data), fmt.Sprintf("strace-%d", len(s.files)))
	s.files = append(s.files, file)
	return exec.Command("strace", append([]string{"-f", "-y", "-b", "execve", "-e", "signal=none", "-s", "256", "-o", file,
		"-e", "trace=%file,connect,bind,getdents64,fchdir,setns,open_tree,move_mount,open_by_handle_at,pidfd_getfd,fsopen"}, args...)...)
}

// start starts the service and returns when it serves and its keeper is watched. No tenant's code has run by then.
func (s *service) start() {
	s.t.Helper()
	if err := os.Remove(s.ready); err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	s.cmd = s.strace(append([]string{s.places.program}, s.args...)...)
	s.cmd.Env = append(os.Environ(), "PADDOCK_RUN_DIR="+s.places.run)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("%v: apt-get install strace", err)
	}
	exited := make(chan error, 1)
	cmd := s.cmd
	go func() { exited <- cmd.Wait() }()
	s.exited = exited
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s.watchKeeper()
		if b, err := os.ReadFile(s.ready); err == nil && json.Unmarshal(b, s) == nil {
			break
		}
		select {
		case err := <-exited:
			s.cmd = nil
			s.t.Fatalf("paddock up ended before it was ready: %v", err)
		default:
		}
		if time.Now().After(end) {
			s.t.Fatal("paddock up is not ready in time")
		}
	}
	if engineOf(s.args) == "oci" && len(s.seen) == 0 {
		s.t.Fatal("no keeper was found to watch")
	}
	id, err := os.ReadFile(filepath.Join(s.places.data, "id"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.group = "paddock/" + strings.TrimSpace(string(id))
}

func engineOf(args []string) string { return args[slices.Index(args, "--engine")+1] }

// watchKeeper attaches to this service's keeper, once, and returns when all of its threads are watched.
func (s *service) watchKeeper() {
	s.t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, line := range lines {
		text, err := os.ReadFile(line)
		argv := strings.Split(string(text), "\x00")
		var pid int
		if _, e := fmt.Sscanf(line, "/proc/%d/", &pid); err != nil || e != nil || s.seen[pid] {
			continue
		}
		if len(argv) < 2 || argv[1] != "keeper" || !strings.Contains(string(text), s.places.run+"/") {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(status), "TracerPid:\t0\n") {
			continue // gone, or between fork and exec of a program that a watched one starts
		}
		s.seen[pid] = true
		cmd := s.strace("-p", fmt.Sprint(pid))
		said := &testenv.Log{}
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		s.t.Cleanup(func() {
			select {
			case <-done: // with the keeper
			case <-time.After(10 * time.Second):
				s.t.Errorf("keeper %d stays: %v", pid, cmd.Process.Kill())
			}
		})
		testenv.Await(s.t, "strace attaches to the keeper", func() bool { return strings.Contains(said.String(), "attached") })
	}
}

// stop signals the service itself; strace ends with it.
func (s *service) stop(sig syscall.Signal) {
	s.t.Helper()
	cmd := s.cmd
	s.cmd = nil
	if s.PID == 0 {
		s.t.Error("a service that never was ready", syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)) // strace alone would let it go
		return
	}
	if err := syscall.Kill(s.PID, sig); err != nil {
		s.t.Error(err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			s.t.Errorf("after %v: %v", sig, err)
		}
	case <-time.After(time.Minute):
		s.t.Fatalf("still running a minute after %v: %v", sig, cmd.Process.Kill())
	}
}

// traced reads what the straces of the service and its keepers wrote.
func (s *service) traced() *traced {
	s.t.Helper()
	tr := newTraced()
	for _, file := range s.files {
		s.read(tr, file)
	}
	return tr
}

func (s *service) read(tr *traced, file string) {
	s.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if err := tr.read(f); err != nil {
		s.t.Errorf("%s: %v", filepath.Base(file), err)
	}
}

// control has another program open what a tenant planted, by the process's root and by a link among the service's own files, and
// wants both seen. Under gVisor nothing that a tenant writes is a file of the host's, so that there the process's root is opened.
func (s *service) control() {
	s.t.Helper()
	groups, err := cgroup.Detect()
	if err != nil {
		s.t.Fatal(err)
	}
	pids, err := groups.At(s.group).Procs()
	if err != nil || len(pids) == 0 {
		s.t.Fatalf("no process of a container: %v, %v", pids, err)
	}
	planted := ""
	for _, pid := range pids {
		name := fmt.Sprintf("/proc/%d/root/tmp/planted", pid)
		if _, err := os.Lstat(name); err == nil {
			planted = name
		}
	}
	if planted == "" {
		if s.args[slices.Index(s.args, "--isolation")+1] != "gvisor" {
			s.t.Fatalf("what was planted is not seen from the host in any of %v: the control shows nothing", pids)
		}
		planted = fmt.Sprintf("/proc/%d/root", pids[0])
	}
	link := filepath.Join(s.places.data, "innocent")
	if err := os.Symlink(planted, link); err != nil {
		s.t.Fatal(err)
	}
	defer os.Remove(link)
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{planted, link} {
		kept := s.files
		cmd := s.strace(self)
		file := s.files[len(s.files)-1] + "-control"
		s.files = kept
		cmd.Args[slices.Index(cmd.Args, "-o")+1] = file
		cmd.Env = append(os.Environ(), controlPath+"="+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("the control: %v: %s", err, out)
		}
		tr := newTraced()
		s.read(tr, file)
		_, wrong := (places{data: s.places.data, program: self, runtime: self}).judge(tr, tr.ours)
		if len(wrong) == 0 {
			s.t.Errorf("%s was opened and nobody noticed", name)
		}
		s.t.Logf("control: %s: seen: %s", name, strings.Join(wrong, "; "))
	}
}

// checkOwners wants nothing where the service works to be writable by anybody but root. So no link of a tenant's can stand there,
// whatever a path is called. The sockets that containers connect to belong to them; their directories do not.
func (s *service) checkOwners() {
	s.t.Helper()
	looked := 0
	for _, top := range []string{s.places.data, s.places.run} {
		err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // a container that went
			}
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "images" || d.Name() == "rootfs") {
				return fs.SkipDir // images have a test of their own
			}
			info, err := d.Info()
			if err != nil {
				return nil
			}
			if looked++; d.Name() == "r" && info.Mode().Perm() == 0o700 {
				return fs.SkipDir // the runtime's own state, which nobody but root enters
			}
			socket := info.Mode()&fs.ModeSocket != 0
			if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 && !socket {
				s.t.Errorf("%s belongs to %d", name, uid)
			}
			if info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o022 != 0 {
				s.t.Errorf("%s is %v", name, info.Mode())
			}
			return nil
		})
		if err != nil {
			s.t.Error(err)
		}
	}
	if looked < 20 {
		s.t.Errorf("only %d files were looked at", looked)
	}
}

func (s *service) untilFrozen(tenant string) {
	s.t.Helper()
	testenv.Await(s.t, tenant+" is frozen", func() bool {
		_, body := s.do("GET", "/v1/pool/containers?tenant="+tenant, "", "")
		return strings.Contains(body, `"frozen":true`)
	})
}

func (s *service) run(tenant, source string, input any) string {
	s.t.Helper()
	status, body := s.call(tenant, source, input, 30*time.Second)
	if status != 200 {
		s.t.Fatalf("%s: %d %s", tenant, status, body)
	}
	return body
}

func (s *service) call(tenant, source string, input any, timeout time.Duration) (int, string) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"source": source, "input": input, "timeout": timeout.String()})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do("POST", "/v1/run", tenant, string(body))
}

func (s *service) callFresh(tenant, source string, input any) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"source": source, "input": input})
	if err != nil {
		s.t.Fatal(err)
	}
	if status, text := s.do("POST", "/v1/run?fresh=true", tenant, string(body)); status != 200 {
		s.t.Fatalf("%d %s", status, text)
	}
}

func (s *service) want(method, path, tenant, body string, status int) {
	s.t.Helper()
	if got, text := s.do(method, path, tenant, body); got != status {
		s.t.Fatalf("%s %s: %d %s", method, path, got, text)
	}
}

func (s *service) do(method, path, tenant, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(s.places.data, "operator.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	req.Header.Set("Content-Type", "application/json")
	if tenant != "" {
		req.Header.Set("Paddock-Tenant", tenant)
	}
	res, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
