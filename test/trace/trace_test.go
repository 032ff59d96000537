//go:build trace

package trace

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// controlPath makes the test binary be a process that opens one path, as the service must not.
const controlPath = "PADDOCK_TRACE_CONTROL"

func TestMain(m *testing.M) {
	if name := os.Getenv(controlPath); name != "" {
		if f, err := os.Open(name); err == nil {
			f.Close()
		} else {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// plant writes whatever a sandbox can hold wherever it can be written: files, links to the host, directories, sockets. It answers
// with what it made. (Pipes take mknod(2), which neither Node nor the list of system calls has.)
const plant = `async (input) => {
	const fs = require('fs'), net = require('net'), made = []
	const attempt = (what, f) => { try { f(); made.push(what) } catch {} }
	for (const dir of ['/tmp', '/dev/shm', '/run', '/run/paddock', '/var/tmp', '/dev', '/']) {
		const at = dir + '/' + input.name
		attempt(at, () => fs.writeFileSync(at, 'planted', { mode: 0o777 }))
		for (const name of ['tenant', 'facts.json', 'link', 'egress', 'config.json', 'core']) attempt(dir + '/' + name, () => fs.writeFileSync(dir + '/' + name, 'planted'))
		for (const [i, to] of ['/etc/shadow', '/proc/1/root', '/run/paddock', '../../../../..', at].entries()) attempt(at + '-link' + i, () => fs.symlinkSync(to, at + '-link' + i))
		attempt(at + '-dir', () => fs.mkdirSync(at + '-dir/deep', { recursive: true }))
		await new Promise((ok) => { const s = net.createServer().on('error', ok); s.listen(at + '-socket', () => { made.push(at + '-socket'); s.unref(); ok() }) })
	}
	return made
}`

func TestRuncTouchesNoTenantPath(t *testing.T) { testTouches(t, "oci", "runc") }

func TestGVisorTouchesNoTenantPath(t *testing.T) { testTouches(t, "oci", "gvisor") }

func TestDockerTouchesNoTenantPath(t *testing.T) { testTouches(t, "docker", "runc") }

func testTouches(t *testing.T, engine, isolation string) {
	s := newService(t, engine, isolation)
	s.start()
	const napper = `{"id":"napper","policy":{"freezeAfter":"0.2s"}}`
	s.want("POST", "/v1/tenants", "", napper, 200)
	for _, tenant := range []string{"napper", "default"} {
		made := s.run(tenant, plant, map[string]any{"name": "planted"})
		t.Logf("%s made %s", tenant, made)
		if !strings.Contains(made, "/tmp/planted-link0") || !strings.Contains(made, "/tmp/planted-socket") {
			t.Fatalf("the tenant could plant nothing: %s", made)
		}
	}
	s.untilFrozen("napper")
	s.run("napper", "() => 1", nil)                                     // thawed
	s.call("default", "() => { while (true) {} }", nil, time.Second)    // killed, destroyed
	s.call("default", bomb, nil, 20*time.Second)                        // out of memory
	s.callFresh("default", plant, map[string]any{"name": "once"})       // destroyed with the call
	s.run("default", plant, map[string]any{"name": "before-a-restart"}) // to be adopted
	s.control()                                                         // the same eyes see what they should
	s.checkOwners()
	s.stop(syscall.SIGUSR2)
	s.start()
	s.run("default", plant, map[string]any{"name": "after-a-restart"})
	s.untilFrozen("napper")
	s.want("DELETE", "/v1/tenants/napper", "", "", 200)
	s.checkOwners()
	s.stop(syscall.SIGTERM)

	tr := s.traced()
	kinds, wrong := s.places.judge(tr, tr.ours)
	t.Logf("%d paths in the calls of %d threads, by kind:\n%s", len(tr.touches), len(tr.pids), list(kinds))
	t.Logf("programs that were started, whose own doings are not judged:\n%s", list(tr.execs))
	for _, w := range wrong {
		t.Error(w)
	}
	for _, must := range []string{"run directory", "data directory", "control groups"} { // else nothing was looked at
		if !slices.ContainsFunc(slices.Collect(maps.Keys(kinds)), func(k string) bool { return strings.HasPrefix(k, must) }) {
			t.Errorf("nothing of the %s was touched: the trace shows nothing", must)
		}
	}
}

const bomb = `() => { const hoard = []; for (;;) hoard.push(Buffer.alloc(4 << 20, 1)) }`

func list(counts map[string]int) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "%7d  %s\n", counts[name], name)
	}
	return b.String()
}
