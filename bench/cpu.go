package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"paddock/pool/cgroup"
)

// meter reads how much CPU a target has used. Unlike rates, CPU per call hardly changes with what else the machine does.
type meter struct {
	pid       int           // of the process that answers
	sandboxes *cgroup.Group // all of its sandboxes; nil if it has none
}

// usage is CPU used, by the process that answers and by its sandboxes.
type usage struct{ process, sandboxes time.Duration }

func (m meter) read() (usage, error) {
	var u usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		return u, err
	}
	// "pid (name) state ppid …": the name may hold anything; user and system time are fields 14 and 15
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("/proc/%d/stat reads %q", m.pid, stat)
	}
	const tick = 10 * time.Millisecond
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return u, err
		}
		u.process += time.Duration(n) * tick
	}
	if m.sandboxes != nil {
		u.sandboxes, err = m.sandboxes.CPU()
	}
	return u, err
}

// measured is load with the CPU that each call took.
func (m meter) measured(t target, conns int, d time.Duration) (figures, error) {
	before, err := m.read()
	if err != nil {
		return figures{}, err
	}
	f, err := load(t, conns, d)
	if err != nil {
		return f, err
	}
	after, err := m.read()
	if f.calls > 0 {
		f.process = (after.process - before.process) / time.Duration(f.calls)
		f.sandboxes = (after.sandboxes - before.sandboxes) / time.Duration(f.calls)
	}
	return f, err
}

// meter reads the service's process and the control group above all of its sandboxes.
func (s *service) meter() (meter, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return meter{}, err
	}
	id, err := os.ReadFile(filepath.Join(s.dir, "data", "id"))
	if err != nil {
		return meter{}, err
	}
	group := layout.At("paddock/" + strings.TrimSpace(string(id)))
	return meter{s.pid, &group}, nil
}
