package oci

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/runtimes"
)

func goodSpec() pool.Spec {
	return pool.Spec{
		ID:  "0123456789abcdef0123456789abcdef",
		UID: 2_000_000_000, LinkDir: "/run/paddock/1/c/x", MemoryBytes: 128 << 20, CPUMillis: 1000, TmpBytes: 16 << 20,
		Image: runtimes.Image{
			Rootfs: "/var/lib/paddock/images/x/rootfs", Argv: []string{"/node", "--max-old-space-size={heap}"},
			Env: []string{"A=b"}, HeapPercent: 50,
		},
	}
}

// rules are what every bundle must keep to, whatever it is made of.
var rules = []struct {
	name  string
	check func(s *specs.Spec, p pool.Spec, iso tenant.Isolation) bool
}{
	{"read-only root", func(s *specs.Spec, p pool.Spec, _ tenant.Isolation) bool {
		return s.Root.Readonly && s.Root.Path == p.Image.Rootfs
	}},
	{"no capabilities", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		c := s.Process.Capabilities
		return c != nil && len(slices.Concat(c.Bounding, c.Effective, c.Inheritable, c.Permitted, c.Ambient)) == 0
	}},
	{"no new privileges", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool { return s.Process.NoNewPrivileges }},
	{"not root, no groups", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		u := s.Process.User
		return u.UID == 1000 && u.GID == 1000 && len(u.AdditionalGids) == 0 && u.Username == ""
	}},
	{"no terminal", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		return !s.Process.Terminal && s.Process.ConsoleSize == nil
	}},
	{"cwd is /", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool { return s.Process.Cwd == "/" }},
	{"no hooks", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool { return s.Hooks == nil }},
	{"no annotations", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool { return len(s.Annotations) == 0 }},
	{"no devices", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool { return len(s.Linux.Devices) == 0 }},
	{"no sysctls", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool { return len(s.Linux.Sysctl) == 0 }},
	{"devices denied first", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		d := s.Linux.Resources.Devices
		return len(d) == 1 && !d[0].Allow && d[0].Access == "rwm"
	}},
	{"namespaces of its own", func(s *specs.Spec, _ pool.Spec, iso tenant.Isolation) bool {
		want := []specs.LinuxNamespaceType{"pid", "mount", "ipc", "uts", "network", "user"}
		if iso == tenant.IsolationRunc {
			want = append(want, "cgroup")
		}
		for _, n := range s.Linux.Namespaces {
			if n.Path != "" || !slices.Contains(want, n.Type) {
				return false
			}
		}
		return len(s.Linux.Namespaces) == len(want)
	}},
	{"two ids, none of them root's", func(s *specs.Spec, p pool.Spec, _ tenant.Isolation) bool {
		want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: p.UID + 1, Size: 1}, {ContainerID: 1000, HostID: p.UID, Size: 1}}
		return slices.Equal(s.Linux.UIDMappings, want) && slices.Equal(s.Linux.GIDMappings, want) &&
			!slices.ContainsFunc(want, func(m specs.LinuxIDMapping) bool { return m.HostID == 0 })
	}},
	{"seccomp denies by default", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		f := s.Linux.Seccomp
		return f != nil && f.DefaultAction == specs.ActErrno && *f.DefaultErrnoRet == 1 && len(f.Architectures) == 1 &&
			f.ListenerPath == "" && len(f.Syscalls) == 5
	}},
	{"mounts", func(s *specs.Spec, p pool.Spec, _ tenant.Isolation) bool {
		for _, m := range s.Mounts {
			need := []string{"nosuid", "noexec"}
			switch m.Destination {
			case "/proc":
				need = append(need, "nodev")
			case "/dev":
			case "/tmp":
				need = append(need, "nodev", "mode=1777", fmt.Sprintf("size=%d", p.TmpBytes), "nr_inodes=1024")
			case "/run/paddock":
				need = append(need, "nodev", "ro", "bind", "private")
				if m.Source != p.LinkDir {
					return false
				}
			default:
				return false
			}
			if m.Destination != "/run/paddock" && strings.HasPrefix(m.Source, "/") {
				return false
			}
			for _, o := range need {
				if !slices.Contains(m.Options, o) {
					return false
				}
			}
			for _, o := range []string{"shared", "rshared", "rbind", "exec", "suid", "dev"} {
				if slices.Contains(m.Options, o) {
					return false
				}
			}
		}
		return len(s.Mounts) == 4
	}},
	{"memory without swap, pids, CPU", func(s *specs.Spec, p pool.Spec, iso tenant.Isolation) bool {
		r := s.Linux.Resources
		return *r.Memory.Limit == p.MemoryBytes+Overhead(iso) && *r.Memory.Swap == *r.Memory.Limit && r.Memory.DisableOOMKiller == nil &&
			*r.Pids.Limit > 0 && *r.CPU.Quota == p.CPUMillis*100 && *r.CPU.Period == 100_000
	}},
	{"first to go", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool { return *s.Process.OOMScoreAdj == 1000 }},
	{"rlimits", func(s *specs.Spec, p pool.Spec, _ tenant.Isolation) bool {
		want := map[string]uint64{
			"RLIMIT_NOFILE": 256, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": uint64(p.TmpBytes), "RLIMIT_MEMLOCK": 65536,
			"RLIMIT_MSGQUEUE": 0, "RLIMIT_SIGPENDING": 256, "RLIMIT_STACK": 8 << 20,
		}
		for _, l := range s.Process.Rlimits {
			if v, ok := want[l.Type]; !ok || l.Hard != v || l.Soft != v {
				return false
			}
		}
		return len(s.Process.Rlimits) == len(want)
	}},
	{"masks", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		for _, m := range []string{"keys", "kcore", "kallsyms", "timer_list", "sysrq-trigger", "version", "cmdline", "interrupts"} {
			if !slices.Contains(s.Linux.MaskedPaths, "/proc/"+m) {
				return false
			}
		}
		return slices.Contains(s.Linux.ReadonlyPaths, "/proc/sys")
	}},
	{"only the image's environment", func(s *specs.Spec, p pool.Spec, _ tenant.Isolation) bool {
		return slices.Equal(s.Process.Env, p.Image.Env)
	}},
	{"private propagation", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		return s.Linux.RootfsPropagation == "private"
	}},
	{"its own control group", func(s *specs.Spec, p pool.Spec, _ tenant.Isolation) bool {
		return s.Linux.CgroupsPath == "/paddock/c0/"+string(p.ID)
	}},
	{"no security label of others", func(s *specs.Spec, _ pool.Spec, _ tenant.Isolation) bool {
		return s.Process.ApparmorProfile == "" && s.Process.SelinuxLabel == "" && s.Linux.MountLabel == ""
	}},
}

func lint(t *testing.T, p pool.Spec, iso tenant.Isolation, v2 bool) {
	t.Helper()
	s, err := bundleSpec(p, iso, "/paddock/c0/"+string(p.ID), v2)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if !r.check(s, p, iso) {
			text, _ := json.Marshal(s)
			t.Errorf("%s breaks the rule %q: %s", iso, r.name, text)
		}
	}
}

func TestSpecKeepsAllRules(t *testing.T) {
	for _, iso := range []tenant.Isolation{tenant.IsolationRunc, tenant.IsolationGVisor} {
		for _, v2 := range []bool{false, true} {
			lint(t, goodSpec(), iso, v2)
		}
	}
}

// each rule must notice what it is there for
func TestEveryRuleCanFail(t *testing.T) {
	broken := map[string]func(*specs.Spec){
		"read-only root":                 func(s *specs.Spec) { s.Root.Readonly = false },
		"no capabilities":                func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_KILL"} },
		"no new privileges":              func(s *specs.Spec) { s.Process.NoNewPrivileges = false },
		"not root, no groups":            func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{0} },
		"no terminal":                    func(s *specs.Spec) { s.Process.Terminal = true },
		"cwd is /":                       func(s *specs.Spec) { s.Process.Cwd = "/proc/self/fd/7" },
		"no hooks":                       func(s *specs.Spec) { s.Hooks = &specs.Hooks{} },
		"no annotations":                 func(s *specs.Spec) { s.Annotations = map[string]string{"dev.gvisor.flag.debug": "true"} },
		"no devices":                     func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kvm"}} },
		"no sysctls":                     func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"a": "b"} },
		"devices denied first":           func(s *specs.Spec) { s.Linux.Resources.Devices[0].Allow = true },
		"namespaces of its own":          func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/pid" },
		"two ids, none of them root's":   func(s *specs.Spec) { s.Linux.UIDMappings[0].HostID = 0 },
		"seccomp denies by default":      func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = specs.ActAllow },
		"mounts":                         func(s *specs.Spec) { s.Mounts[3].Options = []string{"rbind", "rw"} },
		"memory without swap, pids, CPU": func(s *specs.Spec) { *s.Linux.Resources.Memory.Swap++ },
		"first to go":                    func(s *specs.Spec) { *s.Process.OOMScoreAdj = 0 },
		"rlimits":                        func(s *specs.Spec) { s.Process.Rlimits[0].Hard++ },
		"masks":                          func(s *specs.Spec) { s.Linux.MaskedPaths = nil },
		"only the image's environment":   func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "LD_PRELOAD=x") },
		"private propagation":            func(s *specs.Spec) { s.Linux.RootfsPropagation = "shared" },
		"its own control group":          func(s *specs.Spec) { s.Linux.CgroupsPath = "/" },
		"no security label of others":    func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" },
	}
	for _, r := range rules {
		p := goodSpec()
		s, err := bundleSpec(p, tenant.IsolationRunc, "/paddock/c0/"+string(p.ID), false)
		if err != nil {
			t.Fatal(err)
		}
		breakIt, ok := broken[r.name]
		if !ok {
			t.Errorf("the rule %q is never broken", r.name)
			continue
		}
		if breakIt(s); r.check(s, p, tenant.IsolationRunc) {
			t.Errorf("the rule %q does not notice", r.name)
		}
	}
}

func TestSpecVariants(t *testing.T) {
	p := goodSpec()
	runc, err := bundleSpec(p, tenant.IsolationRunc, "/p", true)
	if err != nil {
		t.Fatal(err)
	}
	gvisor, err := bundleSpec(p, tenant.IsolationGVisor, "/p", true)
	if err != nil {
		t.Fatal(err)
	}
	if runc.Linux.Resources.Unified["memory.oom.group"] != "1" {
		t.Error("on cgroup v2 a container must die as a whole")
	}
	if *runc.Linux.Resources.Pids.Limit != 64 || *gvisor.Linux.Resources.Pids.Limit != 512 {
		t.Error("default pids limits")
	}
	p.Pids = 33
	runc, err = bundleSpec(p, tenant.IsolationRunc, "/p", false)
	if err != nil || *runc.Linux.Resources.Pids.Limit != 33 || runc.Linux.Resources.Unified != nil {
		t.Errorf("pids limit of the spec: %v", err)
	}
	if got := runc.Process.Args[1]; got != "--max-old-space-size=64" {
		t.Errorf("heap limit %q", got)
	}
}

func TestSpecRefusesNonsense(t *testing.T) {
	for name, change := range map[string]func(*pool.Spec){
		"id":          func(p *pool.Spec) { p.ID = "0123456789abcdef0123456789abcdeF" },
		"id path":     func(p *pool.Spec) { p.ID = "../../../../0123456789abcdef0123" },
		"root's uid":  func(p *pool.Spec) { p.UID = 0 },
		"uid at end":  func(p *pool.Spec) { p.UID = 1<<32 - 2 },
		"link dir":    func(p *pool.Spec) { p.LinkDir = "/run/../etc" },
		"link root":   func(p *pool.Spec) { p.LinkDir = "/" },
		"rootfs":      func(p *pool.Spec) { p.Image.Rootfs = "" },
		"host's root": func(p *pool.Spec) { p.Image.Rootfs = "/" },
		"argv":        func(p *pool.Spec) { p.Image.Argv = nil },
		"NUL":         func(p *pool.Spec) { p.Image.Argv = []string{"a\x00b"} },
		"env":         func(p *pool.Spec) { p.Image.Env = []string{"NOVALUE"} },
		"memory":      func(p *pool.Spec) { p.MemoryBytes = -1 },
		"cpu":         func(p *pool.Spec) { p.CPUMillis = 0 },
		"tmp":         func(p *pool.Spec) { p.TmpBytes = p.MemoryBytes + 1 },
		"pids":        func(p *pool.Spec) { p.Pids = -1 },
	} {
		p := goodSpec()
		change(&p)
		if _, err := bundleSpec(p, tenant.IsolationRunc, "/p", false); err == nil {
			t.Errorf("a bad %s was accepted", name)
		}
	}
}

func TestGVisorFlags(t *testing.T) {
	argv := runtimeBinary{path: "/runsc", isolation: tenant.IsolationGVisor, root: "/r"}.run(bundle{id: "x", dir: "/b/x"})
	for _, f := range []string{
		"--platform=systrap", "--network=none", "--host-uds=open", "--directfs=true", "--overlay2=none", "--file-access=exclusive",
		"--host-fifo=none", "--oci-seccomp=true", "--net-raw=false", "--allow-suid=false", "--allow-flag-override=false",
		"--watchdog-action=panic", "--dcache=256", "--fdlimit=2048", "--debug=false", "--strace=false", "--file-access-mounts=shared",
	} {
		if i := slices.Index(argv, f); i < 0 || i > slices.Index(argv, "run") {
			t.Errorf("%s is missing in %q", f, argv)
		}
	}
}

func FuzzSpec(f *testing.F) {
	f.Add("0123456789abcdef0123456789abcdef", uint32(1000), "/run/x", "/rootfs", "/node", "A=b", int64(1<<27), int64(1000), int64(0), int64(1<<20))
	f.Add("x", uint32(0), "rel", "/", "", "", int64(-1), int64(0), int64(-1), int64(1<<62))
	f.Fuzz(func(t *testing.T, id string, uid uint32, link, rootfs, arg, env string, memory, cpu, pids, tmp int64) {
		p := pool.Spec{
			ID: pool.ContainerID(id), UID: uid, LinkDir: link, MemoryBytes: memory, CPUMillis: cpu, Pids: pids, TmpBytes: tmp,
			Image: runtimes.Image{Rootfs: rootfs, Argv: []string{arg}, Env: []string{env}},
		}
		if checkSpec(p) != nil {
			if _, err := bundleSpec(p, tenant.IsolationRunc, "/p", false); err == nil {
				t.Error("a spec that was refused was built")
			}
			return
		}
		for _, iso := range []tenant.Isolation{tenant.IsolationRunc, tenant.IsolationGVisor} {
			lint(t, p, iso, false)
		}
	})
}
