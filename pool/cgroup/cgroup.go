// Package cgroup reads and steers the control groups of containers, on cgroup v1 (separate hierarchies, hybrid) and on v2:
// finds the layout, caps a parent, reads limits and counters back, freezes, kills, removes. It does not put limits on a
// container's own group: the runtime that makes the group does, and the caller reads them back here. It starts no
// goroutines and keeps no state besides the layout.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// FS is the layout of this machine's control groups. It is immutable and safe for concurrent use.
type FS struct {
	v2   bool
	root string            // v2: the mount point
	v1   map[string]string // v1: controller (or "name=systemd", or "" for the hybrid v2 mount) → mount point
}

// the v1 controllers without which nothing can be limited or told
var needed = []string{"memory", "pids", "cpu", "cpuacct", "freezer"}

// Detect finds the layout from /proc/self/mountinfo.
func Detect() (*FS, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	defer f.Close()
	return Parse(f)
}

// Parse finds the layout from a mountinfo.
func Parse(mountinfo io.Reader) (*FS, error) {
	v1 := map[string]string{}
	var unified string
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		point, kind, options, ok := parseMount(lines.Text())
		if !ok {
			continue
		}
		switch kind {
		case "cgroup2":
			if unified == "" {
				unified = point
			}
		case "cgroup":
			for _, c := range controllersOf(options) {
				if v1[c] == "" {
					v1[c] = point
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	if v1["memory"] == "" && unified != "" {
		return NewV2(unified)
	}
	if unified != "" {
		v1[""] = unified
	}
	return NewV1(v1)
}

// parseMount takes a line of mountinfo apart: "36 35 98:0 /root /point opts - type source superoptions".
func parseMount(line string) (point, kind, options string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	front, back := strings.Fields(before), strings.Fields(after)
	if !ok || len(front) < 5 || len(back) < 3 {
		return "", "", "", false
	}
	return unescape(front[4]), back[0], back[2], true
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func controllersOf(options string) []string {
	var found []string
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "rw", "ro", "noprefix", "xattr", "clone_children", "cpuset_v2_mode", "favordynmods":
			continue
		}
		if !strings.HasPrefix(o, "release_agent=") {
			found = append(found, o)
		}
	}
	return found
}

// NewV2 returns the layout of a cgroup v2 mounted at root. It must offer the memory, pids and cpu controllers.
func NewV2(root string) (*FS, error) {
	text, err := readFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("cgroup v2 at %s: %w", root, err)
	}
	have := strings.Fields(text)
	for _, c := range v2Controllers {
		if !slices.Contains(have, c) {
			return nil, fmt.Errorf("cgroup v2 at %s has no %s controller (it has: %s)", root, c, strings.Join(have, " "))
		}
	}
	return &FS{v2: true, root: root}, nil
}

// NewV1 returns the layout of v1 hierarchies by controller; "" stands for a v2 mount without controllers beside them.
func NewV1(mounts map[string]string) (*FS, error) {
	for _, c := range needed {
		if mounts[c] == "" {
			return nil, fmt.Errorf("no cgroup controller %q is mounted: mount cgroup v2, or the v1 hierarchies, at /sys/fs/cgroup", c)
		}
	}
	return &FS{v1: mounts}, nil
}

// Version is 1 or 2.
func (f *FS) Version() int {
	if f.v2 {
		return 2
	}
	return 1
}

// hierarchies lists the distinct mount points.
func (f *FS) hierarchies() []string {
	if f.v2 {
		return []string{f.root}
	}
	var all []string
	for _, m := range f.v1 {
		all = append(all, m)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// At returns the group at path (below the mount points, as in "paddock/1f2e/…"), whether it exists or not.
func (f *FS) At(path string) Group { return Group{fs: f, path: filepath.Clean("/" + path)} }

// Children lists the names of the groups directly below path, in whichever hierarchy they are.
func (f *FS) Children(path string) ([]string, error) {
	var names []string
	for _, h := range f.hierarchies() {
		entries, err := os.ReadDir(filepath.Join(h, path))
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return nil, fmt.Errorf("list cgroups below %s: %w", path, err)
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Group is one control group: a path in every hierarchy. The zero value is not usable. Safe for concurrent use.
type Group struct {
	fs   *FS
	path string
}

// Path is the group's path below the mount points, starting with "/": what a runtime-spec calls cgroupsPath.
func (g Group) Path() string { return g.path }

// dir is where the group's files of a controller are.
func (g Group) dir(controller string) string {
	if g.fs.v2 {
		return filepath.Join(g.fs.root, g.path)
	}
	return filepath.Join(g.fs.v1[controller], g.path)
}

// dirs lists the group's directory in every hierarchy, existing or not.
func (g Group) dirs() []string {
	all := g.fs.hierarchies()
	for i, h := range all {
		all[i] = filepath.Join(h, g.path)
	}
	return all
}

// Exists says whether the group exists in any hierarchy.
func (g Group) Exists() bool {
	return slices.ContainsFunc(g.dirs(), func(d string) bool {
		_, err := os.Lstat(d)
		return err == nil
	})
}
