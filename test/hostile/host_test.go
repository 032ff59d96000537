package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"paddock/pool/cgroup"
)

// inside is a container as the host sees it.
type inside struct {
	tokens []string // what names it on the host: its id, and Docker's
	group  cgroup.Group
}

// look finds a container on the host.
func (s *service) look(id string) (*inside, error) {
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	in := &inside{tokens: []string{id}}
	name := id
	if s.engine.name == "docker" {
		if name, err = dockerID(id); err != nil {
			return nil, err
		}
		in.tokens = append(in.tokens, name)
	}
	in.group = groups.At("paddock/" + s.id + "/" + name)
	if !in.group.Exists() {
		return nil, fmt.Errorf("container %s has no control group %s", id, in.group.Path())
	}
	return in, nil
}

// dockerID asks the Docker engine which of its containers is ours.
func dockerID(id string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", "/var/run/docker.sock")
		},
	}}
	filter := url.QueryEscape(fmt.Sprintf(`{"label":["paddock.id=%s"]}`, id))
	res, err := client.Get("http://docker/containers/json?all=1&filters=" + filter)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var list []struct{ ID string }
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", fmt.Errorf("Docker knows %d containers of the id %s", len(list), id)
	}
	return list[0].ID, nil
}

// processes lists those that are named, or whose control group is.
func (in *inside) processes() (found []string) {
	for _, pid := range pids() {
		for _, file := range []string{"cgroup", "cmdline"} {
			if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file)); err == nil && in.names(b) {
				found = append(found, fmt.Sprintf("process %d (%s)", pid, file))
				break
			}
		}
	}
	return found
}

func (in *inside) mounts() (found []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if in.names([]byte(line)) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	return found
}

// traces lists what of the container is on this machine: processes, mounts, control groups, files and sockets.
func (in *inside) traces(s *service) (found []string) {
	found = append(in.processes(), in.mounts()...)
	if in.group.Exists() {
		found = append(found, "control group "+in.group.Path())
	}
	filepath.WalkDir(s.run, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && in.names([]byte(filepath.Base(path))) {
			found = append(found, "file "+path)
		}
		return nil
	})
	if s.engine.name == "docker" {
		if _, err := dockerID(in.tokens[0]); err == nil {
			found = append(found, "Docker's container")
		}
	}
	return found
}

func (in *inside) names(text []byte) bool {
	for _, t := range in.tokens {
		if bytes.Contains(text, []byte(t)) {
			return true
		}
	}
	return false
}

// awaitGone waits until nothing of the container is left and returns how long that took. What this process did not live
// through, because the machine stood still, does not count.
func (in *inside) awaitGone(s *service, p *pulse, limit time.Duration) (time.Duration, error) {
	const pause, step = 10 * time.Millisecond, 100 * time.Millisecond
	began, last, waited := time.Now(), time.Now(), time.Duration(0)
	for {
		// the whole search is for the end: the processes go last but one, and the group is cheap to look for
		if !in.group.Exists() && len(in.traces(s)) == 0 {
			return time.Since(began), nil
		}
		now := time.Now()
		waited += min(now.Sub(last), step)
		if last = now; waited > limit+p.slack(began) {
			return 0, fmt.Errorf("left after %v: %s", limit, strings.Join(in.traces(s), "; "))
		}
		time.Sleep(pause)
	}
}

func pids() []int {
	entries, _ := os.ReadDir("/proc")
	var all []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// process is one of the service's own, which no attack may end or replace.
type process struct {
	name  string
	pid   int
	start string // in clock ticks since boot: tells one process of a number from the next
}

// stat returns the fields of /proc/PID/stat behind the command's name: field 3 is the first.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])), nil
}

func newProcess(name string, pid int) (process, error) {
	f, err := stat(pid)
	if err != nil {
		return process{}, err
	}
	return process{name, pid, f[22-3]}, nil
}

func (p process) alive() bool {
	f, err := stat(p.pid)
	return err == nil && f[22-3] == p.start && f[0] != "Z"
}

// cpu is what the process has used so far.
func (p process) cpu() time.Duration {
	f, err := stat(p.pid)
	if err != nil {
		return 0
	}
	user, _ := strconv.ParseInt(f[14-3], 10, 64)
	system, _ := strconv.ParseInt(f[15-3], 10, 64)
	return time.Duration(user+system) * (time.Second / 100)
}

// resident returns what the process holds in memory now and at most since forgetPeak, in bytes.
func (p process) resident() (now, peak int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	for line := range strings.Lines(string(b)) {
		var n int64
		switch {
		case scan(line, "VmRSS: %d kB", &n):
			now = n << 10
		case scan(line, "VmHWM: %d kB", &n):
			peak = n << 10
		}
	}
	return now, peak
}

func scan(line, format string, n *int64) bool {
	found, err := fmt.Sscanf(line, format, n)
	return err == nil && found == 1
}

func (p process) forgetPeak() {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
}

// own are the service's processes: the program itself and, where there is one, the keeper.
func (s *service) own() ([]process, error) {
	main, err := newProcess("controller", s.PID)
	if err != nil {
		return nil, err
	}
	all := []process{main}
	if s.engine.name == "docker" {
		return all, nil
	}
	for _, pid := range pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		args := strings.Split(string(b), "\x00")
		if err != nil || len(args) < 2 || args[1] != "keeper" || !bytes.Contains(b, []byte(s.id)) {
			continue
		}
		k, err := newProcess("keeper", pid)
		if err != nil {
			return nil, err
		}
		return append(all, k), nil
	}
	return nil, fmt.Errorf("no keeper runs for controller %s", s.id)
}
