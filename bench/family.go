package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// family is a process and all below it, the keeper's (which started as its child and was set free) included.
func family(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parent, keepers := map[int]int{}, []int{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		parent[id], _ = strconv.Atoi(fields[1])
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id))
		if args := strings.Split(string(cmdline), "\x00"); len(args) > 1 && args[1] == "keeper" && sameService(args, pid) {
			keepers = append(keepers, id)
		}
	}
	roots := append(keepers, pid)
	var all []int
	for id := range parent {
		for p := id; p > 1; p = parent[p] {
			if slices.Contains(roots, p) {
				all = append(all, id)
				break
			}
		}
	}
	return all, nil
}

// sameService tells a keeper's service by the run directory's controller id, which stands in the keeper's arguments and in the
// service's data directory.
func sameService(keeperArgs []string, pid int) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(string(cmdline), "\x00")
	at := slices.Index(args, "--data-dir")
	if at < 0 || at+1 >= len(args) {
		return false
	}
	id, err := os.ReadFile(filepath.Join(args[at+1], "id"))
	return err == nil && strings.Contains(strings.Join(keeperArgs, " "), strings.TrimSpace(string(id)))
}

// familyPSS is the proportional set size of a family in bytes. gVisor's stubs share address spaces, each of which would
// count once per process; kcmp(2) tells.
func familyPSS(pid int) (int64, error) {
	ids, err := family(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	seen := map[string][]int{} // by the rollup, which processes of one address space have in common
	for _, id := range ids {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", id))
		if err != nil {
			continue // ended meanwhile
		}
		if slices.ContainsFunc(seen[string(rollup)], func(other int) bool { return sameMemory(id, other) }) {
			continue
		}
		seen[string(rollup)] = append(seen[string(rollup)], id)
		for line := range strings.Lines(string(rollup)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum, nil
}

// sameMemory says whether two processes have one address space.
func sameMemory(a, b int) bool {
	const kcmpVM = 1
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpVM, 0, 0, 0)
	return errno == 0 && order == 0
}

// familyCPU is the CPU time that a family has burned.
func familyCPU(pid int) (time.Duration, error) {
	ids, err := family(pid)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, id := range ids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		ticks += user + system
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
