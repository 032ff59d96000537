package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"paddock/internal/testenv"
)

// TestPosture reads a live container from the host, every thread of it, after it has started more threads and a child.
func TestPosture(t *testing.T) {
	e := newEngine(t, testenv.ControllerID(t))
	spec := newSpec(t, `const {Worker} = require('worker_threads'), {spawn} = require('child_process')
		const worker = new Worker('setInterval(() => {}, 1e6)', {eval: true})
		worker.on('online', () => {
			const child = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1e6)'])
			child.stdout.once('data', () => console.log('up'))
		})`)
	c := create(t, e, spec)
	said(t, c, "up")
	pids, err := c.group.Procs()
	if err != nil || len(pids) != 2 {
		t.Fatalf("processes %v, %v; want the first and its child", pids, err)
	}
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(threads) < 5 {
			t.Fatalf("threads %v, %v", threads, err)
		}
		for _, thread := range threads {
			checkThread(t, thread, spec.UID)
		}
		checkProcess(t, fmt.Sprintf("/proc/%d", pid))
	}
	// The tmpfs and descriptors of the first process.
	checkMounts(t, c)
	checkDescriptors(t, c)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func checkThread(t *testing.T, dir string, uid uint32) {
	t.Helper()
	status := map[string]string{}
	for line := range strings.Lines(read(t, dir+"/status")) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.Join(strings.Fields(value), " ")
	}
	ids := strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d ", uid), 4))
	for key, want := range map[string]string{
		"Uid": ids, "Gid": ids, "Groups": "", "NoNewPrivs": "1", "Seccomp": "2",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
	} {
		// Some runtimes list the primary group again.
		if got := status[key]; got != want && !(key == "Groups" && got == fmt.Sprint(uid)) {
			t.Errorf("%s: %s is %q, want %q", dir, key, got, want)
		}
	}
}

const none = "0000000000000000"

func checkProcess(t *testing.T, dir string) {
	t.Helper()
	for _, ns := range []string{"pid", "mnt", "ipc", "uts", "net", "cgroup"} {
		inside, err := os.Readlink(dir + "/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if host, err := os.Readlink("/proc/self/ns/" + ns); err != nil || host == inside {
			t.Errorf("%s shares the host's %s namespace (%v)", dir, ns, err)
		}
	}
	if adj := strings.TrimSpace(read(t, dir+"/oom_score_adj")); adj != "1000" {
		t.Errorf("oom_score_adj %s, want 1000", adj)
	}
	limits := map[string]string{
		"Max core file size": "0", "Max open files": "256", "Max file size": "16777216", "Max locked memory": "65536",
		"Max pending signals": "256", "Max msgqueue size": "0", "Max stack size": "8388608", "Max address space": "unlimited",
	}
	for line := range strings.Lines(read(t, dir+"/limits")) {
		for name, want := range limits {
			rest, found := strings.CutPrefix(line, name)
			if !found {
				continue
			}
			delete(limits, name)
			if f := strings.Fields(rest); f[0] != want || f[1] != want {
				t.Errorf("%s: %v, want %s", name, f, want)
			}
		}
	}
	if len(limits) > 0 {
		t.Errorf("limits not found: %v", limits)
	}
	for line := range strings.Lines(read(t, dir+"/net/dev")) {
		if name, _, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) != "lo" {
			t.Errorf("network interface %s", name)
		}
	}
}

// checkMounts: nothing is writable but memory file systems of a bounded size, and those on /tmp and /dev only.
func checkMounts(t *testing.T, c *Container) {
	t.Helper()
	state, err := c.inspect(within(t))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"/":            {"ro"},
		"/tmp":         {"rw", "nosuid", "nodev", "noexec"},
		"/run/paddock": {"ro"},
		"/proc/sys":    {"ro"},
	}
	// /sys/fs/cgroup is root's, and masked by another mount on top.
	writable := []string{"/tmp", "/dev", "/dev/pts", "/proc", "/sys/fs/cgroup"}
	top := map[string]string{}
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/mountinfo", state.Pid))) {
		front, back, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(front), strings.Fields(back)
		point, options := fields[4], strings.Split(fields[5], ",")
		top[point] = fields[5]
		for _, o := range want[point] {
			if !slices.Contains(options, o) {
				t.Errorf("%s is mounted %v, want %v", point, options, want[point])
			}
		}
		delete(want, point)
		readOnly := slices.Contains(options, "ro")
		// /dev/null over a masked file is a device of the container's own /dev.
		if !readOnly && !slices.Contains(writable, point) && !(strings.HasPrefix(point, "/proc/") && fields[3] == "/null") {
			t.Errorf("%s is writable: %s", point, line)
		}
		if point == "/tmp" && (super[0] != "tmpfs" || !strings.Contains(super[2], "size=16384k") ||
			!strings.Contains(super[2], "nr_inodes=1024")) {
			t.Errorf("/tmp: %v", super)
		}
		if point == "/dev/shm" || super[0] == "mqueue" || super[0] == "cgroup" && !readOnly {
			t.Errorf("mounted: %s", line)
		}
	}
	if len(want) > 0 {
		t.Errorf("not mounted: %v", want)
	}
	if o := top["/sys/fs/cgroup"]; o != "" && !strings.HasPrefix(o, "ro") {
		t.Errorf("/sys/fs/cgroup is not masked: %s", o)
	}
}

func checkDescriptors(t *testing.T, c *Container) {
	t.Helper()
	state, err := c.inspect(within(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d/fd", state.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range entries {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		kind, _, _ := strings.Cut(target, ":")
		if !slices.Contains([]string{"pipe", "socket", "anon_inode", "/dev/null"}, kind) {
			t.Errorf("descriptor %s is %s", fd.Name(), target)
		}
	}
}

// TestProbe tries from inside what must not work.
func TestProbe(t *testing.T) {
	e := newEngine(t, testenv.ControllerID(t))
	c := create(t, e, newSpec(t, `const fs = require('fs'), net = require('net'), dns = require('dns'), out = {}
		const attempt = (name, f) => { try { f(); out[name] = 'done' } catch (e) { out[name] = e.code || String(e) } }
		attempt('big', () => { fs.writeFileSync('/tmp/big', ''); fs.truncateSync('/tmp/big', 64 << 20) })
		attempt('exec', () => { fs.writeFileSync('/tmp/x', '#!/paddock/bin/node', {mode: 0o777});
			require('child_process').execFileSync('/tmp/x') })
		attempt('fill', () => { const b = Buffer.alloc(1 << 20); for (let i = 0; i < 20; i++) fs.writeFileSync('/tmp/f' + i, b) })
		attempt('cgroup', () => { if (fs.readdirSync('/sys/fs/cgroup').length) throw {code: 'visible'} })
		attempt('mqueue', () => fs.writeFileSync('/dev/mqueue/q', ''))
		attempt('sysctl', () => fs.writeFileSync('/proc/sys/kernel/core_pattern', 'x'))
		attempt('shell', () => require('child_process').execSync('true'))
		const s = net.connect(80, '127.0.0.1', () => finish('done')).on('error', e => finish(e.code))
		function finish(code) { out.tcp = code; dns.lookup('example.com', e => {
			out.dns = e ? e.code : 'done'; console.log(JSON.stringify(out)) }) }`))
	if x := exited(t, c); x.Code != 0 {
		t.Fatalf("exit %+v: %s", x, x.Tail)
	}
	got := string(c.Exit().Tail)
	for name, codes := range map[string][]string{
		"big": {"EFBIG"}, "fill": {"ENOSPC"}, "exec": {"EACCES"}, "sysctl": {"EROFS", "EACCES"}, "shell": {"ENOENT"}, "cgroup": {"done"}, "mqueue": {"EROFS"},
		"tcp": {"EPERM", "EACCES"}, "dns": {"EAI_AGAIN", "ENOTFOUND"},
	} {
		if !slices.ContainsFunc(codes, func(code string) bool { return strings.Contains(got, fmt.Sprintf("%q:%q", name, code)) }) {
			t.Errorf("%s: want %v in %s", name, codes, got)
		}
	}
}
