package oci

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Version is what is known of an OCI runtime binary.
type Version struct {
	Path    string
	Name    string // "runc" or "runsc"
	Version string // as the binary says, or as its build information does
	TooOld  bool   // has known ways out of the container, or cannot do what the engine asks of it
	Why     string // with TooOld: what is wrong and what to do
}

// The oldest runc of each series with the fixes of 2025 and 2026 (masked paths, /dev/console, /proc writes: a container
// could reach the host's procfs); later series have them from the start.
var runcFixed = map[[2]int]int{{1, 2}: 8, {1, 3}: 6, {1, 4}: 3}

const runcSafeSeries = 5 // 1.5

// runscOldest is the release date of the oldest runsc that is supported: gVisor has no series, only dates.
const runscOldest = 20260101

// versionTimeout is far beyond what saying a version takes: on a machine that is busy with other things a start must not fail of it.
const versionTimeout = 30 * time.Second

// Detect asks a runtime binary for its version and judges it. An error means that the binary does not run or is neither
// runc nor runsc.
func Detect(ctx context.Context, path string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Version{}, fmt.Errorf("ask %s for its version: %w", path, errors.Join(err, ctx.Err()))
	}
	name, version, err := parseVersion(string(out))
	if err != nil {
		return Version{}, fmt.Errorf("%s: %w", path, err)
	}
	if strings.Contains(version, "VERSION_MISSING") {
		// built from its module without a version: the build information has the module's
		if info, err := buildinfo.ReadFile(path); err == nil {
			version = moduleVersion(info)
		}
	}
	v := Version{Path: path, Name: name, Version: version}
	v.Why = Judge(name, version)
	v.TooOld = v.Why != ""
	return v, nil
}

func parseVersion(text string) (name, version string, err error) {
	line, _, _ := strings.Cut(text, "\n")
	name, version, ok := strings.Cut(strings.TrimSpace(line), " version ")
	if !ok || (name != "runc" && name != "runsc") {
		return "", "", fmt.Errorf("it is neither runc nor runsc: it says %.100q", line)
	}
	return name, strings.TrimSpace(version), nil
}

func moduleVersion(info *buildinfo.BuildInfo) string {
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == "gvisor.dev/gvisor" {
			return m.Version
		}
	}
	return "unknown"
}

// Judge returns why a version of runc or runsc is too old and what to do, or "". It is for versions that somebody else read,
// a Docker engine's for one.
func Judge(name, version string) string {
	if name == "runc" {
		return judgeRunc(version)
	}
	return judgeRunsc(version)
}

var runcForm = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(-rc[.\d]*)?`)

func judgeRunc(version string) string {
	const remedy = "use 1.2.8, 1.3.6, 1.4.3, 1.5.0 or later"
	m := runcForm.FindStringSubmatch(version)
	if m == nil {
		return fmt.Sprintf("runc %q has no version that can be judged: %s", version, remedy)
	}
	major, minor, patch := atoi(m[1]), atoi(m[2]), atoi(m[3])
	fixed, listed := runcFixed[[2]int{major, minor}]
	switch {
	case major > 1 || major == 1 && minor > runcSafeSeries:
		return ""
	case major == 1 && minor == runcSafeSeries:
		if patch > 0 || m[4] == "" {
			return ""
		}
	case listed && (patch > fixed || patch == fixed && m[4] == ""):
		return ""
	}
	return fmt.Sprintf("runc %s has known container escapes: %s", version, remedy)
}

var (
	runscRelease = regexp.MustCompile(`(?:^|\D)(20\d{6})(?:\D|$)`) // release-20260224.0
	runscPseudo  = regexp.MustCompile(`-(20\d{6})\d{6}-`)          // v0.0.0-20260224225140-573d5e7127a8
)

func judgeRunsc(version string) string {
	m := runscPseudo.FindStringSubmatch(version)
	if m == nil {
		m = runscRelease.FindStringSubmatch(version)
	}
	if m == nil {
		return fmt.Sprintf("runsc %q has no date that can be judged: use a release of %d or later", version, runscOldest)
	}
	if atoi(m[1]) < runscOldest {
		return fmt.Sprintf("runsc of %s is older than what Paddock was tried with: use a release of %d or later", m[1], runscOldest)
	}
	return ""
}

// atoi is for digits that a regular expression has matched; too many of them are a very new version.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return int(^uint(0) >> 1)
	}
	return n
}
