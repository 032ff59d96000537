package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// What a machine should have at least.
const (
	badDiskBytes   = 1 << 30
	warnDiskBytes  = 5 << 30
	badMemoryKiB   = 1 << 20
	warnMemoryKiB  = 4 << 20
	kernelYes      = "1"
	paranoidEnough = 2
)

// runtimes asks what would make the containers. What the wanted engine and isolation need and the host lacks is bad; what
// others need is only said.
func (h *Host) runtimes(ctx context.Context) []Fact {
	return []Fact{
		h.program(ctx, "runsc", h.Engine == "oci" && h.Isolation == "gvisor"),
		h.program(ctx, "runc", h.Engine == "oci" && h.Isolation == "runc"),
		h.docker(ctx, h.Engine == "docker"),
	}
}

func (h *Host) program(ctx context.Context, name string, needed bool) Fact {
	v, err := h.Runtime(ctx, name)
	f := Fact{Name: name, Verdict: OK, Value: strings.TrimSpace(v.Version + " " + v.Path)}
	switch {
	case err != nil:
		f.Value, f.Advice = "not usable: "+err.Error(), "'make build' builds a current one into bin/"
	case v.Problem != "":
		f.Value, f.Advice = f.Value+": "+v.Problem, "'make build' builds a current one into bin/"
	}
	if f.Advice != "" {
		f.Verdict = Warn
		if needed && err != nil {
			f.Verdict = Bad
		}
	}
	return f
}

func (h *Host) docker(ctx context.Context, needed bool) Fact {
	v, err := h.Docker(ctx)
	f := Fact{Name: "docker", Verdict: OK, Value: strings.TrimSpace(v.Version + " " + v.Path)}
	switch {
	case err != nil && needed:
		f.Verdict, f.Value, f.Advice = Bad, err.Error(), "start the Docker engine or give it what it lacks, or use --engine oci, which needs none"
	case err != nil:
		f.Value = "not usable, and only --engine docker needs it: " + err.Error()
	case v.Problem != "":
		f.Verdict, f.Value, f.Advice = Warn, f.Value+": "+v.Problem, "install a current Docker engine"
	}
	return f
}

// npm is needed once, to build the runtime image.
func (h *Host) npm() Fact {
	path, err := h.LookPath("npm")
	if err == nil {
		return Fact{Name: "npm", Verdict: OK, Value: path}
	}
	if found, _ := filepath.Glob(filepath.Join(h.DataDir, "images", "*", "rootfs")); len(found) > 0 {
		return Fact{Name: "npm", Verdict: OK, Value: "not installed; the runtime image is built already"}
	}
	return Fact{"npm", Bad, "not installed", "install Node.js with npm: it fetches the runtime's modules, once"}
}

func (h *Host) disk() Fact {
	free, total, err := h.Free(h.DataDir)
	if err != nil {
		return Fact{"disk", Warn, err.Error(), "look whether the data directory can be read"}
	}
	f := Fact{Name: "disk", Verdict: OK, Value: fmt.Sprintf("%s: %s free of %s", h.DataDir, gib(free), gib(total))}
	switch {
	case free < badDiskBytes:
		f.Verdict, f.Advice = Bad, "make room: at least 1 GiB is needed, 5 GiB are comfortable"
	case free < warnDiskBytes:
		f.Verdict, f.Advice = Warn, "5 GiB are comfortable"
	}
	return f
}

func (h *Host) memory() Fact {
	kib := int64(-1)
	for line := range strings.Lines(h.read(h.Proc, "meminfo")) {
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil {
			break
		}
	}
	f := Fact{Name: "memory", Verdict: OK, Value: gib(kib << 10)}
	switch {
	case kib < 0:
		return Fact{"memory", Warn, "unknown", "/proc/meminfo cannot be read"}
	case kib < badMemoryKiB:
		f.Verdict, f.Advice = Bad, "at least 1 GiB is needed"
	case kib < warnMemoryKiB:
		f.Verdict, f.Advice = Warn, "few sandboxes fit: 128 MiB and the isolation's own for each"
	}
	return f
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// swap matters because secrets and code in memory would reach the disk.
func (h *Host) swap() Fact {
	lines := strings.Split(h.read(h.Proc, "swaps"), "\n")
	if len(lines) <= 1 {
		return Fact{Name: "swap", Verdict: OK, Value: "off"}
	}
	for _, l := range lines[1:] {
		if device, _, _ := strings.Cut(l, " "); !strings.HasPrefix(device, "/dev/dm-") && !strings.HasPrefix(device, "/dev/zram") {
			return Fact{"swap", Warn, "on, at " + device, "turn it off (swapoff -a) or encrypt it: tenants' memory may reach the disk"}
		}
	}
	return Fact{Name: "swap", Verdict: OK, Value: "on a mapped or compressed device"}
}

// corePattern matters because a pipe gets core dumps whatever the limit of the process says.
func (h *Host) corePattern() Fact {
	pattern := h.read(h.Proc, "sys/kernel/core_pattern")
	if strings.HasPrefix(pattern, "|") {
		return Fact{"core dumps", Warn, "piped to " + strings.Fields(pattern[1:] + " ?")[0],
			"sysctl -w kernel.core_pattern=core: a pipe ignores the limit of 0 that sandboxes run with, and gets tenants' memory"}
	}
	return Fact{Name: "core dumps", Verdict: OK, Value: "not piped"}
}

// setting is a kernel setting that narrows what code could do beyond its sandbox.
type setting struct {
	name, file string // below Proc
	good       func(int) bool
	want       string // sysctl
	why        string
}

func settings() []setting {
	is := func(n int) func(int) bool { return func(v int) bool { return v == n } }
	atLeast := func(n int) func(int) bool { return func(v int) bool { return v >= n } }
	return []setting{
		{"unprivileged bpf", "sys/kernel/unprivileged_bpf_disabled", atLeast(1), "kernel.unprivileged_bpf_disabled=1", "a second lock beside seccomp"},
		{"io_uring", "sys/kernel/io_uring_disabled", is(2), "kernel.io_uring_disabled=2", "a second lock beside seccomp"},
		{"memfd", "sys/vm/memfd_noexec", atLeast(1), "vm.memfd_noexec=1", "a second lock beside seccomp: no program runs from memory"},
		{"perf events", "sys/kernel/perf_event_paranoid", atLeast(paranoidEnough), "kernel.perf_event_paranoid=2", "a second lock beside seccomp"},
		{"kernel pointers", "sys/kernel/kptr_restrict", atLeast(1), "kernel.kptr_restrict=1", "addresses help whoever attacks the kernel"},
		{"kernel log", "sys/kernel/dmesg_restrict", is(1), "kernel.dmesg_restrict=1", "addresses help whoever attacks the kernel"},
		{"ptrace (Yama)", "sys/kernel/yama/ptrace_scope", atLeast(1), "kernel.yama.ptrace_scope=1", "a second lock beside seccomp"},
	}
}

// hardening are recommendations: none of them is needed for a sandbox to hold, each makes a hole elsewhere worth less.
func (h *Host) hardening() []Fact {
	var facts []Fact
	for _, s := range settings() {
		v := h.readInt(h.Proc, s.file, -1)
		f := Fact{Name: s.name, Verdict: OK, Value: fmt.Sprintf("%s (now %d)", s.want, v)}
		switch {
		case v == -1:
			f.Verdict, f.Value, f.Advice = Warn, "this kernel has no such setting", s.why
		case !s.good(v):
			f.Verdict, f.Value, f.Advice = Warn, fmt.Sprintf("%d", v), "sysctl -w "+s.want+": "+s.why
		default:
			f.Value = fmt.Sprint(v)
		}
		facts = append(facts, f)
	}
	return append(facts, h.smt(), h.vulnerabilities(), h.lsm())
}

func (h *Host) smt() Fact {
	if h.read(h.Sys, "devices/system/cpu/smt/active") == kernelYes {
		return Fact{"hyperthreads", Warn, "on", "siblings share caches: turn them off (nosmt) where tenants must not measure each other"}
	}
	return Fact{Name: "hyperthreads", Verdict: OK, Value: "off"}
}

func (h *Host) vulnerabilities() Fact {
	dir := filepath.Join(h.Sys, "devices/system/cpu/vulnerabilities")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Fact{"CPU flaws", Warn, "unknown", "this kernel does not say"}
	}
	var open []string
	for _, e := range entries {
		if strings.HasPrefix(h.read(dir, e.Name()), "Vulnerable") {
			open = append(open, e.Name())
		}
	}
	sort.Strings(open)
	if len(open) > 0 {
		return Fact{"CPU flaws", Warn, "open: " + strings.Join(open, ", "), "update kernel and microcode, or mitigations=auto"}
	}
	return Fact{Name: "CPU flaws", Verdict: OK, Value: "mitigated"}
}

// lsm is only told: profiles are an optional layer.
func (h *Host) lsm() Fact {
	list := h.read(h.Sys, "kernel/security/lsm")
	return Fact{Name: "security modules", Verdict: OK, Value: orNone(list)}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
