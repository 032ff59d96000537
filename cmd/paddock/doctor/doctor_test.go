package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// host writes a host that is as it should be; change it and look again.
func host(t *testing.T) *Host {
	t.Helper()
	dir := t.TempDir()
	h := &Host{
		Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys"), Kernel: "6.18.2-cloud", DataDir: "/data",
		Engine: "oci", Isolation: "gvisor", CPUs: 4,
		LookPath: func(string) (string, error) { return "/usr/bin/npm", nil },
		Free:     func(string) (int64, int64, error) { return 50 << 30, 100 << 30, nil },
		Runtime: func(_ context.Context, name string) (Version, error) {
			return Version{Path: "/bin/" + name, Version: "1"}, nil
		},
		Docker: func(context.Context) (Version, error) { return Version{Version: "28.5"}, nil },
	}
	for file, text := range map[string]string{
		"proc/sys/user/max_user_namespaces":           "15000",
		"proc/sys/kernel/seccomp/actions_avail":       "kill_process kill_thread trap errno trace log allow",
		"proc/sys/kernel/core_pattern":                "core",
		"proc/sys/kernel/unprivileged_bpf_disabled":   "2",
		"proc/sys/kernel/io_uring_disabled":           "2",
		"proc/sys/vm/memfd_noexec":                    "1",
		"proc/sys/kernel/perf_event_paranoid":         "3",
		"proc/sys/kernel/kptr_restrict":               "1",
		"proc/sys/kernel/dmesg_restrict":              "1",
		"proc/sys/kernel/yama/ptrace_scope":           "1",
		"proc/meminfo":                                "MemTotal:       24612345 kB\nMemFree: 1 kB",
		"proc/swaps":                                  "Filename Type Size Used Priority",
		"sys/fs/cgroup/cgroup.controllers":            "cpuset cpu io memory pids",
		"sys/devices/system/cpu/smt/active":           "0",
		"sys/devices/system/cpu/vulnerabilities/melt": "Mitigation: PTI",
		"sys/kernel/security/lsm":                     "capability,landlock",
	} {
		write(t, filepath.Join(dir, file), text)
	}
	return h
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAGoodHost(t *testing.T) {
	facts := host(t).Look(t.Context())
	for _, f := range facts {
		if f.Verdict != OK || f.Value == "" || f.Name == "" {
			t.Errorf("%+v", f)
		}
	}
	if Worst(facts) != OK {
		t.Error("worst is not ok")
	}
}

func TestEachFault(t *testing.T) {
	proc := func(file, text string) func(*testing.T, *Host) {
		return func(t *testing.T, h *Host) { write(t, filepath.Join(h.Proc, file), text) }
	}
	sys := func(file, text string) func(*testing.T, *Host) {
		return func(t *testing.T, h *Host) { write(t, filepath.Join(h.Sys, file), text) }
	}
	broken := errors.New("does not answer")
	for _, c := range []struct {
		name   string
		change func(*testing.T, *Host)
		fact   string
		want   Verdict
		say    string // in value or advice
	}{
		{"no root", func(_ *testing.T, h *Host) { h.UID = 1000 }, "user", Bad, "root"},
		{"old kernel", func(_ *testing.T, h *Host) { h.Kernel = "4.19.0" }, "kernel", Bad, "5.4"},
		{"aging kernel", func(_ *testing.T, h *Host) { h.Kernel = "5.4.0-12" }, "kernel", Warn, "5.10"},
		{"strange kernel", func(_ *testing.T, h *Host) { h.Kernel = "next" }, "kernel", Warn, "cannot be read"},
		{"no pids controller", sys("fs/cgroup/cgroup.controllers", "cpu memory"), "cgroups", Bad, "without pids"},
		{"no cgroups", func(_ *testing.T, h *Host) { h.Sys = "/nowhere" }, "cgroups", Bad, "none"},
		{"v1 without freezer", func(t *testing.T, h *Host) {
			os.Remove(filepath.Join(h.Sys, "fs/cgroup/cgroup.controllers"))
			for _, c := range []string{"memory", "pids", "cpu,cpuacct", "devices"} {
				write(t, filepath.Join(h.Sys, "fs/cgroup", c, "tasks"), "")
			}
		}, "cgroups", Bad, "v1 without freezer"},
		{"user namespaces off", proc("sys/user/max_user_namespaces", "0"), "user namespaces", Bad, "sysctl"},
		{"no seccomp", proc("sys/kernel/seccomp/actions_avail", ""), "seccomp", Bad, "CONFIG_SECCOMP"},
		{"wanted runsc missing", func(_ *testing.T, h *Host) {
			h.Runtime = func(context.Context, string) (Version, error) { return Version{}, broken }
		}, "runsc", Bad, "make build"},
		{"unwanted runc missing", func(_ *testing.T, h *Host) {
			h.Runtime = func(context.Context, string) (Version, error) { return Version{}, broken }
		}, "runc", Warn, "make build"},
		{"old runc", func(_ *testing.T, h *Host) {
			h.Runtime = func(context.Context, string) (Version, error) {
				return Version{Version: "1.1.5", Problem: "has holes"}, nil
			}
		}, "runc", Warn, "has holes"},
		{"dead docker, wanted", func(_ *testing.T, h *Host) {
			h.Engine, h.Docker = "docker", func(context.Context) (Version, error) { return Version{}, broken }
		}, "docker", Bad, "start the Docker engine"},
		{"no docker, not wanted", func(_ *testing.T, h *Host) {
			h.Docker = func(context.Context) (Version, error) { return Version{}, broken }
		}, "docker", OK, "only --engine docker"},
		{"no npm", func(_ *testing.T, h *Host) { h.LookPath = func(string) (string, error) { return "", broken } }, "npm", Bad, "Node.js"},
		{"full disk", func(_ *testing.T, h *Host) {
			h.Free = func(string) (int64, int64, error) { return 1 << 20, 1 << 40, nil }
		}, "disk", Bad, "make room"},
		{"small disk", func(_ *testing.T, h *Host) {
			h.Free = func(string) (int64, int64, error) { return 2 << 30, 1 << 40, nil }
		}, "disk", Warn, "5 GiB"},
		{"little memory", proc("meminfo", "MemTotal: 524288 kB"), "memory", Bad, "1 GiB"},
		{"swap", proc("swaps", "Filename Type Size\n/dev/sda2 partition 1"), "swap", Warn, "/dev/sda2"},
		{"piped cores", proc("sys/kernel/core_pattern", "|/usr/lib/apport %p"), "core dumps", Warn, "/usr/lib/apport"},
		{"bpf", proc("sys/kernel/unprivileged_bpf_disabled", "0"), "unprivileged bpf", Warn, "sysctl"},
		{"io_uring", proc("sys/kernel/io_uring_disabled", "0"), "io_uring", Warn, "kernel.io_uring_disabled=2"},
		{"memfd", proc("sys/vm/memfd_noexec", "0"), "memfd", Warn, "vm.memfd_noexec=1"},
		{"no Yama", func(_ *testing.T, h *Host) { os.RemoveAll(filepath.Join(h.Proc, "sys/kernel/yama")) }, "ptrace (Yama)", Warn, "no such setting"},
		{"smt", sys("devices/system/cpu/smt/active", "1"), "hyperthreads", Warn, "nosmt"},
		{"flaw", sys("devices/system/cpu/vulnerabilities/mds", "Vulnerable: no microcode"), "CPU flaws", Warn, "mds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := host(t)
			c.change(t, h)
			for _, f := range h.Look(t.Context()) {
				if f.Name != c.fact {
					continue
				}
				if f.Verdict != c.want || !strings.Contains(f.Value+" "+f.Advice, c.say) {
					t.Errorf("%+v, want %s and %q", f, c.want, c.say)
				}
				if f.Verdict != OK && f.Advice == "" {
					t.Errorf("%+v has no advice", f)
				}
				return
			}
			t.Errorf("no fact %q", c.fact)
		})
	}
}

func TestWorst(t *testing.T) {
	if got := Worst([]Fact{{Verdict: OK}, {Verdict: Warn}}); got != Warn {
		t.Error(got)
	}
	if got := Worst([]Fact{{Verdict: Bad}, {Verdict: Warn}}); got != Bad {
		t.Error(got)
	}
}

func TestThisHostLooksWithoutFalling(t *testing.T) {
	none := func(context.Context) (Version, error) { return Version{}, errors.New("none") }
	h := ThisHost("/var/lib/paddock-that-is-not-there/x", "oci", "runc",
		func(context.Context, string) (Version, error) { return Version{}, errors.New("none") }, none)
	for _, f := range h.Look(t.Context()) {
		if f.Name == "disk" && !strings.Contains(f.Value, "free") {
			t.Errorf("%+v", f)
		}
	}
}
