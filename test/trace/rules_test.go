package trace

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// places are where a traced service has what is its own.
type places struct {
	data, run, cache string
	program, runtime string
}

// What the service may look at of a process that is not its own: what the kernel says of it. Not among them is what leads to the
// process's own files: root, cwd, exe, fd, map_files, and the same below task.
var processFacts = []string{"stat", "status", "cgroup", "cmdline", "comm", "oom_score_adj", "mountinfo"}

var (
	hexForm   = regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{32}|\b[0-9a-f]{8}\b`)
	newForm   = regexp.MustCompile(`/\.[0-9a-f]{6}$`) // a socket before its rename
	digitForm = regexp.MustCompile(`\b\d+\b`)
)

// kind says what a path is, in words without ids, and whether a tenant could have made it. ours says which pids are.
func (p places) kind(name string, ours func(pid int) bool) (string, error) {
	if of, rest, ok := process(name); ok {
		return processKind(of, rest, ours)
	}
	for _, place := range []struct {
		root, kind string
		deep       int // so many directories below it are told apart
	}{
		{p.data, "data directory", 2}, {p.run, "run directory", 5}, {p.cache, "downloads", 0}, {"/sys/fs/cgroup", "control groups", 0},
	} {
		if place.root != "" && below(name, place.root) {
			rest := hexForm.ReplaceAllString(strings.TrimPrefix(name, place.root), "*")
			rest = digitForm.ReplaceAllString(newForm.ReplaceAllString(rest, "/.new"), "N")
			if parts := strings.Split(rest, "/"); len(parts) > place.deep+1 {
				rest = strings.Join(parts[:place.deep+1], "/") + "/…"
			}
			return place.kind + rest, nil
		}
	}
	switch {
	case name == p.program, name == p.runtime:
		return "its own programs", nil
	case slices.ContainsFunc([]string{p.data, p.run, p.cache, p.program, p.runtime}, func(own string) bool { return below(own, name) }):
		return "directories on the way to its own", nil
	case slices.Contains([]string{"/dev/null", "/dev/kmsg", "/dev/urandom"}, name):
		return name, nil
	case below(name, "/proc/sys"), slices.Contains([]string{"/proc", "/proc/meminfo", "/proc/stat", "/proc/cpuinfo", "/proc/loadavg", "/proc/filesystems"}, name):
		return "facts of the kernel in /proc", nil
	case below(name, "/sys/kernel"), below(name, "/sys/devices"), below(name, "/sys/module"), below(name, "/sys/fs"):
		return "facts of the kernel in /sys", nil
	case slices.Contains([]string{"/run/docker.sock", "/var/run/docker.sock", "/var/run", "/run"}, name):
		return "the Docker engine's socket", nil
	}
	for _, dir := range []string{"/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin"} {
		if below(name, dir) {
			return "the host's " + dir, nil
		}
	}
	return "", fmt.Errorf("%s is nothing that the service has to touch", name)
}

// process takes apart what is below /proc/PID or /proc/self.
func process(name string) (pid int, rest string, ok bool) {
	in, ok := strings.CutPrefix(name, "/proc/")
	if !ok {
		return 0, "", false
	}
	first, rest, _ := strings.Cut(in, "/")
	if first == "self" || first == "thread-self" {
		return 0, rest, true
	}
	pid, err := strconv.Atoi(first)
	return pid, rest, err == nil
}

func processKind(pid int, rest string, ours func(int) bool) (string, error) {
	if pid == 0 || ours(pid) {
		return "its own /proc entry", nil
	}
	parts := strings.Split(rest, "/")
	if parts[0] == "task" {
		if len(parts) <= 2 {
			return "/proc/N/task", nil
		}
		parts = parts[2:]
	}
	if rest == "" || len(parts) == 1 && slices.Contains(processFacts, parts[0]) {
		return path.Join("/proc/N", parts[0]), nil
	}
	return "", fmt.Errorf("/proc/%d/%s leads to what another process has", pid, rest)
}

func below(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

func TestKinds(t *testing.T) {
	p := places{data: "/var/lib/d", run: "/run/r", cache: "/var/cache/c", program: "/opt/paddock", runtime: "/opt/runc"}
	ours := func(pid int) bool { return pid == 7 }
	for name, want := range map[string]string{
		"/var/lib/d/blobs/x":                   "data directory/blobs/x",
		"/run/r/0a1b2c3d/c/tenant":             "run directory/*/c/tenant",
		"/sys/fs/cgroup/paddock/x/cgroup.kill": "control groups/…",
		"/var/lib/d/images/x/rootfs/tmp":       "data directory/images/x/…",
		"/proc/self/fd/3":                      "its own /proc entry",
		"/proc/7/root/etc":                     "its own /proc entry",
		"/proc/8/stat":                         "/proc/N/stat",
		"/proc/8/task/9/stat":                  "/proc/N/stat",
		"/var/lib":                             "directories on the way to its own",
		"/dev/null":                            "/dev/null",
		"/etc/passwd":                          "the host's /etc",
	} {
		if got, err := p.kind(name, ours); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{
		"/proc/8/root", "/proc/8/root/tmp/x", "/proc/8/cwd", "/proc/8/fd/3", "/proc/8/exe", "/proc/8/map_files/x", "/proc/8/task/9/root/x",
		"/proc/8/task/9/fd/1", "/tmp/x", "/tmp", "/dev/shm/x", "/run/rest/x", "/var/lib/docker/x", "/x",
	} {
		if got, err := p.kind(name, ours); err == nil {
			t.Errorf("%s is %q, want it refused", name, got)
		}
	}
}
