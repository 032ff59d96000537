package oci

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/pool/seccomp"
	"paddock/runtimes"
)

// What a container needs besides Spec.MemoryBytes, which is the tenant's: a language runtime that stands (node: 45 MiB
// before the first line of anybody's code), the kernel's share (page tables, sockets, stacks), so that the heap limit is
// met before the group's; under gVisor also the sentry, its page cache and its stubs.
const (
	runcOverhead   = 64 << 20
	gvisorOverhead = 128 << 20
)

// Default pids limits. A node process has about 11 threads. gVisor's sentry keeps several host tasks for each of its
// guest's, and panics when it gets none.
const (
	runcPids   = 64
	gvisorPids = 512
)

const (
	oomScoreAdj  = 1000 // a container is the first thing to go when the host is short of memory
	maxOpenFiles = 256
	tmpInodes    = 1024
	stackBytes   = 8 << 20
	memlockBytes = 64 << 10
	maxSignals   = 256
	hostname     = "paddock"
)

var idForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// checkSpec refuses what a container must not be made of. The spec comes from the pool, not from a tenant; but a mistake
// there must not become a weak container here.
func checkSpec(s pool.Spec) error {
	var bad []error
	refuse := func(when bool, format string, args ...any) {
		if when {
			bad = append(bad, fmt.Errorf(format, args...))
		}
	}
	refuse(!idForm.MatchString(string(s.ID)), "id %.80q: 32 hex digits are needed", s.ID)
	refuse(s.UID == 0 || s.UID >= math.MaxUint32-1, "host uid %d: the container must have ids of its own", s.UID)
	refuse(!cleanAbs(s.LinkDir), "link directory %q is not a clean absolute path", s.LinkDir)
	refuse(!cleanAbs(s.Image.Rootfs), "root file system %q is not a clean absolute path", s.Image.Rootfs)
	refuse(len(s.Image.Argv) == 0, "the image has no command")
	refuse(s.MemoryBytes < 1<<20 || s.MemoryBytes > math.MaxInt64/2, "memory limit of %d bytes", s.MemoryBytes)
	refuse(s.CPUMillis < 10 || s.CPUMillis > 1<<20, "CPU limit of %d thousandths", s.CPUMillis)
	refuse(s.TmpBytes < 1<<12 || s.TmpBytes > s.MemoryBytes, "/tmp of %d bytes (memory: %d)", s.TmpBytes, s.MemoryBytes)
	refuse(s.Pids < 0 || s.Pids > 1<<16, "pids limit of %d", s.Pids)
	for _, text := range append(slices.Clone(s.Image.Argv), s.Image.Env...) {
		refuse(strings.ContainsRune(text, 0), "NUL in the command or environment")
	}
	for _, e := range s.Image.Env {
		name, _, ok := strings.Cut(e, "=")
		refuse(!ok || name == "", "environment entry %.80q is not NAME=value", e)
	}
	if len(bad) > 0 {
		return fmt.Errorf("container spec: %w", errors.Join(bad...))
	}
	return nil
}

func cleanAbs(path string) bool {
	return filepath.IsAbs(path) && path != "/" && filepath.Clean(path) == path && !strings.ContainsRune(path, 0)
}

// Overhead is the memory that an isolation needs on top of what the code may use.
func Overhead(iso tenant.Isolation) int64 {
	if iso == tenant.IsolationGVisor {
		return gvisorOverhead
	}
	return runcOverhead
}

// limitsOf is what the container's control group must enforce.
func limitsOf(s pool.Spec, iso tenant.Isolation) cgroup.Limits {
	pids := s.Pids
	if pids == 0 {
		pids = runcPids
		if iso == tenant.IsolationGVisor {
			pids = gvisorPids
		}
	}
	return cgroup.Limits{MemoryBytes: s.MemoryBytes + Overhead(iso), SwapBytes: 0, CPUMillis: s.CPUMillis, Pids: pids}
}

// bundleSpec is the whole description of a container for an OCI runtime. Everything that weakens a container is absent:
// no capabilities, hooks, terminal, devices, shared namespaces, host paths other than the image and the link directory.
func bundleSpec(s pool.Spec, iso tenant.Isolation, cgroupPath string, v2 bool) (*specs.Spec, error) {
	if err := checkSpec(s); err != nil {
		return nil, err
	}
	filter, err := seccompFor(iso)
	if err != nil {
		return nil, err
	}
	return &specs.Spec{
		Version:  "1.0.2", // of all that is used here; older runtimes refuse newer numbers
		Hostname: hostname,
		Root:     &specs.Root{Path: s.Image.Rootfs, Readonly: true},
		Process:  process(s),
		Mounts:   mounts(s, iso),
		Linux: &specs.Linux{
			Namespaces:        namespaces(iso),
			UIDMappings:       idMap(s.UID),
			GIDMappings:       idMap(s.UID),
			CgroupsPath:       cgroupPath,
			Resources:         resources(limitsOf(s, iso), iso, v2),
			Seccomp:           filter,
			MaskedPaths:       slices.Clone(maskedPaths),
			ReadonlyPaths:     slices.Clone(readonlyPaths),
			RootfsPropagation: "private",
		},
	}, nil
}

func process(s pool.Spec) *specs.Process {
	score := oomScoreAdj
	limit := func(kind string, n int64) specs.POSIXRlimit {
		return specs.POSIXRlimit{Type: kind, Hard: uint64(n), Soft: uint64(n)}
	}
	return &specs.Process{
		Terminal:        false,
		User:            specs.User{UID: runtimes.ContainerUID, GID: runtimes.ContainerUID},
		Args:            s.Image.Command(s.MemoryBytes),
		Env:             s.Image.Environ(s.MemoryBytes),
		Cwd:             "/",
		Capabilities:    &specs.LinuxCapabilities{},
		NoNewPrivileges: true,
		OOMScoreAdj:     &score,
		// no RLIMIT_AS: JavaScript engines reserve gigabytes of address space. No RLIMIT_NPROC: the pids controller counts
		Rlimits: []specs.POSIXRlimit{
			limit("RLIMIT_NOFILE", maxOpenFiles), limit("RLIMIT_CORE", 0), limit("RLIMIT_FSIZE", s.TmpBytes),
			limit("RLIMIT_MEMLOCK", memlockBytes), limit("RLIMIT_MSGQUEUE", 0), limit("RLIMIT_SIGPENDING", maxSignals),
			limit("RLIMIT_STACK", stackBytes),
		},
	}
}

func mounts(s pool.Spec, iso tenant.Isolation) []specs.Mount {
	proc := []string{"nosuid", "nodev", "noexec"}
	if iso == tenant.IsolationRunc {
		proc = append(proc, "hidepid=2") // gVisor's /proc has no such option and knows the guest only
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: proc},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=64k"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{
			"nosuid", "nodev", "noexec", fmt.Sprintf("size=%d", s.TmpBytes), fmt.Sprintf("nr_inodes=%d", tmpInodes), "mode=1777",
		}},
		{Destination: runtimes.MountPoint, Type: "bind", Source: s.LinkDir, Options: []string{
			"bind", "private", "ro", "nosuid", "nodev", "noexec",
		}},
	}
}

func namespaces(iso tenant.Isolation) []specs.LinuxNamespace {
	kinds := []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace,
		specs.UserNamespace,
	}
	if iso == tenant.IsolationRunc {
		kinds = append(kinds, specs.CgroupNamespace) // runsc does not know it; its guest sees no host cgroups
	}
	var all []specs.LinuxNamespace
	for _, k := range kinds {
		all = append(all, specs.LinuxNamespace{Type: k}) // no path: always a new one
	}
	return all
}

// idMap maps the container's user and its root, which both runtimes need, to two host ids that no other container has.
func idMap(uid uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{
		{ContainerID: 0, HostID: uid + 1, Size: 1},
		{ContainerID: runtimes.ContainerUID, HostID: uid, Size: 1},
	}
}

func resources(l cgroup.Limits, iso tenant.Isolation, v2 bool) *specs.LinuxResources {
	quota, period := cgroup.CPUQuota(l.CPUMillis)
	swap := l.MemoryBytes + l.SwapBytes // OCI counts memory in
	r := &specs.LinuxResources{
		// the runtime adds null, zero, full, random, urandom, tty
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Memory:  &specs.LinuxMemory{Limit: &l.MemoryBytes, Swap: &swap},
		CPU:     &specs.LinuxCPU{Quota: &quota, Period: &period},
		Pids:    &specs.LinuxPids{Limit: &l.Pids},
	}
	if v2 && iso == tenant.IsolationRunc {
		r.Unified = map[string]string{"memory.oom.group": "1"} // all of it or nothing
	}
	return r
}

func seccompFor(iso tenant.Isolation) (*specs.LinuxSeccomp, error) {
	variant := seccomp.Runc
	if iso == tenant.IsolationGVisor {
		variant = seccomp.GVisor
	}
	p, err := seccomp.For(variant, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	filter := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &p.DefaultErrno}
	for _, a := range p.Architectures {
		filter.Architectures = append(filter.Architectures, specs.Arch(a))
	}
	for _, r := range p.Rules {
		call := specs.LinuxSyscall{Names: r.Names, Action: specs.LinuxSeccompAction(r.Action)}
		if r.Action == seccomp.Errno {
			call.ErrnoRet = &r.Errno
		}
		for _, a := range r.Args {
			call.Args = append(call.Args, specs.LinuxSeccompArg{
				Index: a.Index, Value: a.Value, ValueTwo: a.ValueTwo, Op: specs.LinuxSeccompOperator(a.Op),
			})
		}
		filter.Syscalls = append(filter.Syscalls, call)
	}
	return filter, nil
}

// maskedPaths tell of the host. Hiding them is hygiene; what holds is that nothing in the container may change them.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/cmdline", "/proc/config.gz", "/proc/diskstats", "/proc/fs",
	"/proc/interrupts", "/proc/irq", "/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/latency_stats",
	"/proc/modules", "/proc/partitions", "/proc/sched_debug", "/proc/scsi", "/proc/slabinfo", "/proc/sysrq-trigger",
	"/proc/timer_list", "/proc/timer_stats", "/proc/version", "/proc/vmallocinfo", "/sys/devices/virtual/powercap",
	"/sys/firmware",
}

var readonlyPaths = []string{"/proc/sys"}
