package docker

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/strslice"
	"github.com/docker/go-units"

	"paddock/internal/call"
	"paddock/pool"
	"paddock/pool/seccomp"
	"paddock/runtimes"
)

// Labels of our containers and images. Nothing of a tenant is in them: a container is made before it has one.
const (
	labelController = "paddock.controller"
	labelID         = "paddock.id"
	labelUID        = "paddock.uid"
	labelImage      = "paddock.image"
	labelMemory     = "paddock.memory"
	labelLimit      = "paddock.limit"
	labelCreated    = "paddock.created"
)

const (
	// runcOverhead is for a language runtime that stands and for what the kernel charges to the group: page tables, stacks, slabs.
	// The same as in package oci: a tenant's limit means the same under every engine.
	runcOverhead = 64 << 20
	// gvisorOverhead adds what the sentry needs.
	gvisorOverhead = 128 << 20
	runcPids       = 64  // Node has a dozen threads
	gvisorPids     = 512 // the sentry's host threads count, and at the limit it dies
	tmpInodes      = 1024
	cpuShares      = 128         // against 1024 of everything else
	noResolver     = "192.0.2.1" // a documentation address: nobody's
)

// maskedPaths are covered with nothing: host facts that code has no need of. Hygiene, not the boundary.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/cmdline", "/proc/config.gz", "/proc/diskstats", "/proc/fs", "/proc/interrupts",
	"/proc/irq", "/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/latency_stats",
	"/proc/modules", "/proc/partitions", "/proc/sched_debug", "/proc/scsi", "/proc/slabinfo", "/proc/sysrq-trigger",
	"/proc/timer_list", "/proc/timer_stats", "/proc/version", "/proc/vmallocinfo", "/sys/firmware",
	"/sys/devices/virtual/powercap",
}

const emptyMount = "ro,nosuid,nodev,noexec,size=4k,nr_inodes=1,mode=0555"

var readonlyPaths = []string{"/proc/sys"}

// settings are the decisions that hold for every container of an engine. Immutable after New.
type settings struct {
	controller   string
	runtime      string
	gvisor       bool
	seccomp      string // JSON
	cgroupParent string
	usernsMode   container.UsernsMode
}

func newSettings(o Options, host HostInfo) (settings, error) {
	s := settings{controller: o.ControllerID, runtime: o.Runtime}
	if s.runtime == "" {
		s.runtime = "runc"
	}
	if !slices.Contains(host.Runtimes, s.runtime) {
		return s, fmt.Errorf("it has no runtime %q (it has %v): add it to the daemon's configuration, or choose another", s.runtime,
			host.Runtimes)
	}
	variant := seccomp.Runc
	if s.gvisor = s.runtime == "runsc"; s.gvisor {
		variant = seccomp.GVisor
		if err := CheckRunsc(host); err != nil {
			return s, err
		}
	}
	profile, err := seccomp.For(variant, runtime.GOARCH)
	if err != nil {
		return s, err
	}
	text, err := profile.DockerJSON()
	if err != nil {
		return s, err
	}
	s.seccomp = string(text)
	if host.UsernsRemap {
		// The daemon's remapping gives all containers one range of 65,536 ids. Ours have an id each, outside of it.
		s.usernsMode = "host"
	}
	return s, nil
}

// What the daemon's runsc must be started with (without the first the link cannot be reached, without the second the bundle is
// written to), and what it should be. --directfs=false: another process opens the files for gVisor's kernel, which then runs as the
// host's user nobody, with no capability and in a user namespace with that one id. With directfs it is the host's user 0 in a
// namespace that maps all ids.
var (
	needRunsc = []string{"--host-uds=open", "--overlay2=none", "--directfs=false"}
	wantRunsc = []string{"--network=none", "--oci-seccomp=true", "--net-raw=false", "--allow-suid=false", "--host-fifo=none"}
)

// CheckRunsc says what keeps the engine's runsc from being used.
func CheckRunsc(host HostInfo) error {
	missing := missingArgs(host.RunscArgs, needRunsc)
	if len(missing) == 0 {
		return nil
	}
	why := ""
	if slices.Contains(missing, "--directfs=false") {
		why = " (with directfs gVisor's kernel runs as the host's root)"
	}
	return fmt.Errorf("its runtime runsc is started without %s%s: add that to the runtime's runtimeArgs in the daemon's configuration, or use "+
		"--engine oci, which needs no daemon", strings.Join(missing, " "), why)
}

// sharedSentry is what even a well set up engine cannot do.
const sharedSentry = "gVisor under Docker runs the kernels of all sandboxes as the host's user nobody: prefer engine oci, where each has its own"

// missingArgs says which flags are not there, in either of the ways to write them.
func missingArgs(have, want []string) []string {
	var missing []string
	for _, flag := range want {
		name, value, _ := strings.Cut(flag, "=")
		apart := false
		if i := slices.Index(have, name); i >= 0 {
			apart = value == "true" || i+1 < len(have) && have[i+1] == value
		}
		if !apart && !slices.Contains(have, flag) {
			missing = append(missing, flag)
		}
	}
	return missing
}

func (s settings) name(id call.ContainerID) string {
	return "paddock-" + s.controller + "-" + string(id)
}

func (s settings) pids(spec pool.Spec) int64 {
	switch {
	case spec.Pids > 0:
		return spec.Pids
	case s.gvisor:
		return gvisorPids
	default:
		return runcPids
	}
}

// container returns what the API is asked for.
func (s settings) container(spec pool.Spec, imageID string, f pool.Facts) (*container.Config, *container.HostConfig) {
	user := strconv.FormatUint(uint64(spec.UID), 10)
	no := false
	config := &container.Config{
		Image:           imageID,
		Hostname:        "sandbox",
		User:            user + ":" + user,
		Env:             spec.Image.Environ(spec.MemoryBytes),
		Cmd:             strslice.StrSlice(spec.Image.Command(spec.MemoryBytes)),
		WorkingDir:      "/",
		AttachStdout:    true,
		AttachStderr:    true,
		NetworkDisabled: true,
		Healthcheck:     &container.HealthConfig{Test: []string{"NONE"}},
		Labels:          s.labels(spec.ID, f),
	}
	pids := s.pids(spec)
	host := &container.HostConfig{
		Runtime:        s.runtime,
		ReadonlyRootfs: true,
		NetworkMode:    "none",
		IpcMode:        container.IPCModeNone,
		CgroupnsMode:   container.CgroupnsModePrivate,
		UsernsMode:     s.usernsMode,
		CapDrop:        strslice.StrSlice{"ALL"},
		SecurityOpt:    []string{"no-new-privileges", "seccomp=" + s.seccomp},
		MaskedPaths:    maskedPaths,
		ReadonlyPaths:  readonlyPaths,
		DNS:            []string{noResolver},
		DNSOptions:     []string{"timeout:1", "attempts:1"},
		DNSSearch:      []string{"."},
		Tmpfs: map[string]string{
			"/tmp": fmt.Sprintf("rw,nosuid,nodev,noexec,size=%d,nr_inodes=%d,mode=1777", spec.TmpBytes, tmpInodes),
			// In place of what some engines mount there even so: message queues and control groups.
			"/dev/mqueue":    emptyMount,
			"/sys/fs/cgroup": emptyMount,
		},
		Mounts: []mount.Mount{{
			Type: mount.TypeBind, Source: spec.LinkDir, Target: runtimes.MountPoint, ReadOnly: true,
			BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate},
		}},
		LogConfig:     container.LogConfig{Type: "none"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		OomScoreAdj:   1000,
		Init:          &no,
		Resources: container.Resources{
			CgroupParent: s.cgroupParent,
			Memory:       f.LimitBytes,
			MemorySwap:   f.LimitBytes, // memory and swap together: no swap
			PidsLimit:    &pids,
			CPUPeriod:    100_000, // microseconds
			CPUQuota:     spec.CPUMillis * 100,
			CPUShares:    cpuShares,
			Ulimits:      ulimits(spec),
		},
	}
	return config, host
}

// ulimits: no limit on address space, since V8 reserves gigabytes of it, and none on processes, which the control group counts.
func ulimits(spec pool.Spec) []*units.Ulimit {
	limit := func(name string, n int64) *units.Ulimit { return &units.Ulimit{Name: name, Soft: n, Hard: n} }
	return []*units.Ulimit{
		limit("nofile", 256),
		limit("core", 0),
		limit("fsize", spec.TmpBytes),
		limit("memlock", 64<<10),
		limit("msgqueue", 0),
		limit("sigpending", 256),
		limit("stack", 8<<20),
	}
}

func (s settings) labels(id call.ContainerID, f pool.Facts) map[string]string {
	return map[string]string{
		labelController: s.controller,
		labelID:         string(id),
		labelUID:        strconv.FormatUint(uint64(f.UID), 10),
		labelImage:      f.ImageDigest,
		labelMemory:     strconv.FormatInt(f.MemoryBytes, 10),
		labelLimit:      strconv.FormatInt(f.LimitBytes, 10),
		labelCreated:    f.Created.UTC().Format(time.RFC3339Nano),
	}
}

// factsFromLabels reads them back. What is missing stays zero: the pool destroys what it cannot place.
func factsFromLabels(labels map[string]string, createdUnix int64) pool.Facts {
	number := func(label string, bits int) int64 {
		n, err := strconv.ParseInt(labels[label], 10, bits)
		if err != nil {
			return 0
		}
		return n
	}
	f := pool.Facts{
		UID: uint32(number(labelUID, 33)), ImageDigest: labels[labelImage],
		MemoryBytes: number(labelMemory, 64), LimitBytes: number(labelLimit, 64),
	}
	var err error
	if f.Created, err = time.Parse(time.RFC3339Nano, labels[labelCreated]); err != nil {
		f.Created = time.Unix(createdUnix, 0)
	}
	return f
}
