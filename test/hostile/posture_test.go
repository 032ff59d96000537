package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// leastUID is below every id that a sandbox of these tests can have on the host, and above everybody else's.
const leastUID = 1 << 30

// watchPosture looks at the container's threads from the host, again and again while the attack makes new ones.
func watchPosture(at *attempt) error {
	at.seen = make(chan []string, 1)
	stop := make(chan struct{})
	at.stopWatch = sync.OnceFunc(func() { close(stop) })
	go func() {
		var found []string
		most := 0
		for done := false; !done; {
			select {
			case <-stop:
				done = true // one look more
			case <-time.After(20 * time.Millisecond):
			}
			threads, wrong := at.posture()
			most = max(most, threads)
			for _, w := range wrong {
				if !slices.Contains(found, w) {
					found = append(found, w)
				}
			}
		}
		if most < 12 {
			found = append(found, fmt.Sprintf("no more than %d threads were looked at", most))
		}
		at.seen <- found
	}()
	return nil
}

func postureHeld(at *attempt) []string {
	at.stopWatch()
	return <-at.seen
}

// posture says what is wrong with any thread of the container, as the host sees it now.
func (at *attempt) posture() (threads int, wrong []string) {
	pids, err := at.host.group.Procs()
	if err != nil {
		return 0, nil
	}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d", pid)
		tasks, _ := os.ReadDir(filepath.Join(dir, "task"))
		for _, task := range tasks {
			status, err := os.ReadFile(filepath.Join(dir, "task", task.Name(), "status"))
			if err != nil {
				continue // gone meanwhile
			}
			threads++
			wrong = append(wrong, at.rights(fields(string(status)))...)
		}
		wrong = append(wrong, at.sharesWithHost(dir)...)
		if !at.engine.gvisor() {
			wrong = append(wrong, openOutwards(dir)...)
		}
	}
	return threads, wrong
}

// fields are the lines of a status file by name.
func fields(status string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		m[name] = strings.TrimSpace(value)
	}
	return m
}

// rights says what a thread has that it should not have.
func (at *attempt) rights(f map[string]string) (wrong []string) {
	for _, kind := range []string{"Uid", "Gid", "Groups"} {
		for id := range strings.FieldsSeq(f[kind]) {
			if n, _ := strconv.Atoi(id); n < leastUID {
				wrong = append(wrong, fmt.Sprintf("%s has the %s %s on the host", f["Name"], kind, id))
			}
		}
	}
	if at.engine.gvisor() { // the sentry's capabilities are of its own user namespace
		if f["Seccomp"] != "2" && f["Name"] != "exe" {
			wrong = append(wrong, fmt.Sprintf("%s runs without a filter: Seccomp %s", f["Name"], f["Seccomp"]))
		}
		return wrong
	}
	if f["NoNewPrivs"] != "1" || f["Seccomp"] != "2" {
		wrong = append(wrong, fmt.Sprintf("%s has NoNewPrivs %s, Seccomp %s", f["Name"], f["NoNewPrivs"], f["Seccomp"]))
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if strings.Trim(f[set], "0") != "" {
			wrong = append(wrong, fmt.Sprintf("%s has %s %s", f["Name"], set, f[set]))
		}
	}
	return wrong
}

// sharesWithHost says which namespaces a process has in common with this one. Docker makes no user namespace, and gVisor's
// guests see no control groups of the host.
func (at *attempt) sharesWithHost(dir string) (wrong []string) {
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts", "user", "cgroup"} {
		if ns == "user" && at.engine.name == "docker" || ns == "cgroup" && at.engine.gvisor() {
			continue
		}
		own, _ := os.Readlink("/proc/self/ns/" + ns)
		if theirs, err := os.Readlink(filepath.Join(dir, "ns", ns)); err == nil && theirs == own {
			wrong = append(wrong, "it shares the host's "+ns+" namespace")
		}
	}
	return wrong
}

// openOutwards says which descriptors lead out of the container.
func openOutwards(dir string) (wrong []string) {
	open, _ := os.ReadDir(filepath.Join(dir, "fd"))
	for _, fd := range open {
		to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
		if err != nil {
			continue
		}
		nowhere := func(prefix string) bool { return strings.HasPrefix(to, prefix) }
		output := len(fd.Name()) == 1 && fd.Name() <= "2" && strings.HasSuffix(to, ".out")
		if !output && to != "/" && !slices.ContainsFunc([]string{"socket:", "pipe:", "anon_inode:", "/dev/null", "/dev/urandom", "/proc/", "/sys/", "/tmp/", "/paddock/", "/lib", "/etc/", "/usr/", "/var/"}, nowhere) {
			wrong = append(wrong, fmt.Sprintf("descriptor %s leads to %s", fd.Name(), to))
		}
	}
	return wrong
}

// aloneWithItsID wants no process outside of the container to have its user id: what the kernel counts per user is its own.
func aloneWithItsID(at *attempt) (wrong []string) {
	own, err := at.host.group.Procs()
	if err != nil || len(own) == 0 {
		return []string{fmt.Sprintf("its processes are %v, %v", own, err)}
	}
	ids := map[string]bool{}
	uid := func(pid int) string {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return strings.Join(strings.Fields(fields(string(b))["Uid"]), " ")
	}
	for _, pid := range own {
		ids[uid(pid)] = true
	}
	for _, pid := range pids() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if !at.host.names(b) && ids[uid(pid)] && uid(pid) != "" {
			wrong = append(wrong, fmt.Sprintf("process %d outside of the container has its user id %s", pid, uid(pid)))
		}
	}
	return wrong
}
