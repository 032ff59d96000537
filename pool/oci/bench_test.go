package oci_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/pool/link"
	"paddock/pool/oci"
	"paddock/runtimes"
)

// BenchmarkStart measures, with the real image, the time from Create to the agent's HELLO and the time that Destroy takes.
func BenchmarkStart(b *testing.B) {
	for _, iso := range []tenant.Isolation{tenant.IsolationRunc, tenant.IsolationGVisor} {
		b.Run(string(iso), func(b *testing.B) { benchmarkStart(b, iso) })
	}
}

func benchmarkStart(b *testing.B, iso tenant.Isolation) {
	y := newYard(b, iso)
	var created, said, destroyed []time.Duration
	for b.Loop() {
		start := time.Now()
		c, conn, took := y.create(b)
		created, said = append(created, took), append(said, time.Since(start))
		conn.Close()
		start = time.Now()
		if err := c.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
		destroyed = append(destroyed, time.Since(start))
	}
	for unit, all := range map[string][]time.Duration{"ms-create": created, "ms-hello": said, "ms-destroy": destroyed} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, unit)
	}
}

// BenchmarkIdle measures the memory of idle containers side by side: PSS of all their processes, per container, running
// and then frozen, and what the keeper adds.
func BenchmarkIdle(b *testing.B) {
	const many = 12
	for _, iso := range []tenant.Isolation{tenant.IsolationRunc, tenant.IsolationGVisor} {
		b.Run(string(iso), func(b *testing.B) {
			y := newYard(b, iso)
			var all []pool.Container
			for b.Loop() {
				for range many {
					c, conn, _ := y.create(b)
					defer conn.Close()
					all = append(all, c)
				}
			}
			time.Sleep(2 * time.Second) // idle
			b.ReportMetric(float64(y.pss(b))/1024/float64(len(all)), "MiB-PSS")
			b.ReportMetric(float64(y.charged(b, all))/(1<<20)/float64(len(all)), "MiB-charged")
			for _, c := range all {
				if err := c.Freeze(b.Context()); err != nil {
					b.Error(err)
				}
			}
			b.ReportMetric(float64(y.pss(b))/1024/float64(len(all)), "MiB-PSS-frozen")
			for _, c := range all {
				if err := c.Destroy(b.Context()); err != nil {
					b.Error(err)
				}
			}
		})
	}
}

// yard is an engine with the real image and room for many containers.
type yard struct {
	engine *oci.Engine
	group  cgroup.Group
	image  runtimes.Image
	run    string
	made   int
}

func newYard(b *testing.B, iso tenant.Isolation) *yard {
	b.Helper()
	y := &yard{image: testenv.NodeImage(b), run: testenv.RunDir(b)}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	id := testenv.ControllerID(b)
	y.engine, err = oci.New(b.Context(), oci.Options{
		Runtime: testenv.Binary(b, isolations[iso]), Isolation: iso, StateDir: filepath.Join(y.run, "s"), ControllerID: id,
		Keeper: []string{self, keeperCommand}, LockFile: filepath.Join(y.run, "lock"),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { y.engine.Close() })
	groups, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	y.group = groups.At("paddock/" + id)
	return y
}

// create makes a container and waits for HELLO.
func (y *yard) create(b *testing.B) (pool.Container, *link.Conn, time.Duration) {
	b.Helper()
	y.made++
	spec := pool.Spec{
		ID: pool.ContainerID(fmt.Sprintf("%s%024d", testenv.ControllerID(b), y.made)), UID: testenv.UID(b), Image: y.image,
		LinkDir: filepath.Join(y.run, strconv.Itoa(y.made)), MemoryBytes: 128 << 20, CPUMillis: 1000, TmpBytes: 16 << 20,
	}
	if err := os.Mkdir(spec.LinkDir, 0o711); err != nil {
		b.Fatal(err)
	}
	l, err := link.Listen(spec.LinkDir, spec.UID, spec.UID)
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	c, err := y.engine.Create(b.Context(), spec)
	if err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	conn, err := l.Accept(b.Context(), link.Options{Container: spec.ID})
	if err != nil {
		b.Fatal(err)
	}
	return c, conn, took
}

// charged adds what the containers' groups are charged with, page cache included.
func (y *yard) charged(b *testing.B, all []pool.Container) int64 {
	b.Helper()
	var sum int64
	for _, c := range all {
		u, err := c.Usage(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		sum += u.MemoryBytes
	}
	return sum
}

// pss adds the proportional memory of all containers' processes, in KiB.
func (y *yard) pss(b *testing.B) int {
	b.Helper()
	pids, err := y.group.Procs()
	if err != nil {
		b.Fatal(err)
	}
	sum := 0
	var spaces []int // one process of each address space: gVisor's stubs share theirs
	for _, pid := range pids {
		if slices.ContainsFunc(spaces, func(other int) bool { return sameMemory(pid, other) }) {
			continue
		}
		spaces = append(spaces, pid)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); f[0] == "Pss:" {
				kib, err := strconv.Atoi(f[1])
				if err != nil {
					b.Fatal(err)
				}
				sum += kib
			}
		}
	}
	return sum
}

// sameMemory says whether two processes have one address space.
func sameMemory(a, b int) bool {
	const kcmpVM = 1
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpVM, 0, 0, 0)
	return errno == 0 && order == 0
}
