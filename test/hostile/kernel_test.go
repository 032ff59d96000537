package hostile

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// H: the kernel, by native code where JavaScript does not reach.
var kernelAttacks = []attack{
	{id: "H1", file: "h1-calls.js", input: in("mode", "calls"), limit: 10 * time.Second, want: answered, before: both(deliverProbe, photograph),
		after: all(asGolden, hostAsBefore), stays: true},
	{id: "H2", file: "h2-other-tables.js", limit: 10 * time.Second, want: answered, before: deliverProbe, after: held(12)},
	{id: "H3", file: "h3-crowd.js", limit: 10 * time.Second, want: answered, before: watchPosture, after: all(says(`"looked at"`), postureHeld)},
	{id: "H4", file: "h4-setuid.js", limit: 20 * time.Second, want: answered, after: held(13), stays: true},
	{id: "H5", file: "h5-cgroup.js", limit: 5 * time.Second, want: answered, after: held(120), stays: true},
	{id: "H6", file: "h6-kernel.js", limit: 5 * time.Second, want: answered, before: photograph, after: all(held(40), hostAsBefore), stays: true},
	{id: "H7", file: "h7-devices.js", input: in("emulated", []string{}), limit: 5 * time.Second, want: answered, after: held(30), stays: true, only: []string{"runc"}},
	// gVisor has devices of its own, which lead nowhere but into itself.
	{id: "H7 guest", file: "h7-devices.js", input: in("emulated", []string{"fuse", "net"}), limit: 5 * time.Second, want: answered, after: held(28), stays: true, only: []string{"gvisor"}},
	{id: "H8", file: "h8-nested.js", limit: 10 * time.Second, want: answered, before: both(deliverProbe, photograph), after: all(held(25), hostAsBefore), stays: true},
	{id: "H9", file: "h9-quotas.js", limit: 10 * time.Second, want: answered, after: all(held(1), aloneWithItsID), stays: true},
	{id: "H12", file: "h12-clocks.js", limit: 20 * time.Second, want: answered, after: held(2)},
	{id: "H20", file: "h20-checklist.js", limit: 10 * time.Second, want: answered, before: both(deliverProbe, photograph), after: all(held(45), hostAsBefore), stays: true},
	{id: "H10", file: "h10-storm.js", limit: 10 * time.Second, want: answered, before: deliverProbe, after: noStorm, stays: true},
}

//go:embed testdata/calls.golden
var goldenCalls string

func both(first, second func(*attempt) error) func(*attempt) error {
	return func(at *attempt) error {
		if err := first(at); err != nil {
			return err
		}
		return second(at)
	}
}

// deliverProbe puts the probe where the container can run it, as a hole in V8 would let a tenant run code of its own.
func deliverProbe(at *attempt) error {
	program, err := probe()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if at.engine.gvisor() { // its root file system is the image's directory, served by the host
		found, err := filepath.Glob(filepath.Join(at.service.data, "images", "*", "rootfs", "var"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("the image's directory: %q, %v", found, err)
		}
		return os.WriteFile(filepath.Join(found[0], "probe"), text, 0o755)
	}
	return inMounts(func(*attempt) error {
		if err := unix.Mount("tmpfs", "/var", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return err
		}
		return os.WriteFile("/var/probe", text, 0o755)
	})(at)
}

// probed is what the probe said.
type probed struct {
	Results map[string]int
	Signal  string
}

func (at *attempt) probed() (p probed, err error) {
	err = json.Unmarshal(at.answer.body, &p)
	return p, err
}

// asGolden compares what came of each system call with testdata/calls.golden: a line is a call's name, what runc's
// sandboxes get, and what gVisor's get. One difference is a hole, or a change that has to be looked at.
func asGolden(at *attempt) (wrong []string) {
	p, err := at.probed()
	if err != nil || len(p.Results) < 45 {
		return []string{fmt.Sprintf("the probe said %.300s, %v", at.answer.body, err)}
	}
	column := 1
	if at.engine.gvisor() {
		column = 2
	}
	golden := map[string]string{}
	for line := range strings.Lines(goldenCalls) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); len(f) == 3 && !strings.HasPrefix(line, "#") {
			golden[f[0]] = f[column]
		}
	}
	for name, errno := range p.Results {
		if got := errnoName(errno); !slices.Contains(strings.Split(golden[name], "|"), got) {
			wrong = append(wrong, fmt.Sprintf("%s: %s, want %s", name, got, golden[name]))
		}
	}
	slices.Sort(wrong)
	return wrong
}

func errnoName(n int) string {
	if n == 0 {
		return "done"
	}
	return unix.ErrnoName(unix.Errno(n))
}

// photograph remembers what a sandbox must not be able to change.
func photograph(at *attempt) error {
	at.host0 = hostState()
	return nil
}

func hostState() string {
	var all strings.Builder
	for _, f := range []string{"sys/kernel/hostname", "sys/kernel/domainname", "sys/kernel/core_pattern", "sys/kernel/randomize_va_space", "swaps", "sysvipc/shm",
		"sysvipc/sem", "sysvipc/msg", "sys/vm/overcommit_memory", "sys/kernel/sysrq", "sys/net/ipv4/ip_forward", "sys/kernel/modules_disabled"} {
		b, _ := os.ReadFile("/proc/" + f)
		fmt.Fprintf(&all, "%s: %s\n", f, b)
	}
	return all.String()
}

func hostAsBefore(at *attempt) []string {
	if now := hostState(); now != at.host0 {
		return []string{fmt.Sprintf("the host was changed: %q, then %q", at.host0, now)}
	}
	return nil
}

// noStorm wants what writes back the whole host's files, or changes how its memory is managed, to have been refused.
func noStorm(at *attempt) (wrong []string) {
	p, err := at.probed()
	if err != nil || len(p.Results) != 5 {
		return []string{fmt.Sprintf("the probe said %.300s, %v", at.answer.body, err)}
	}
	if at.engine.gvisor() {
		return nil // all of it is about the sandbox's own kernel; the canary says whether it was felt
	}
	for _, name := range []string{"sync", "syncfs", "fallocate", "merge"} {
		if n := p.Results[name]; n > 0 {
			wrong = append(wrong, fmt.Sprintf("%s went through %d times", name, n))
		}
	}
	return wrong
}
