// Package doctor looks at a host and says what Paddock can do on it and what is too old, missing or unsafe. It only reads
// (kernel settings, versions, free space) and changes nothing.
package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Verdict says how bad a fact is.
type Verdict string

// The verdicts. Bad means that Paddock, as asked for, does not run or must not run here.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn"
	Bad  Verdict = "bad"
)

// Fact is one thing that was looked at.
type Fact struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Value   string  `json:"value"`
	Advice  string  `json:"advice,omitempty"` // what to do, unless it is ok
}

// Version is what a runtime program or engine says of itself.
type Version struct {
	Path    string
	Version string
	// Problem says what is wrong with this version ("" = nothing): known holes, or that it does not say its version.
	Problem string
}

// Host is where the facts are read. The zero value is no host: make one with ThisHost, and change it in tests.
type Host struct {
	Proc, Sys string // directories
	UID       int
	Kernel    string // uname -r
	DataDir   string
	// Engine and Isolation are what the operator wants to use; what they need and have not is bad, the rest a warning.
	Engine, Isolation string

	LookPath func(name string) (string, error)
	// Free returns free and total bytes of the file system that holds path, or its nearest parent that exists.
	Free func(path string) (free, total int64, err error)
	// Runtime finds and asks runsc or runc; Docker asks the engine.
	Runtime func(ctx context.Context, name string) (Version, error)
	Docker  func(ctx context.Context) (Version, error)
	CPUs    int
}

// Look returns all facts, in the order in which they are best read.
func (h *Host) Look(ctx context.Context) []Fact {
	facts := []Fact{h.root(), h.kernel(), h.architecture(), h.cgroups(), h.userNamespaces(), h.seccomp()}
	facts = append(facts, h.runtimes(ctx)...)
	facts = append(facts, h.npm(), h.disk(), h.memory(), h.swap(), h.corePattern())
	return append(facts, h.hardening()...)
}

// Worst returns the worst verdict of facts.
func Worst(facts []Fact) Verdict {
	worst := OK
	for _, f := range facts {
		if f.Verdict == Bad {
			return Bad
		}
		if f.Verdict == Warn {
			worst = Warn
		}
	}
	return worst
}

func (h *Host) root() Fact {
	if h.UID != 0 {
		return Fact{"user", Bad, fmt.Sprintf("uid %d", h.UID), "run as root: making sandboxes needs cgroups, mounts and user ids of their own"}
	}
	return Fact{Name: "user", Verdict: OK, Value: "root"}
}

func (h *Host) kernel() Fact {
	f := Fact{Name: "kernel", Verdict: OK, Value: h.Kernel}
	var major, minor int
	if _, err := fmt.Sscanf(h.Kernel, "%d.%d", &major, &minor); err != nil {
		f.Verdict, f.Advice = Warn, "its version cannot be read"
		return f
	}
	switch at := major*1000 + minor; {
	case at < 5004:
		f.Verdict, f.Advice = Bad, "at least 5.4 is needed (pidfds)"
	case at < 5010:
		f.Verdict, f.Advice = Warn, "older than 5.10: use a kernel that still gets security fixes"
	}
	return f
}

func (h *Host) architecture() Fact {
	f := Fact{Name: "architecture", Verdict: OK, Value: fmt.Sprintf("%s, %d CPUs", runtime.GOARCH, h.CPUs)}
	if runtime.GOARCH != "amd64" {
		f.Verdict, f.Advice = Warn, "only amd64 has been tried"
	}
	return f
}

// cgroups wants the controllers that bound a sandbox, in either layout.
func (h *Host) cgroups() Fact {
	f := Fact{Name: "cgroups", Verdict: OK}
	need := []string{"memory", "pids", "cpu"}
	var have string
	if b, err := os.ReadFile(filepath.Join(h.Sys, "fs/cgroup/cgroup.controllers")); err == nil {
		f.Value, have = "v2", string(b)
	} else {
		f.Value, need = "v1", append(need, "freezer", "devices")
		entries, err := os.ReadDir(filepath.Join(h.Sys, "fs/cgroup"))
		if err != nil || len(entries) == 0 {
			return Fact{"cgroups", Bad, "none mounted", "mount cgroup v2 at /sys/fs/cgroup"}
		}
		for _, e := range entries {
			have += " " + strings.ReplaceAll(e.Name(), ",", " ")
		}
	}
	var missing []string
	for _, c := range need {
		if !hasWord(have, c) {
			missing = append(missing, c)
		}
	}
	f.Value += " (" + strings.Join(need, ", ") + ")"
	if len(missing) > 0 {
		f.Verdict = Bad
		f.Value = strings.Fields(f.Value)[0] + " without " + strings.Join(missing, ", ")
		f.Advice = "without these controllers a sandbox cannot be bounded; enable them (on v2: cgroup.subtree_control of the root)"
	}
	return f
}

func hasWord(text, word string) bool {
	for _, w := range strings.Fields(text) {
		if w == word {
			return true
		}
	}
	return false
}

func (h *Host) userNamespaces() Fact {
	n := h.readInt(h.Proc, "sys/user/max_user_namespaces", -1)
	switch {
	case n > 0:
		return Fact{Name: "user namespaces", Verdict: OK, Value: "available"}
	case n == 0:
		return Fact{"user namespaces", Bad, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=15000"}
	}
	return Fact{"user namespaces", Bad, "not in this kernel", "use a kernel with CONFIG_USER_NS"}
}

func (h *Host) seccomp() Fact {
	actions := h.read(h.Proc, "sys/kernel/seccomp/actions_avail")
	if hasWord(actions, "errno") {
		return Fact{Name: "seccomp", Verdict: OK, Value: "available"}
	}
	return Fact{"seccomp", Bad, "not available", "use a kernel with CONFIG_SECCOMP_FILTER"}
}

// read returns a small file's text without space around it, "" if there is none.
func (h *Host) read(dir, file string) string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h *Host) readInt(dir, file string, missing int) int {
	n := missing
	if text := h.read(dir, file); text != "" {
		if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
			return missing
		}
	}
	return n
}
