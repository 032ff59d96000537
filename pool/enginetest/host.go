package enginetest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// tracesOf looks for what names an id on this host: processes in control groups, mounts.
func tracesOf(t *testing.T, id string) []string {
	t.Helper()
	var traces []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, id) {
			traces = append(traces, "mount "+line)
		}
	}
	for _, pid := range pids(t) {
		text, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
		if err == nil && strings.Contains(string(text), id) {
			traces = append(traces, "process "+pid+" "+procFile(pid, "cmdline"))
		}
	}
	return traces
}

func pids(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, e.Name())
		}
	}
	return all
}

func procFile(pid, name string) string {
	text, _ := os.ReadFile(filepath.Join("/proc", pid, name)) // gone: empty
	return string(text)
}

// status reads the fields of /proc/…/status.
func status(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// find lists the paths below dir whose name contains part.
func find(t *testing.T, dir, part string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), part) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
