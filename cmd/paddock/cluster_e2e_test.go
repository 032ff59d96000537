package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"paddock/internal/pki"
	"paddock/internal/testenv"
)

// part is one process of a small cluster: its flags, and how it runs now.
type part struct {
	t       *testing.T
	name    string
	args    []string
	env     []string
	ready   string
	log     testenv.Log
	process *os.Process
	exited  chan error
	HTTP    string // set by the first start
	ID      string
}

func (p *part) start() {
	p.t.Helper()
	path, err := program()
	if err != nil {
		p.t.Fatal(err)
	}
	os.Remove(p.ready)
	cmd := exec.Command(path, p.args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), p.env...), &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started, exited := make(chan error, 1), make(chan error, 1)
	go func() { // the signal at a parent's death comes with the end of the thread that started it
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
	p.process, p.exited = cmd.Process, exited
	if p.ready == "" {
		return
	}
	deadline := time.After(5 * time.Minute)
	for {
		var is struct{ HTTP, Controller string }
		if b, err := os.ReadFile(p.ready); err == nil && json.Unmarshal(b, &is) == nil {
			if p.HTTP+p.ID == "" {
				p.HTTP, p.ID = is.HTTP, is.Controller
			}
			return
		}
		select {
		case err := <-exited:
			p.process = nil
			p.t.Fatalf("%s ended before it was ready: %v\n%s", p.name, err, p.log.Tail(30))
		case <-deadline:
			p.t.Fatalf("%s is not ready in time\n%s", p.name, p.log.Tail(30))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop sends a signal and wants exit code 0.
func (p *part) stop(sig syscall.Signal) {
	if p.process == nil {
		return
	}
	process := p.process
	p.process = nil
	_ = process.Signal(sig)
	select {
	case err := <-p.exited:
		if err != nil {
			p.t.Errorf("%s after %v: %v\n%s", p.name, sig, err, p.log.Tail(20))
		}
	case <-time.After(2 * time.Minute):
		_ = process.Kill()
		p.t.Errorf("%s still runs two minutes after %v\n%s", p.name, sig, p.log.Tail(20))
	}
}

// smallCluster is the fewest processes that show what several controllers and routers are for.
type smallCluster struct {
	t           *testing.T
	store       *part
	controllers [2]*part
	routers     [2]*part
	key         string
}

func newSmallCluster(t *testing.T) *smallCluster {
	t.Helper()
	testenv.NeedRoot(t)
	dir, run := passableDir(t), filepath.Join("/run", "pt-"+testenv.ControllerID(t))
	authority, err := pki.NewAuthority(filepath.Join(dir, "ca"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	member, peer := freeAddress(t), freeAddress(t)
	c := &smallCluster{t: t, store: &part{t: t, name: "store", args: []string{"store", "--name", "m1", "--client", "http://" + member,
		"--peer", "http://" + peer, "--members", "m1=http://" + peer, "--dir", filepath.Join(dir, "m1")}}}
	begin := func(p *part) {
		t.Cleanup(func() { p.stop(syscall.SIGTERM) })
		p.start()
	}
	begin(c.store)
	flags := func(role pki.Role, name string) []string {
		cert, key, err := authority.Issue(filepath.Join(dir, "certs"), pki.Request{
			Role: role, Name: name, Hosts: []string{"127.0.0.1"}, TTL: pki.DefaultTTL}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return []string{"--etcd-endpoints", "http://" + member, "--cert", cert, "--cert-key", key, "--ca", filepath.Join(dir, "certs", pki.CAFile),
			"--data-dir", filepath.Join(dir, name), "--ready-file", filepath.Join(dir, name+".ready")}
	}
	uids := freeUIDs(t)
	for i := range c.controllers {
		name := fmt.Sprintf("c%d", i+1)
		p := &part{t: t, name: name, ready: filepath.Join(dir, name+".ready"), env: []string{"PADDOCK_RUN_DIR=" + run}}
		p.args = append([]string{"controller", "--listen", "127.0.0.1:0", "--status", "", "--engine", "oci", "--isolation", "runc",
			"--runtime", testenv.Binary(t, "runc"), "--cache-dir", filepath.Join(testenv.CacheDir, "downloads"), "--min-ready", "2",
			"--memory-budget", "3GiB", "--uid-base", fmt.Sprint(uids + uint32(i)*4096)}, flags(pki.RoleController, name)...)
		c.controllers[i] = p
		begin(p)
	}
	for i := range c.routers {
		name := fmt.Sprintf("r%d", i+1)
		p := &part{t: t, name: name, ready: filepath.Join(dir, name+".ready"), env: []string{"PADDOCK_RUN_DIR=" + run}}
		p.args = append([]string{"router", "--secrets", filepath.Join(dir, "secrets"), "--blobs", filepath.Join(dir, "blobs"), "--blobs-shared",
			"--http", freeAddress(t), "--grpc", freeAddress(t)}, flags(pki.RoleRouter, name)...)
		c.routers[i] = p
		begin(p)
	}
	key, err := os.ReadFile(filepath.Join(dir, "secrets", "operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	c.key = strings.TrimSpace(string(key))
	return c
}

// freeAddress is one that nobody listens at now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ask makes one request and returns status and body.
func (c *smallCluster) ask(router int, method, path, tenant, kind, body string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.routers[router].HTTP+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Paddock-Tenant", tenant)
	req.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(bytes.TrimSpace(b)), err
}

func (c *smallCluster) must(router int, method, path, tenant, body string) string {
	c.t.Helper()
	status, answer, err := c.ask(router, method, path, tenant, "application/json", body)
	if err != nil || status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %s %v", method, path, status, answer, err)
	}
	return answer
}

// await is eventually for what takes a busy machine a while: containers are made in it.
func (c *smallCluster) await(what string, f func() bool) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			for _, p := range c.controllers {
				c.t.Logf("%s:\n%s", p.name, p.log.Tail(20))
			}
			c.t.Fatalf("not within two minutes: %s", what)
		}
	}
}

func (c *smallCluster) admit(tenant string) {
	c.t.Helper()
	c.must(0, "POST", "/v1/tenants", "", fmt.Sprintf(`{"id":%q}`, tenant))
	source, err := json.Marshal(map[string][]byte{"source": []byte("async x => { await new Promise(r => setTimeout(r, x.ms)); return x.ms }")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.must(0, "PUT", "/v1/functions/f", tenant, string(source))
}

// traffic is constant calls of all tenants through both routers, save those that are out of the rotation.
type traffic struct {
	c      *smallCluster
	out    [2]atomic.Bool
	open   [2]atomic.Int64
	stop   chan struct{}
	work   sync.WaitGroup
	calls  atomic.Int64
	mu     sync.Mutex
	failed []string
}

func (c *smallCluster) load(tenants ...string) *traffic {
	l := &traffic{c: c, stop: make(chan struct{})}
	for i, t := range tenants {
		l.work.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				l.work.Go(func() { l.call(t, i+n, []int{0, 0, 40, 200}[n%4]) })
				select {
				case <-l.stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	return l
}

func (l *traffic) call(tenant string, n, ms int) {
	at := n % 2
	l.open[at].Add(1)
	if l.out[at].Load() {
		l.open[at].Add(-1)
		at = 1 - at
		l.open[at].Add(1)
	}
	defer l.open[at].Add(-1)
	l.calls.Add(1)
	status, body, err := l.c.ask(at, "POST", "/v1/functions/f/invoke?timeout=60s", tenant, "application/json", fmt.Sprintf(`{"ms":%d}`, ms))
	if err == nil && status == http.StatusOK && body == fmt.Sprint(ms) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf("%s by %s: %d %.300s %v", tenant, l.c.routers[at].name, status, body, err))
}

// end stops the calls and wants none of them to have failed.
func (l *traffic) end() {
	l.c.t.Helper()
	close(l.stop)
	l.work.Wait()
	if len(l.failed) > 0 {
		l.c.t.Errorf("%d of %d calls failed: %s", len(l.failed), l.calls.Load(), strings.Join(l.failed[:min(len(l.failed), 5)], "\n"))
		for _, p := range l.c.controllers {
			l.c.t.Logf("%s:\n%s", p.name, p.log.Tail(30))
		}
	}
}

// more waits for so many calls more.
func (l *traffic) more(n int64) {
	l.c.t.Helper()
	want := l.calls.Load() + n
	l.c.await("calls go on", func() bool { return l.calls.Load() >= want })
}

// Every process of a cluster is replaced under load, one after the other: no call fails. Then the store stops: warm calls and a tenant
// that has never called are served, changes are refused, and work again when it is back.
func TestClusterUpgradesAndOutlivesItsStore(t *testing.T) {
	c := newSmallCluster(t)
	tenants := []string{"t1", "t2", "t3", "t4"}
	for _, id := range tenants {
		c.admit(id)
	}
	c.must(0, "POST", "/v1/tenants", "", `{"id":"late"}`) // no container of any controller's is bound to it
	for i := range c.routers {
		for _, id := range tenants { // both have seen them
			c.await("the first call", func() bool {
				status, _, err := c.ask(i, "POST", "/v1/functions/f/invoke", id, "application/json", `{"ms":0}`)
				return err == nil && status == http.StatusOK
			})
		}
	}
	l := c.load(tenants...)
	l.more(30)
	for _, p := range c.controllers {
		p.stop(syscall.SIGTERM)
		p.start()
		l.more(30)
	}
	for i, p := range c.routers { // as a balancer does it
		l.out[i].Store(true)
		c.await("its calls are over", func() bool { return l.open[i].Load() == 0 })
		p.stop(syscall.SIGTERM)
		p.start()
		l.out[i].Store(false)
		l.more(30)
	}
	c.drainAndBack(l)
	c.withoutStore(l)
	l.end()
	t.Logf("%d calls", l.calls.Load())
}

// drainAndBack drains a controller by an operator's wish and puts it back.
func (c *smallCluster) drainAndBack(l *traffic) {
	c.t.Helper()
	id := c.controllers[0].ID
	c.must(0, "POST", "/v1/pool/nodes/"+id+"/drain", "", "{}")
	node := func() (n nodeState) {
		var list struct{ Nodes []nodeState }
		if err := json.Unmarshal([]byte(c.must(1, "GET", "/v1/pool/nodes", "", "")), &list); err != nil {
			c.t.Fatal(err)
		}
		for _, n = range list.Nodes {
			if n.ID == id {
				return n
			}
		}
		c.t.Fatalf("controller %s is not listed: %+v", id, list)
		return n
	}
	c.await("it is drained", func() bool { return node().State == "drained" })
	if n := node(); n.Unprepared != 0 || n.OverdueCalls != "0" {
		c.t.Errorf("drained: %+v", n)
	}
	l.more(30)
	c.must(0, "POST", "/v1/pool/nodes/"+id+"/undrain", "", "{}")
	c.await("it is warm again", func() bool { n := node(); return n.State == "serving" && n.Ready == 2 })
}

// nodeState is what the API says of a controller.
type nodeState struct {
	ID, State         string
	Ready, Unprepared int
	OverdueCalls      string
}

// withoutStore stops the store for a while.
func (c *smallCluster) withoutStore(l *traffic) {
	c.t.Helper()
	if err := c.store.process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	l.more(30)
	if status, answer, err := c.ask(0, "POST", "/v1/run", "late", "application/javascript", "() => 1"); err != nil || status != http.StatusOK || answer != "1" {
		c.t.Errorf("a tenant that has never called, without the store: %d %s %v", status, answer, err)
	}
	if status, answer, err := c.ask(0, "POST", "/v1/tenants", "", "application/json", `{"id":"never"}`); err != nil || status != http.StatusServiceUnavailable || !strings.Contains(answer, "no_capacity") {
		c.t.Errorf("a change without the store: %d %s %v", status, answer, err)
	}
	if err := c.store.process.Signal(syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
	c.await("changes are taken again", func() bool {
		status, _, err := c.ask(0, "POST", "/v1/tenants", "", "application/json", `{"id":"again"}`)
		return err == nil && (status == http.StatusOK || status == http.StatusConflict)
	})
	l.more(30)
}

// The script by which a cluster is tried out starts one, is answered through both routers, and leaves nothing.
func TestClusterScript(t *testing.T) {
	testenv.NeedRoot(t)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := passableDir(t)
	cmd := exec.Command(filepath.Join(testenv.Root(t), "scripts", "cluster.sh"), filepath.Join(dir, "cluster"))
	cmd.Env = append(os.Environ(), "CHECK=1", "ISOLATION=runc", "MIN_READY=1", "PADDOCK_BIN="+path, fmt.Sprintf("PORT=%d", freePorts(t, 60)),
		"PADDOCK_RUN_DIR="+filepath.Join("/run", "pt-"+testenv.ControllerID(t)), "PATH="+filepath.Dir(testenv.Binary(t, "runc"))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), `"served"`) != 2 || !strings.HasSuffix(strings.TrimSpace(string(out)), "stopping") {
		logs, _ := filepath.Glob(filepath.Join(dir, "cluster", "*.log"))
		for _, l := range logs {
			b, _ := os.ReadFile(l)
			t.Logf("%s:\n%s", filepath.Base(l), tail(string(b), 5))
		}
		t.Fatalf("%v\n%s", err, out)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(dir)) {
			t.Errorf("process %s is left: %s", filepath.Base(filepath.Dir(p)), bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		}
	}
}

// freePorts is the first of n ports that nobody listens at now, outside of the range that the kernel hands out.
func freePorts(t *testing.T, n int) int {
	t.Helper()
search:
	for first := 20_000 + os.Getpid()%100*100; first < 32_000; first += 100 {
		for p := first; p < first+n; p++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if err != nil {
				continue search
			}
			l.Close()
		}
		return first
	}
	t.Fatal("there are no free ports in a row")
	return 0
}
