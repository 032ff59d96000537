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

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/pool/enginetest"
	"paddock/pool/link"
	"paddock/pool/oci"
)

// BenchmarkStart measures, with the real image, the time from Create to the agent's HELLO, the time that Destroy takes,
// and the memory of an idle container (PSS of all its processes).
func BenchmarkStart(b *testing.B) {
	for _, iso := range []tenant.Isolation{tenant.IsolationRunc, tenant.IsolationGVisor} {
		b.Run(string(iso), func(b *testing.B) { benchmarkStart(b, iso) })
	}
}

func benchmarkStart(b *testing.B, iso tenant.Isolation) {
	image := testenv.NodeImage(b)
	run := testenv.RunDir(b)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s := enginetest.State{Dir: filepath.Join(run, "s"), ControllerID: testenv.ControllerID(b), LockFile: filepath.Join(run, "lock")}
	e, err := oci.New(b.Context(), oci.Options{
		Runtime: testenv.Binary(b, isolations[iso]), Isolation: iso, StateDir: s.Dir, ControllerID: s.ControllerID,
		Keeper: []string{self, keeperCommand}, LockFile: s.LockFile,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	groups, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	var created, said, destroyed []time.Duration
	pss := 0
	for n := 0; b.Loop(); n++ {
		spec := pool.Spec{
			ID: pool.ContainerID(fmt.Sprintf("%s%024d", testenv.ControllerID(b), n)), UID: testenv.UID(b), Image: image,
			LinkDir: filepath.Join(run, strconv.Itoa(n)), MemoryBytes: 128 << 20, CPUMillis: 1000, TmpBytes: 16 << 20,
		}
		if err := os.Mkdir(spec.LinkDir, 0o711); err != nil {
			b.Fatal(err)
		}
		l, err := link.Listen(spec.LinkDir, spec.UID, spec.UID)
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		c, err := e.Create(b.Context(), spec)
		if err != nil {
			b.Fatal(err)
		}
		created = append(created, time.Since(start))
		conn, err := l.Accept(b.Context(), link.Options{Container: spec.ID})
		if err != nil {
			b.Fatal(err)
		}
		said = append(said, time.Since(start))
		pss = pssOf(b, groups.At("paddock/"+s.ControllerID+"/"+string(spec.ID)))
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
	b.ReportMetric(float64(pss)/1024, "MiB-PSS")
}

// pssOf adds the proportional memory of a group's processes, in KiB.
func pssOf(b *testing.B, g cgroup.Group) int {
	b.Helper()
	pids, err := g.Procs()
	if err != nil {
		b.Fatal(err)
	}
	sum := 0
	for _, pid := range pids {
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
