package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// etcd counts the store's writes: at most one per assignment, none per call.
func (b *bench) etcd(ctx context.Context) error {
	s, err := b.startService(ctx, filepath.Join(b.dir, "etcd"), "runc", "--min-ready", "4")
	if err != nil {
		return err
	}
	defer s.stop()
	const tenants, calls = 20, 200
	body, err := json.Marshal(map[string]any{"source": "module.exports = " + handler + ";", "input": json.RawMessage(input)})
	if err != nil {
		return err
	}
	var runs, targets []target
	for i := range tenants {
		id := fmt.Sprintf("t-%d", i)
		if err := s.tenant(id, map[string]any{"maxContainers": 1}); err != nil {
			return err
		}
		key, err := s.invokeKey(id)
		if err != nil {
			return err
		}
		bearer := "Authorization: Bearer " + key
		runs = append(runs, target{id, s.http, request(s.http, "/v1/run", string(body), bearer), []byte(output)})
		targets = append(targets, target{id, s.http, request(s.http, "/v1/functions/hello/invoke", input, bearer), []byte(output)})
	}
	// The first call of each assigns a container; the record follows behind it. An upload would have assigned one to compile in.
	writes, err := s.writesDuring(func() error { return callEach(runs, 1) })
	if err != nil {
		return err
	}
	b.atMost("etcd writes per assignment", writes/tenants, 1, "", fmt.Sprintf("(%.0f for %d tenants)", writes, tenants))
	for _, t := range targets {
		if err := s.deploy(t.name, "hello", "module.exports = "+handler+";"); err != nil {
			return err
		}
	}
	// Once in its life a version is marked as proved, after a hundred calls: that is no write per call.
	if _, err := s.writesDuring(func() error { return callEach(targets, calls) }); err != nil {
		return err
	}
	if writes, err = s.writesDuring(func() error { return callEach(targets, calls) }); err != nil {
		return err
	}
	b.atMost("etcd writes per call", writes/(tenants*calls), 0, "", fmt.Sprintf("(%.0f for %d calls)", writes, tenants*calls))
	return nil
}

func callEach(targets []target, n int) error {
	for _, t := range targets {
		c, err := dial(t)
		if err != nil {
			return err
		}
		for range n {
			if err := c.once(); err != nil {
				c.conn.Close()
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
		c.conn.Close()
	}
	return nil
}

// writesDuring is the growth of etcd's own put counter over f and the two seconds after it, in which what is written
// behind has to be through.
func (s *service) writesDuring(f func() error) (float64, error) {
	before, err := s.metric("etcd_mvcc_put_total")
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	time.Sleep(2 * time.Second)
	after, err := s.metric("etcd_mvcc_put_total")
	return after - before, err
}

// metric sums the samples of one metric.
func (s *service) metric(name string) (float64, error) {
	req, err := http.NewRequest("GET", "http://"+s.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	sum, found := 0.0, false
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if !strings.HasPrefix(line, name) || len(line) == len(name) || (line[len(name)] != ' ' && line[len(name)] != '{') {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("/metrics has no %s", name)
	}
	return sum, sc.Err()
}

// memory assigns 200 tenants, lets them go idle, and divides what all processes hold by their number.
func (b *bench) memory(ctx context.Context) error {
	const tenants = 200
	for _, isolation := range []string{"runc", "gvisor"} {
		s, err := b.startService(ctx, filepath.Join(b.dir, "memory-"+isolation), isolation,
			"--min-ready", "4", "--max-containers", "260", "--memory-budget", "20GiB")
		if err != nil {
			return err
		}
		err = b.idleMemory(ctx, s, tenants)
		if stopErr := s.stop(); err == nil {
			err = stopErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleMemory(ctx context.Context, s *service, tenants int) error {
	if err := s.settle(4); err != nil {
		return err
	}
	before, err := familyPSS(s.pid)
	if err != nil {
		return err
	}
	policy := map[string]any{"freezeAfter": "1s", "maxContainers": 1}
	for i := range tenants {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		id := fmt.Sprintf("idle-%d", i)
		if err := s.tenant(id, policy); err != nil {
			return err
		}
		if err := s.deploy(id, "hello", "module.exports = "+handler+";"); err != nil {
			return err
		}
		key, err := s.invokeKey(id)
		if err != nil {
			return err
		}
		t := target{id, s.http, request(s.http, "/v1/functions/hello/invoke", input, "Authorization: Bearer "+key), []byte(output)}
		if err := callEach([]target{t}, 1); err != nil {
			return err
		}
		if i%50 == 49 {
			b.progress("%s: %d/%d tenants", s.isolation, i+1, tenants)
		}
	}
	if err := s.settle(4); err != nil {
		return err
	}
	var pool poolStatus
	for deadline := time.Now().Add(time.Minute); pool.Frozen < tenants && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err := s.manage("GET", "/v1/pool", "", nil, &pool); err != nil {
			return err
		}
	}
	if pool.Assigned < tenants {
		return fmt.Errorf("only %d of %d tenants have a container", pool.Assigned, tenants)
	}
	after, err := familyPSS(s.pid)
	if err != nil {
		return err
	}
	time.Sleep(12 * time.Second) // under gVisor warm ones stop only when nobody has claimed any for 10 s
	cpu, err := familyCPU(s.pid)
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	cpuAfter, err := familyCPU(s.pid)
	if err != nil {
		return err
	}
	b.figure(fmt.Sprintf("memory per idle tenant of %d (PSS, our processes included), %s", tenants, s.isolation),
		float64(after-before)/float64(tenants)/(1<<20), " MiB", fmt.Sprintf("(%d frozen)", pool.Frozen))
	b.figure(fmt.Sprintf("%d idle tenants and the service burn, %s", tenants, s.isolation), float64(cpuAfter-cpu)/5/float64(time.Second)*100, " % of a core", "")
	return nil
}

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
