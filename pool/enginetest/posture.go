package enginetest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
)

// testPostureFromHost reads what really surrounds each thread of a container, before and after it made new ones.
func testPostureFromHost(t *testing.T, s *suite) {
	c, p, spec := s.create(t)
	s.checkThreads(t, spec)
	s.checkDevices(t, spec)
	if s.engine.Isolation() == tenant.IsolationGVisor { // the host sees the sentry's own; the guest's kernel holds the guest to these
		checkRlimits(t, spec, "inside", p.ask(t, order{Op: "read", Path: "/proc/self/limits"}).Text)
	}
	if a := p.ask(t, order{Op: "child"}); a.N != 7 {
		t.Errorf("a child in the container ended with %d %s", a.N, a.Error)
	}
	if a := p.ask(t, order{Op: "daemon"}); a.Error != "" {
		t.Error(a.Error)
	}
	p.ask(t, order{Op: "spin", N: 3})
	s.checkThreads(t, spec)
	s.destroy(t, c)
}

func (s *suite) checkThreads(t *testing.T, spec pool.Spec) {
	t.Helper()
	procs, err := s.Group(t, s.state, spec.ID).Procs()
	if err != nil || len(procs) == 0 {
		t.Fatalf("processes %v, %v", procs, err)
	}
	own := map[string]string{}
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts", "user", "cgroup"} {
		own[ns] = readLink(t, "/proc/self/ns/"+ns)
	}
	threads := 0
	for _, pid := range procs {
		dir := fmt.Sprintf("/proc/%d", pid)
		tasks, err := os.ReadDir(filepath.Join(dir, "task"))
		if err != nil {
			continue // gone meanwhile
		}
		for _, task := range tasks {
			threads++
			s.checkThread(t, spec, filepath.Join(dir, "task", task.Name()))
		}
		s.checkNamespaces(t, dir, own)
		if text := strings.TrimSpace(procFile(fmt.Sprint(pid), "oom_score_adj")); text != "1000" {
			t.Errorf("%s: oom_score_adj %s, want 1000", name(dir), text)
		}
		if s.engine.Isolation() == tenant.IsolationRunc {
			s.checkDescriptors(t, spec, dir)
			s.checkMounts(t, spec, dir)
			checkRlimits(t, spec, name(dir), procFile(fmt.Sprint(pid), "limits"))
		}
	}
	if threads == 0 {
		t.Fatal("no thread was looked at")
	}
}

func name(dir string) string {
	return dir + " (" + strings.ReplaceAll(strings.Trim(procFile(filepath.Base(dir), "cmdline"), "\x00"), "\x00", " ") + ")"
}

func (s *suite) checkThread(t *testing.T, spec pool.Spec, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return
	}
	f := status(string(text))
	runc := s.engine.Isolation() == tenant.IsolationRunc
	allowed := []string{fmt.Sprint(spec.UID)}
	if !runc {
		allowed = append(allowed, fmt.Sprint(spec.UID+1)) // the sandbox's own processes
	}
	for _, field := range []string{"Uid", "Gid"} {
		for _, id := range strings.Fields(f[field]) {
			if !slices.Contains(allowed, id) {
				t.Errorf("%s: %s is %s, want %v", dir, field, f[field], allowed)
				break
			}
		}
	}
	// Docker lists the primary group again
	if f["Groups"] != "" && !(s.NoUserNamespace && f["Groups"] == fmt.Sprint(spec.UID)) {
		t.Errorf("%s: supplementary groups %s", dir, f["Groups"])
	}
	if f["NoNewPrivs"] != "1" && runc {
		t.Errorf("%s: NoNewPrivs %s", dir, f["NoNewPrivs"])
	}
	gofer := strings.Contains(procFile(filepath.Base(filepath.Dir(filepath.Dir(dir))), "cmdline"), "gofer")
	if f["Seccomp"] != "2" && !gofer {
		t.Errorf("%s: Seccomp %s, want a filter", dir, f["Seccomp"])
	}
	if !runc {
		return // the sentry has capabilities, in its own user namespace
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if strings.Trim(f[set], "0") != "" {
			t.Errorf("%s: %s is %s, want none", dir, set, f[set])
		}
	}
}

func (s *suite) checkNamespaces(t *testing.T, dir string, own map[string]string) {
	t.Helper()
	for ns, mine := range own {
		if ns == "user" && s.NoUserNamespace || ns == "cgroup" && s.engine.Isolation() == tenant.IsolationGVisor {
			continue // gVisor: its guest sees no control groups of the host
		}
		theirs, err := os.Readlink(filepath.Join(dir, "ns", ns))
		if err == nil && theirs == mine {
			t.Errorf("%s shares the host's %s namespace", name(dir), ns)
		}
	}
}

// checkDescriptors: nothing is open that leads out of the container.
func (s *suite) checkDescriptors(t *testing.T, spec pool.Spec, dir string) {
	t.Helper()
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return
	}
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
		if err != nil {
			continue
		}
		kernel := strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "pipe:") || strings.HasPrefix(to, "anon_inode:")
		stdio := fd.Name() <= "2" && len(fd.Name()) == 1 && (to == "/dev/null" || strings.HasSuffix(to, string(spec.ID)+".out"))
		inside := to == "/dev/null" || strings.HasPrefix(to, "/proc/") || strings.HasPrefix(to, "/sys/kernel/mm/")
		if !kernel && !stdio && !inside {
			t.Errorf("%s: descriptor %s leads to %s", name(dir), fd.Name(), to)
		}
	}
}

func (s *suite) checkMounts(t *testing.T, spec pool.Spec, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		point, options := f[4], strings.Split(f[5], ",")
		need := []string{"ro"}
		switch {
		case point == "/tmp":
			need = []string{"nosuid", "nodev", "noexec"}
		case point == "/run/paddock":
			need = []string{"ro", "nosuid", "nodev", "noexec"}
			if s.NoUserNamespace {
				need = []string{"ro"} // Docker's API has no more for a bind mount; no_new_privs and root's ownership stand in
			}
		case point == "/proc":
			need = []string{"nosuid", "nodev", "noexec"}
		case point == "/dev", strings.HasPrefix(point, "/dev/"):
			need = []string{"nosuid"}
			if point != "/dev" {
				need = nil // device nodes of the host, one by one
			}
		case strings.HasPrefix(point, "/proc/"):
			need = nil // masks; whether they can be written is tried from inside
		case point == "/", strings.HasPrefix(point, "/sys"):
		case s.NoUserNamespace && strings.HasPrefix(point, "/etc/"):
			// Docker's own files
		default:
			t.Errorf("an unexpected mount: %s", line)
		}
		for _, o := range need {
			if !slices.Contains(options, o) {
				t.Errorf("%s is mounted %s, without %s", point, f[5], o)
			}
		}
		if slices.ContainsFunc(f[6:], func(o string) bool { return strings.HasPrefix(o, "shared:") }) {
			t.Errorf("%s is a shared mount", point)
		}
	}
}

// checkRlimits holds the limits file of a process to what a container has.
func checkRlimits(t *testing.T, spec pool.Spec, whose, text string) {
	t.Helper()
	if text == "" {
		return // gone meanwhile
	}
	want := map[string]string{
		"Max core file size": "0", "Max open files": "256", "Max file size": fmt.Sprint(spec.TmpBytes), "Max locked memory": "65536",
		"Max pending signals": "256", "Max msgqueue size": "0", "Max stack size": "8388608", "Max address space": "unlimited",
	}
	for line := range strings.Lines(text) {
		for limit, n := range want {
			rest, found := strings.CutPrefix(line, limit)
			if !found {
				continue
			}
			delete(want, limit)
			if f := strings.Fields(rest); len(f) < 2 || f[0] != n || f[1] != n {
				t.Errorf("%s: %s is %v, want %s", whose, limit, f, n)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("%s: limits not found: %v", whose, want)
	}
}

// checkDevices: the devices controller of cgroup v1 lets nothing through but what every container has; v2 has a program instead,
// which cannot be read.
func (s *suite) checkDevices(t *testing.T, spec pool.Spec) {
	t.Helper()
	if s.engine.Isolation() == tenant.IsolationGVisor {
		return // runsc leaves that controller alone: its guests' devices are its own, and the sentry sees no node of the host's
	}
	dir := testenv.GroupDir("devices", s.Group(t, s.state, spec.ID).Path())
	text, err := os.ReadFile(filepath.Join(dir, "devices.list"))
	if err != nil {
		if _, v1 := os.Stat("/sys/fs/cgroup/devices"); v1 == nil {
			t.Error(err)
		}
		return
	}
	// null, zero, full, random, urandom, tty, ptmx, pts; nodes of any device may be made, which takes a capability
	harmless := []string{"c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 136:*", "c 10:200"}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		device, access, _ := cutLast(line)
		if access != "m" && !slices.Contains(harmless, device) {
			t.Errorf("the devices controller allows %s", line)
		}
	}
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func readLink(t *testing.T, path string) string {
	t.Helper()
	to, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// masked says whether the null device lies over a file, which takes whatever is written: it alone reads as nothing, while the files
// of /proc that can only be written do not read at all.
func masked(t *testing.T, p *probe, path string) bool {
	a := p.ask(t, order{Op: "read", Path: path})
	return strings.HasPrefix(path, "/proc/") && a.Error == "" && a.Text == ""
}

func testPostureFromInside(t *testing.T, s *suite) {
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("host"), 0o666); err != nil {
		t.Fatal(err)
	}
	c, p, spec := s.create(t)
	if a := p.ask(t, order{Op: "ids"}); !s.NoUserNamespace && a.Text != "1 1000 1000 1000 []" {
		t.Errorf("pid, uid, euid, gid, groups: %s", a.Text)
	}
	f := status(p.ask(t, order{Op: "read", Path: "/proc/self/status"}).Text)
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if v, ok := f[set]; ok && strings.Trim(v, "0") != "" {
			t.Errorf("%s is %s inside", set, v)
		}
	}
	for _, path := range []string{
		"/x", "/probe", "/etc/hosts", "/run/paddock/x", "/run/paddock/link2", "/dev/x", "/dev/shm/x", "/dev/mqueue/x",
		"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/x", "/usr/x", canary,
	} {
		if a := p.ask(t, order{Op: "write", Path: path, N: 1}); a.Error == "" && !masked(t, p, path) {
			t.Errorf("%s can be written", path)
		}
	}
	if a := p.ask(t, order{Op: "remove", Path: "/run/paddock/link"}); a.Error == "" {
		t.Error("the link can be removed")
	}
	if a := p.ask(t, order{Op: "write", Path: "/tmp/run", N: 100}); a.Error != "" {
		t.Errorf("/tmp cannot be written: %s", a.Error)
	}
	if a := p.ask(t, order{Op: "execfile", Path: "/tmp/run"}); !strings.Contains(a.Error, "permission denied") {
		t.Errorf("a program in /tmp: %s", a.Error)
	}
	if a := p.ask(t, order{Op: "interfaces"}); strings.TrimSpace(a.Text) != "" {
		t.Errorf("network interfaces: %s (%s)", a.Text, a.Error)
	}
	for _, domain := range []uintptr{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_VSOCK, unix.AF_ALG} {
		if a := p.ask(t, order{Op: "syscall", N: unix.SYS_SOCKET, Args: []uintptr{domain, unix.SOCK_STREAM, 0}}); a.Error == "" {
			t.Errorf("a socket of family %d was made", domain)
		}
	}
	if a := p.ask(t, order{Op: "syscall", N: unix.SYS_SOCKET, Args: []uintptr{unix.AF_UNIX, unix.SOCK_STREAM, 0}}); a.Error != "" {
		t.Errorf("a unix socket was refused: %s", a.Error)
	}
	procs := p.ask(t, order{Op: "list", Path: "/proc"}).Text
	for n := range strings.FieldsSeq(procs) {
		if n[0] >= '0' && n[0] <= '9' && len(n) > 2 {
			t.Errorf("it sees process %s", n)
		}
	}
	for _, secret := range []string{spec.LinkDir, s.state.Dir, "/var/run/docker.sock", "/root"} {
		if a := p.ask(t, order{Op: "list", Path: secret}); a.Error == "" {
			t.Errorf("%s can be listed: %s", secret, a.Text)
		}
	}
	if a := p.ask(t, order{Op: "read", Path: "/proc/1/environ"}); strings.Count(a.Text, "\x00") > len(spec.Image.Env)+2 {
		t.Errorf("environment %q", a.Text)
	}
	if text, err := os.ReadFile(canary); err != nil || string(text) != "host" {
		t.Errorf("the host's file reads %q, %v", text, err)
	}
	s.destroy(t, c)
}

// testSystemCalls tries what must not reach the host's kernel. With gVisor most of it reaches the sandbox's own.
func testSystemCalls(t *testing.T, s *suite) {
	c, p, _ := s.create(t)
	const sysMountSetattr, sysLandlock = 442, 444
	for nr, call := range map[int64]string{
		unix.SYS_PTRACE: "ptrace", unix.SYS_PROCESS_VM_READV: "process_vm_readv", unix.SYS_BPF: "bpf",
		unix.SYS_PERF_EVENT_OPEN: "perf_event_open", unix.SYS_USERFAULTFD: "userfaultfd", unix.SYS_IO_URING_SETUP: "io_uring_setup",
		unix.SYS_KEYCTL: "keyctl", unix.SYS_ADD_KEY: "add_key", unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount2",
		unix.SYS_FSOPEN: "fsopen", unix.SYS_OPEN_TREE: "open_tree", unix.SYS_MOVE_MOUNT: "move_mount", sysMountSetattr: "mount_setattr",
		unix.SYS_SETNS: "setns", unix.SYS_UNSHARE: "unshare", unix.SYS_PIVOT_ROOT: "pivot_root", unix.SYS_CHROOT: "chroot",
		unix.SYS_MKNODAT: "mknodat", unix.SYS_OPEN_BY_HANDLE_AT: "open_by_handle_at", unix.SYS_NAME_TO_HANDLE_AT: "name_to_handle_at",
		unix.SYS_KEXEC_LOAD: "kexec_load", unix.SYS_INIT_MODULE: "init_module", unix.SYS_REBOOT: "reboot", unix.SYS_SWAPON: "swapon",
		unix.SYS_PERSONALITY: "personality", unix.SYS_QUOTACTL: "quotactl", unix.SYS_SYSLOG: "syslog",
		unix.SYS_CLOCK_SETTIME: "clock_settime", unix.SYS_VMSPLICE: "vmsplice", unix.SYS_SPLICE: "splice",
		unix.SYS_FANOTIFY_INIT: "fanotify_init", unix.SYS_INOTIFY_INIT1: "inotify_init1", unix.SYS_SHMGET: "shmget",
		unix.SYS_MQ_OPEN: "mq_open", unix.SYS_MEMFD_CREATE: "memfd_create", unix.SYS_PIDFD_OPEN: "pidfd_open",
		unix.SYS_SETUID: "setuid", unix.SYS_SECCOMP: "seccomp", unix.SYS_SYNC: "sync", sysLandlock: "landlock_create_ruleset",
		unix.SYS_EXECVEAT: "execveat", unix.SYS_SCHED_SETSCHEDULER: "sched_setscheduler", unix.SYS_SETXATTR: "setxattr",
	} {
		a := p.ask(t, order{Op: "syscall", N: nr})
		if a.Errno != unix.EPERM && a.Errno != unix.ENOSYS {
			t.Errorf("%s: result %d, errno %d; want EPERM or ENOSYS", call, a.N, a.Errno)
		}
	}
	// what a new kernel will bring
	if a := p.ask(t, order{Op: "syscall", N: 999}); a.Errno != unix.ENOSYS && a.Errno != unix.EPERM {
		t.Errorf("an unknown call: errno %d", a.Errno)
	}
	clone3 := unix.ENOSYS // C libraries fall back to clone
	if s.engine.Isolation() == tenant.IsolationRunc {
		if a := p.ask(t, order{Op: "syscall", N: unix.SYS_CLONE3}); a.Errno != clone3 {
			t.Errorf("clone3: errno %d, want %d", a.Errno, clone3)
		}
		for _, flag := range []uintptr{unix.CLONE_NEWUSER, unix.CLONE_NEWNS, unix.CLONE_NEWPID, unix.CLONE_NEWNET} {
			if a := p.ask(t, order{Op: "syscall", N: unix.SYS_CLONE, Args: []uintptr{flag}}); a.Errno != unix.EPERM {
				t.Errorf("clone with flag %#x: errno %d, want EPERM", flag, a.Errno)
			}
		}
	}
	p.ask(t, order{Op: "ping"})
	s.destroy(t, c)
}
