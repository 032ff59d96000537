package docker

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"paddock/internal/testenv"
)

// TestPosture reads a live container from the host: what the contract suite leaves to each engine, its mounts.
func TestPosture(t *testing.T) {
	e := newEngine(t, testenv.ControllerID(t))
	c := create(t, e, newSpec(t, stay))
	said(t, c, "up")
	state, err := c.inspect(within(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d", state.Pid)
	checkMounts(t, dir)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkMounts: nothing is writable but memory file systems of a bounded size, and those on /tmp and /dev only.
func checkMounts(t *testing.T, dir string) {
	t.Helper()
	want := map[string][]string{
		"/":            {"ro"},
		"/tmp":         {"rw", "nosuid", "nodev", "noexec"},
		"/run/paddock": {"ro"},
		"/proc/sys":    {"ro"},
	}
	writable := []string{"/tmp", "/dev", "/dev/pts", "/proc"}
	for line := range strings.Lines(read(t, dir+"/mountinfo")) {
		front, back, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(front), strings.Fields(back)
		point, options := fields[4], strings.Split(fields[5], ",")
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
		if point == "/dev/shm" || super[0] == "mqueue" || super[0] == "cgroup" {
			t.Errorf("mounted: %s", line)
		}
	}
	if len(want) > 0 {
		t.Errorf("not mounted: %v", want)
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
		"big": {"EFBIG"}, "fill": {"ENOSPC"}, "exec": {"EACCES"}, "sysctl": {"EROFS", "EACCES"}, "shell": {"ENOENT"},
		"cgroup": {"done"}, "mqueue": {"EROFS"},
		"tcp": {"EPERM", "EACCES"}, "dns": {"EAI_AGAIN", "ENOTFOUND"},
	} {
		if !slices.ContainsFunc(codes, func(code string) bool { return strings.Contains(got, fmt.Sprintf("%q:%q", name, code)) }) {
			t.Errorf("%s: want %v in %s", name, codes, got)
		}
	}
}
