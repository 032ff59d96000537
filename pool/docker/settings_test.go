package docker

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"paddock/pool"
)

// TestSettingsLint reads what the API is asked for, as an auditor would.
func TestSettingsLint(t *testing.T) {
	s, err := newSettings(Options{ControllerID: "c0ffee00"}, HostInfo{Runtimes: []string{"runc"}})
	if err != nil {
		t.Fatal(err)
	}
	s.cgroupParent = "/paddock/c0ffee00"
	spec := fakeSpec(t)
	facts := pool.Facts{
		UID: spec.UID, ImageDigest: fakeImage.Digest, MemoryBytes: 64 << 20, LimitBytes: 128 << 20, Created: time.Unix(1, 5),
	}
	c, h := s.container(spec, "sha256:1", facts)
	must := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Error(what)
		}
	}
	must(c.User == "1000000:1000000", "user "+c.User)
	must(!c.Tty && !c.OpenStdin && !c.AttachStdin, "a terminal or stdin")
	must(c.NetworkDisabled && h.NetworkMode == "none", "network")
	must(h.ReadonlyRootfs && !h.Privileged && !h.AutoRemove, "root file system or privilege")
	must(slices.Equal(h.CapDrop, []string{"ALL"}) && len(h.CapAdd) == 0, "capabilities")
	must(slices.Contains(h.SecurityOpt, "no-new-privileges"), "no-new-privileges")
	must(h.IpcMode == "none" && h.PidMode == "" && h.UTSMode == "" && h.CgroupnsMode == "private" && h.UsernsMode == "", "namespaces")
	must(h.LogConfig.Type == "none" && h.RestartPolicy.Name == "no", "log driver or restart policy")
	must(h.Memory == 128<<20 && h.MemorySwap == h.Memory, "memory")
	must(*h.PidsLimit == 64 && h.CPUQuota == 100_000 && h.CPUPeriod == 100_000, "processes or CPU")
	must(h.OomScoreAdj == 1000 && h.Init != nil && !*h.Init, "OOM score or init")
	must(h.Tmpfs["/tmp"] == "rw,nosuid,nodev,noexec,size=1048576,nr_inodes=1024,mode=1777", "tmpfs "+h.Tmpfs["/tmp"])
	must(len(h.Mounts) == 1 && h.Mounts[0].ReadOnly && len(h.Binds) == 0 && len(h.Devices) == 0, "mounts or devices")
	must(slices.Contains(h.MaskedPaths, "/proc/kcore") && slices.Contains(h.ReadonlyPaths, "/proc/sys"), "masked paths")
	profile := ""
	for _, o := range h.SecurityOpt {
		if p, ok := strings.CutPrefix(o, "seccomp="); ok {
			profile = p
		}
	}
	var parsed struct{ DefaultAction string }
	must(json.Unmarshal([]byte(profile), &parsed) == nil && parsed.DefaultAction == "SCMP_ACT_ERRNO", "seccomp profile")
	if got := factsFromLabels(c.Labels, 0); got != (pool.Facts{UID: facts.UID, ImageDigest: facts.ImageDigest,
		MemoryBytes: facts.MemoryBytes, LimitBytes: facts.LimitBytes, Created: facts.Created.UTC()}) {
		t.Errorf("facts %+v came back as %+v", facts, got)
	}
}

func TestRing(t *testing.T) {
	var r ring
	var all []byte
	for i := range 200 {
		p := []byte(strings.Repeat(string(rune('a'+i%26)), i*17))
		if n, err := r.Write(p); n != len(p) || err != nil {
			t.Fatalf("wrote %d of %d: %v", n, len(p), err)
		}
		all = append(all, p...)
		if want := all[max(0, len(all)-ringBytes):]; string(r.newest(ringBytes)) != string(want) {
			t.Fatalf("after %d bytes the ring holds something else", len(all))
		}
	}
	big := strings.Repeat("0123456789", ringBytes)
	if _, err := r.Write([]byte(big)); err != nil {
		t.Fatal(err)
	}
	if got := string(r.newest(10)); got != "0123456789" {
		t.Errorf("tail %q", got)
	}
}

func TestRunscArgs(t *testing.T) {
	host := HostInfo{Runtimes: []string{"runc", "runsc"}}
	if _, err := newSettings(Options{Runtime: "runsc"}, host); err == nil || !strings.Contains(err.Error(), "--host-uds=open") {
		t.Errorf("runsc that cannot reach the link was accepted: %v", err)
	}
	host.RunscArgs = []string{"--overlay2", "none", "--host-uds=open", "--directfs"}
	if _, err := newSettings(Options{Runtime: "runsc"}, host); err == nil || !strings.Contains(err.Error(), "without --directfs=false (") ||
		!strings.Contains(err.Error(), "host's root") {
		t.Errorf("a sentry that is the host's root was accepted: %v", err)
	}
	host.RunscArgs[3] = "--directfs=false"
	s, err := newSettings(Options{Runtime: "runsc"}, host)
	if err != nil || !s.gvisor {
		t.Errorf("gvisor %v, %v", s.gvisor, err)
	}
	if missing := missingArgs([]string{"--net-raw=true", "--oci-seccomp"}, wantRunsc); !slices.Contains(missing, "--net-raw=false") ||
		slices.Contains(missing, "--oci-seccomp=true") {
		t.Errorf("missing %v", missing)
	}
}
