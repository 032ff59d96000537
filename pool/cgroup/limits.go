package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Unlimited stands for a limit that is not set.
const Unlimited int64 = -1

// cpuPeriod is the period of CPU quotas that this package writes.
const cpuPeriod = 100 * time.Millisecond

var v2Controllers = []string{"memory", "pids", "cpu"}

// Limits of a group. Unlimited where there is none.
type Limits struct {
	MemoryBytes int64
	SwapBytes   int64 // swap on top of MemoryBytes; Unlimited also where the kernel does not count swap
	CPUMillis   int64 // 1000 = one CPU
	Pids        int64
	CPUWeight   int64 // v1 shares (default 1024); v2 weights are converted
}

// Usage of a group since it was made.
type Usage struct {
	MemoryBytes int64
	CPU         time.Duration
	Pids        int64
	OOMKills    int64 // processes of it that the kernel killed for want of memory
	PidsRefused int64 // forks refused at the pids limit
}

// Ensure makes the group, hands the controllers down (v2), and caps it. Fields of
// Limits that are 0 or Unlimited are left alone. Idempotent; meant for the parent of containers, never for their own
// groups.
func (g Group) Ensure(l Limits) error {
	if err := g.mkdir(); err != nil {
		return err
	}
	if l.MemoryBytes > 0 {
		if err := g.capMemory(l.MemoryBytes); err != nil {
			return fmt.Errorf("cap memory of %s at %d bytes: %w", g.path, l.MemoryBytes, err)
		}
	}
	if l.Pids > 0 {
		if err := write(g.dir("pids"), "pids.max", strconv.FormatInt(l.Pids, 10)); err != nil {
			return err
		}
	}
	if l.CPUWeight > 0 {
		if g.fs.v2 {
			return write(g.dir("cpu"), "cpu.weight", strconv.FormatInt(sharesToWeight(l.CPUWeight), 10))
		}
		return write(g.dir("cpu"), "cpu.shares", strconv.FormatInt(l.CPUWeight, 10))
	}
	return nil
}

// mkdir makes the group in all hierarchies, also those that limit nothing here: while it exists there, nobody else's
// cleaning up can take its ancestors away from under the runtimes.
func (g Group) mkdir() error {
	if !g.fs.v2 {
		for _, dir := range g.dirs() {
			if err := mkdirAll(dir); err != nil {
				return err
			}
		}
		return nil
	}
	// every ancestor hands the controllers to its children, this group to the containers
	dir := g.fs.root
	for part := range strings.SplitSeq(g.path, "/") {
		dir = filepath.Join(dir, part)
		if err := mkdirAll(dir); err != nil {
			return err
		}
		if err := enableControllers(dir); err != nil {
			return err
		}
	}
	return nil
}

// mkdirAll tries again when an empty ancestor was removed meanwhile (see RemoveEmpty).
func mkdirAll(dir string) error {
	var err error
	for range 10 {
		if err = os.MkdirAll(dir, 0o755); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

func enableControllers(dir string) error {
	have, err := readFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	for _, c := range v2Controllers {
		if containsWord(have, c) {
			continue
		}
		if err := write(dir, "cgroup.subtree_control", "+"+c); err != nil {
			return fmt.Errorf("hand the %s controller down (is a process directly in %s? move it to a child group): %w", c, dir, err)
		}
	}
	return nil
}

func (g Group) capMemory(limit int64) error {
	text := strconv.FormatInt(limit, 10)
	dir := g.dir("memory")
	if g.fs.v2 {
		if err := write(dir, "memory.max", text); err != nil {
			return err
		}
		return ifThere(write(dir, "memory.swap.max", "0"))
	}
	if err := ifThere(write(dir, "memory.use_hierarchy", "1")); err != nil && !readsAs(dir, "memory.use_hierarchy", 1) {
		return err
	}
	// memsw must never be below the limit: which of the two goes first depends on where it is now
	memsw, err := readInt(dir, "memory.memsw.limit_in_bytes")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return write(dir, "memory.limit_in_bytes", text)
	case err != nil:
		return err
	}
	order := []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
	if memsw < limit {
		order[0], order[1] = order[1], order[0]
	}
	for _, file := range order {
		if err := write(dir, file, text); err != nil {
			return err
		}
	}
	return nil
}

// Limits reads what the kernel really enforces on this group itself (not on its ancestors).
func (g Group) Limits() (Limits, error) {
	read := g.limitsV1
	if g.fs.v2 {
		read = g.limitsV2
	}
	l, err := read()
	if err != nil {
		return Limits{}, fmt.Errorf("read limits of cgroup %s: %w", g.path, err)
	}
	return l, nil
}

func (g Group) limitsV1() (l Limits, err error) {
	if l.MemoryBytes, err = readInt(g.dir("memory"), "memory.limit_in_bytes"); err != nil {
		return l, err
	}
	memsw, err := readInt(g.dir("memory"), "memory.memsw.limit_in_bytes")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		memsw = Unlimited
	case err != nil:
		return l, err
	}
	// the kernel's "no limit" is the largest page-aligned number
	l.SwapBytes = memsw - l.MemoryBytes
	if l.MemoryBytes > math.MaxInt64/2 {
		l.MemoryBytes = Unlimited
	}
	if memsw < 0 || memsw > math.MaxInt64/2 {
		l.SwapBytes = Unlimited
	}
	if l.Pids, err = readInt(g.dir("pids"), "pids.max"); err != nil {
		return l, err
	}
	quota, err := readInt(g.dir("cpu"), "cpu.cfs_quota_us")
	if err != nil {
		return l, err
	}
	period, err := readInt(g.dir("cpu"), "cpu.cfs_period_us")
	if err != nil {
		return l, err
	}
	l.CPUMillis = cpuMillis(quota, period)
	l.CPUWeight, err = readInt(g.dir("cpu"), "cpu.shares")
	return l, err
}

func (g Group) limitsV2() (l Limits, err error) {
	dir := g.dir("")
	if l.MemoryBytes, err = readInt(dir, "memory.max"); err != nil {
		return l, err
	}
	l.SwapBytes, err = readInt(dir, "memory.swap.max")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.SwapBytes = Unlimited
	case err != nil:
		return l, err
	}
	if l.Pids, err = readInt(dir, "pids.max"); err != nil {
		return l, err
	}
	text, err := readFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return l, err
	}
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return l, fmt.Errorf("cpu.max reads %q", text)
	}
	quota, err := parseInt(fields[0])
	if err != nil {
		return l, err
	}
	period, err := parseInt(fields[1])
	if err != nil {
		return l, err
	}
	l.CPUMillis = cpuMillis(quota, period)
	weight, err := readInt(dir, "cpu.weight")
	l.CPUWeight = weightToShares(weight)
	return l, err
}

// Usage reads the counters. The error is fs.ErrNotExist when the group is gone.
func (g Group) Usage() (Usage, error) {
	read := g.usageV1
	if g.fs.v2 {
		read = g.usageV2
	}
	u, err := read()
	if err != nil {
		return Usage{}, fmt.Errorf("read usage of cgroup %s: %w", g.path, err)
	}
	return u, nil
}

func (g Group) usageV1() (u Usage, err error) {
	if u.MemoryBytes, err = readInt(g.dir("memory"), "memory.usage_in_bytes"); err != nil {
		return u, err
	}
	cpu, err := readInt(g.dir("cpuacct"), "cpuacct.usage")
	if err != nil {
		return u, err
	}
	u.CPU = time.Duration(cpu)
	if u.Pids, err = readInt(g.dir("pids"), "pids.current"); err != nil {
		return u, err
	}
	if u.OOMKills, err = readKey(g.dir("memory"), "memory.oom_control", "oom_kill"); err != nil {
		return u, err
	}
	u.PidsRefused, err = readKey(g.dir("pids"), "pids.events", "max")
	return u, err
}

func (g Group) usageV2() (u Usage, err error) {
	dir := g.dir("")
	if u.MemoryBytes, err = readInt(dir, "memory.current"); err != nil {
		return u, err
	}
	cpu, err := readKey(dir, "cpu.stat", "usage_usec")
	if err != nil {
		return u, err
	}
	u.CPU = time.Duration(cpu) * time.Microsecond
	if u.Pids, err = readInt(dir, "pids.current"); err != nil {
		return u, err
	}
	if u.OOMKills, err = readKey(dir, "memory.events", "oom_kill"); err != nil {
		return u, err
	}
	u.PidsRefused, err = readKey(dir, "pids.events", "max")
	return u, err
}

// CPU reads only the CPU counter.
func (g Group) CPU() (time.Duration, error) {
	if g.fs.v2 {
		us, err := readKey(g.dir(""), "cpu.stat", "usage_usec")
		return time.Duration(us) * time.Microsecond, err
	}
	ns, err := readInt(g.dir("cpuacct"), "cpuacct.usage")
	return time.Duration(ns), err
}

func cpuMillis(quota, period int64) int64 {
	if quota < 0 || period <= 0 {
		return Unlimited
	}
	return quota * 1000 / period
}

// CPUQuota returns quota and period, in microseconds, of a limit in thousandths of a CPU.
func CPUQuota(millis int64) (quota int64, period uint64) {
	p := cpuPeriod.Microseconds()
	return millis * p / 1000, uint64(p)
}

// the conversion of v1 shares (2…262144) to v2 weights (1…10000) that OCI runtimes use
func sharesToWeight(shares int64) int64 { return 1 + (max(shares, 2)-2)*9999/262142 }
func weightToShares(weight int64) int64 { return 2 + (max(weight, 1)-1)*262142/9999 }

// SetIdle has the group run only while no group beside it wants to, or by the usual weight again. Kernels before 5.15 give it the
// least weight there is instead.
func (g Group) SetIdle(idle bool) error {
	on, file, weight := "0", "cpu.weight", "100"
	switch {
	case idle && g.fs.v2:
		on, weight = "1", "1"
	case idle:
		on, file, weight = "1", "cpu.shares", "2"
	case !g.fs.v2:
		file, weight = "cpu.shares", "1024"
	}
	err := write(g.dir("cpu"), "cpu.idle", on)
	if errors.Is(err, fs.ErrNotExist) && g.Exists() {
		err = write(g.dir("cpu"), file, weight)
	}
	if err != nil {
		return fmt.Errorf("priority of cgroup %s: %w", g.path, err)
	}
	return nil
}

// Idle says whether SetIdle is in force. An error is fs.ErrNotExist on kernels that only know weights.
func (g Group) Idle() (bool, error) {
	n, err := readInt(g.dir("cpu"), "cpu.idle")
	return n == 1, err
}

// SetCPU changes the CPU limit of the group, in thousandths of a CPU, and returns nil once the kernel says that it is in force.
func (g Group) SetCPU(millis int64) error {
	quota, period := CPUQuota(millis)
	if err := g.writeCPU(quota, period); err != nil {
		return fmt.Errorf("limit the CPU of cgroup %s: %w", g.path, err)
	}
	l, err := g.Limits()
	if err != nil {
		return err
	}
	if l.CPUMillis != millis {
		return fmt.Errorf("the kernel gives cgroup %s %d thousandths of a CPU where %d were asked for", g.path, l.CPUMillis, millis)
	}
	return nil
}

// writeCPU refuses another period than CPUQuota's, which all containers are made with: on v1 the two are separate files, and
// between writing one and the other neither limit would hold.
func (g Group) writeCPU(quota int64, period uint64) error {
	if g.fs.v2 {
		return write(g.dir("cpu"), "cpu.max", fmt.Sprintf("%d %d", quota, period))
	}
	if !readsAs(g.dir("cpu"), "cpu.cfs_period_us", int64(period)) {
		return fmt.Errorf("its period is not %d us", period)
	}
	return write(g.dir("cpu"), "cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
}
