package chaos

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/pki"
	"paddock/internal/testenv"
)

// The parts of a cluster.
const (
	members     = 3
	controllers = 3
	routers     = 2
)

// cluster is the whole of it on this machine. Between every process and every member of the store, and between the routers and
// each controller, stands a proxy.
type cluster struct {
	t         *testing.T
	isolation string
	dir       string
	run       string // base of the controllers' run directories
	bin       string
	members   [members]*member
	nodes     [controllers]*node
	routers   [routers]*front
	key       string // the operator's
	store     *storeClient
	mounts    []string
	stopped   bool
}

// member is one of the store.
type member struct {
	*process
	client, peer string // addresses
	dir          string
}

// node is a controller.
type node struct {
	*process
	id    string
	data  string
	way   *proxy          // from the routers
	store [members]*proxy // to the store
	addr  string          // its own
	url   string          // of its status
}

// front is a router.
type front struct {
	*process
	url   string
	store [members]*proxy
}

// startCluster starts everything and returns when it serves. Whatever the test does, nothing of it stays.
func startCluster(t *testing.T, isolation, bin string) *cluster {
	t.Helper()
	testenv.NeedRoot(t)
	c := &cluster{t: t, isolation: isolation, bin: bin, dir: t.TempDir(), run: filepath.Join("/run", "pc-"+testenv.ControllerID(t))}
	for _, d := range []string{c.dir, filepath.Dir(c.dir)} { // sandboxes pass through, under ids of their own
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, wrong := range c.stop() {
			t.Error(wrong)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.issue())
	must(c.startMembers())
	var err error
	cert, certKey, ca := c.cert("etcd-client-all")
	c.store, err = openStore(c.endpoints(), cert, certKey, ca)
	must(err)
	must(c.startNodes())
	must(c.startRouters())
	key, err := os.ReadFile(filepath.Join(c.dir, "secrets", "operator.key"))
	must(err)
	c.key = strings.TrimSpace(string(key))
	return c
}

// cert names the files of a certificate.
func (c *cluster) cert(name string) (cert, key, ca string) {
	dir := filepath.Join(c.dir, "certs")
	return filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"), filepath.Join(dir, pki.CAFile)
}

func (c *cluster) issue() error {
	authority, err := pki.NewAuthority(filepath.Join(c.dir, "ca"), time.Now())
	if err != nil {
		return err
	}
	requests := []pki.Request{{Role: pki.RoleClient, Name: "all"}}
	for i := range members {
		requests = append(requests, pki.Request{Role: pki.RoleEtcd, Name: fmt.Sprintf("m%d", i+1), Hosts: []string{"127.0.0.1"}})
	}
	for i := range controllers {
		requests = append(requests, pki.Request{Role: pki.RoleController, Name: fmt.Sprintf("c%d", i+1), Hosts: []string{"127.0.0.1"}})
	}
	for i := range routers {
		requests = append(requests, pki.Request{Role: pki.RoleRouter, Name: fmt.Sprintf("r%d", i+1)})
	}
	for _, r := range requests {
		r.TTL = pki.DefaultTTL
		if _, _, err := authority.Issue(filepath.Join(c.dir, "certs"), r, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) endpoints() (all []string) {
	for _, m := range c.members {
		all = append(all, "https://"+m.client)
	}
	return all
}

func (c *cluster) startMembers() error {
	var named []string
	for i := range c.members {
		m := &member{client: freeAddress(c.t), peer: freeAddress(c.t), dir: filepath.Join(c.dir, fmt.Sprintf("m%d", i+1))}
		c.members[i] = m
		named = append(named, fmt.Sprintf("m%d=https://%s", i+1, m.peer))
	}
	for i, m := range c.members {
		name := fmt.Sprintf("m%d", i+1)
		cert, key, ca := c.cert("etcd-" + name)
		m.process = &process{name: name, bin: c.bin, args: []string{"store", "--name", name, "--client", "https://" + m.client, "--peer", "https://" + m.peer,
			"--members", strings.Join(named, ","), "--cert", cert, "--cert-key", key, "--ca", ca, "--dir", m.dir, "--log-format", "json"}}
		if err := m.start(); err != nil {
			return err
		}
	}
	return nil
}

// toStore are a process's own ways to the store, and the flags that lead it there.
func (c *cluster) toStore() (ways [members]*proxy, flags []string, err error) {
	var endpoints []string
	for i, m := range c.members {
		if ways[i], err = newProxy(freeAddress(c.t), m.client); err != nil {
			return ways, nil, err
		}
		endpoints = append(endpoints, "https://"+ways[i].address())
	}
	cert, key, ca := c.cert("etcd-client-all")
	return ways, []string{"--etcd-endpoints", strings.Join(endpoints, ","), "--etcd-cert", cert, "--etcd-key", key, "--etcd-ca", ca, "--log-format", "json"}, nil
}

// minReady warm sandboxes of each controller do for eight tenants.
const minReady = 2

func (c *cluster) startNodes() error {
	uids := freeUIDs(c.t)
	for i := range c.nodes {
		name := fmt.Sprintf("c%d", i+1)
		n := &node{data: filepath.Join(c.dir, name), addr: freeAddress(c.t), url: freeAddress(c.t)}
		var flags []string
		var err error
		if n.store, flags, err = c.toStore(); err != nil {
			return err
		}
		if n.way, err = newProxy(freeAddress(c.t), n.addr); err != nil {
			return err
		}
		if err := c.small(n.data); err != nil {
			return err
		}
		cert, key, ca := c.cert("controller-" + name)
		n.process = &process{name: name, bin: c.bin, ready: filepath.Join(c.dir, name+".ready"), env: []string{"PADDOCK_RUN_DIR=" + c.run}}
		n.args = append([]string{"controller", "--data-dir", n.data, "--cache-dir", filepath.Join(testenv.CacheDir, "downloads"), "--listen", n.addr,
			"--advertise", n.way.address(), "--status", n.url, "--cert", cert, "--cert-key", key, "--ca", ca, "--ready-file", n.ready, "--engine", "oci",
			"--isolation", c.isolation, "--runtime", testenv.Binary(c.t, map[string]string{"gvisor": "runsc", "runc": "runc"}[c.isolation]),
			"--min-ready", fmt.Sprint(minReady), "--memory-budget", "3GiB", "--uid-base", fmt.Sprint(uids + uint32(i)<<16)}, flags...)
		c.nodes[i] = n
		if err := n.start(); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := n.awaitReady(); err != nil {
			return err
		}
		id, err := os.ReadFile(filepath.Join(n.data, "id"))
		if err != nil {
			return err
		}
		n.id = strings.TrimSpace(string(id))
	}
	return nil
}

// dataBytes is what a controller's data directory may take: its image, and little more.
const dataBytes = 512 << 20

// small mounts a file system of its own at dir, which a fault can fill.
func (c *cluster) small(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("chaos", dir, "tmpfs", unix.MS_NOSUID, fmt.Sprintf("mode=0755,size=%d", dataBytes)); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	c.mounts = append(c.mounts, dir)
	return nil
}

func (c *cluster) startRouters() error {
	for i := range c.routers {
		name := fmt.Sprintf("r%d", i+1)
		f := &front{}
		http := freeAddress(c.t)
		f.url = "http://" + http
		ways, flags, err := c.toStore()
		if err != nil {
			return err
		}
		f.store = ways
		cert, key, ca := c.cert("router-" + name)
		f.process = &process{name: name, bin: c.bin, ready: filepath.Join(c.dir, name+".ready")}
		f.args = append([]string{"router", "--data-dir", filepath.Join(c.dir, name), "--secrets", filepath.Join(c.dir, "secrets"), "--blobs",
			filepath.Join(c.dir, "blobs"), "--blobs-shared", "--http", http, "--grpc", freeAddress(c.t), "--cert", cert, "--cert-key", key, "--ca", ca,
			"--ready-file", f.ready}, flags...)
		c.routers[i] = f
		if err := f.start(); err != nil {
			return err
		}
		if err := f.awaitReady(); err != nil { // the first one makes the keys that they share
			return err
		}
	}
	return nil
}

// stopLimit bounds an end by SIGTERM: calls in flight have half a minute.
const stopLimit = 50 * time.Second

// stop ends everything with SIGTERM and says what did not end well and what is left on this machine. Idempotent.
func (c *cluster) stop() (wrong []string) {
	if c.stopped {
		return nil
	}
	c.stopped = true
	for _, f := range c.routers {
		if f != nil {
			wrong = append(wrong, end(f.process)...)
		}
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, n := range c.nodes {
		if n != nil && n.process != nil {
			all.Go(func() {
				w := end(n.process)
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, w...)
			})
		}
	}
	all.Wait()
	if c.store != nil {
		c.store.Close()
	}
	for _, m := range c.members {
		if m != nil && m.process != nil {
			wrong = append(wrong, end(m.process)...)
		}
	}
	for _, n := range c.nodes {
		if n != nil && n.id != "" {
			wrong = append(wrong, c.remains(n)...)
		}
	}
	c.closeWays()
	for _, m := range c.mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			wrong = append(wrong, fmt.Sprintf("unmount %s: %v", m, err))
		}
	}
	return wrong
}

func (c *cluster) closeWays() {
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		for _, w := range append(n.store[:], n.way) {
			if w != nil {
				w.close()
			}
		}
	}
	for _, f := range c.routers {
		if f == nil {
			continue
		}
		for _, w := range f.store {
			if w != nil {
				w.close()
			}
		}
	}
}

// end stops one process.
func end(p *process) (wrong []string) {
	if p == nil || !p.running() {
		return nil
	}
	_ = p.signal(syscall.SIGCONT)
	if err := p.stop(stopLimit); err != nil {
		wrong = append(wrong, err.Error())
		p.kill()
	}
	return wrong
}

// ways are all proxies between a process and the store.
func (c *cluster) waysToStore() (all []*proxy) {
	for _, n := range c.nodes {
		all = append(all, n.store[:]...)
	}
	for _, f := range c.routers {
		all = append(all, f.store[:]...)
	}
	return all
}

// freeAddress is one of this machine that nobody uses, and that no outgoing connection will be given.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		var b [2]byte
		_, _ = rand.Read(b[:])
		address := fmt.Sprintf("127.0.0.1:%d", 14000+int(binary.BigEndian.Uint16(b[:]))%18000)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// freeUIDs is the first of three ranges of user ids that no other test is likely to use.
func freeUIDs(t *testing.T) uint32 {
	t.Helper()
	var b [2]byte
	_, _ = rand.Read(b[:])
	return 1<<30 + uint32(binary.BigEndian.Uint16(b[:])>>2)<<16
}
