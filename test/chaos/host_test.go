package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"paddock/pool/cgroup"
)

// latches reads which containers a controller's host has and whose each is; "" is nobody's.
func (c *cluster) latches(n *node) map[string]string {
	found := map[string]string{}
	base := filepath.Join(c.run, n.id, "s", "pool")
	dirs, err := os.ReadDir(base)
	if err != nil {
		return found
	}
	for _, d := range dirs {
		text, err := os.ReadFile(filepath.Join(base, d.Name(), "tenant"))
		if err != nil {
			if _, err := os.Stat(filepath.Join(base, d.Name())); err != nil {
				continue // it went a moment ago
			}
		}
		tenant, _, _ := strings.Cut(string(text), "\n")
		found[d.Name()] = tenant
	}
	return found
}

// holders returns who has containers of a tenant, by the latches.
func (c *cluster) holders(tenant string) map[*node][]string {
	all := map[*node][]string{}
	for _, n := range c.nodes {
		for id, t := range c.latches(n) {
			if t == tenant {
				all[n] = append(all[n], id)
			}
		}
	}
	return all
}

// group is a container's control group.
func (c *cluster) group(n *node, container string) (cgroup.Group, error) {
	groups, err := cgroup.Detect()
	if err != nil {
		return cgroup.Group{}, err
	}
	return groups.At("paddock/" + n.id + "/" + container), nil
}

// strike sends a signal to every process of a container.
func (c *cluster) strike(n *node, container string, s syscall.Signal) error {
	g, err := c.group(n, container)
	if err != nil {
		return err
	}
	pids, err := g.Procs()
	if err != nil || len(pids) == 0 {
		return fmt.Errorf("container %s has the processes %v, %v", container, pids, err)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
	return nil
}

// remains lists what a stopped controller left on this machine.
func (c *cluster) remains(n *node) (found []string) {
	names := [][]byte{[]byte("/" + n.id)}
	named := func(text []byte) bool { return bytes.Contains(text, names[0]) }
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		for _, file := range []string{"cgroup", "cmdline"} {
			if b, err := os.ReadFile(filepath.Join("/proc", e.Name(), file)); err == nil && named(b) {
				found = append(found, fmt.Sprintf("%s left process %d (by its %s)", n.name, pid, file))
				break
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if named([]byte(line)) {
			found = append(found, n.name+" left mount "+strings.TrimSpace(line))
		}
	}
	groups, err := cgroup.Detect()
	if err != nil || groups.At("paddock/"+n.id).Exists() {
		found = append(found, fmt.Sprintf("%s left control group paddock/%s (%v)", n.name, n.id, err))
	}
	if _, err := os.Stat(filepath.Join(c.run, n.id)); err == nil {
		found = append(found, n.name+" left "+filepath.Join(c.run, n.id))
	}
	return found
}
