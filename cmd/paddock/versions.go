package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"paddock/cmd/paddock/doctor"
	"paddock/cmd/paddock/machine"
	"paddock/internal/config"
	"paddock/pool/docker"
)

// versionTimeout bounds asking a program or engine for its version.
const versionTimeout = 5 * time.Second

// runscOldest is the date from which on gVisor has all that Paddock relies on.
const runscOldest = "20250101"

// dockerOldest is the oldest major version of the Docker engine that still gets fixes.
const dockerOldest = 28

// release numbers: major, minor, patch.
type number [3]int

func runcFixes() []number { // runc got its fixes in several release lines at once; newer lines began with them
	return []number{{1, 2, 8}, {1, 3, 3}, {1, 4, 0}}
}

var (
	threeNumbers = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)`)
	eightDigits  = regexp.MustCompile(`\d{8}`)
)

func parseNumber(s string) (n number, ok bool) {
	m := threeNumbers.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return n, false
	}
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1])
	}
	return n, true
}

// findVersion looks for a runtime program and asks it.
func findVersion(cfg config.Config) func(context.Context, string) (doctor.Version, error) {
	return func(ctx context.Context, name string) (doctor.Version, error) {
		named := ""
		if cfg.Runtime != "" && name == programOf(cfg.Isolation) {
			named = cfg.Runtime
		}
		path, err := machine.FindRuntime(name, named)
		if err != nil {
			return doctor.Version{}, err
		}
		return runtimeVersion(ctx, path)
	}
}

// runtimeVersion asks a runsc or runc for its version and says what is wrong with it.
func runtimeVersion(ctx context.Context, path string) (doctor.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return doctor.Version{Path: path}, fmt.Errorf("%s --version: %w", path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	name, text, ok := strings.Cut(strings.TrimSpace(line), " version ")
	if !ok {
		return doctor.Version{Path: path}, fmt.Errorf("%s is no runsc and no runc: it says %.80q", path, line)
	}
	v := doctor.Version{Path: path, Version: name + " " + text}
	if name == "runsc" {
		v.Version, v.Problem = judgeRunsc(path, text)
	} else {
		v.Problem = judgeRunc(text)
	}
	return v, nil
}

// judgeRunsc finds the date in "release-20260224.0" and the like; a runsc built from its module without a stamp does not
// know its version, but its build information does.
func judgeRunsc(path, text string) (version, problem string) {
	date := eightDigits.FindString(text)
	if info, err := buildinfo.ReadFile(path); date == "" && err == nil {
		for _, d := range append(info.Deps, &info.Main) {
			if d.Path == "gvisor.dev/gvisor" {
				date = eightDigits.FindString(d.Version)
			}
		}
	}
	switch {
	case date == "":
		return "runsc " + text, "it does not say its version"
	case date < runscOldest:
		return "runsc " + date, "older than " + runscOldest + ": known holes, and options that Paddock relies on are missing"
	}
	return "runsc " + date, ""
}

func judgeRunc(text string) (problem string) {
	v, ok := parseNumber(text)
	if !ok {
		return "it does not say its version"
	}
	fixes := runcFixes()
	for _, f := range fixes {
		if v[0] == f[0] && v[1] == f[1] && slices.Compare(v[:], f[:]) >= 0 {
			return ""
		}
	}
	if newest := fixes[len(fixes)-1]; slices.Compare(v[:], newest[:]) >= 0 {
		return ""
	}
	return "known ways out of a container (CVE-2025-31133, -52565, -52881)"
}

// askDocker asks the engine for doctor.
func askDocker(cfg config.Config) func(context.Context) (doctor.Version, error) {
	return func(ctx context.Context) (doctor.Version, error) {
		return dockerVersion(ctx, cfg.Docker.Host, cfg.Isolation)
	}
}

// dockerVersion asks an engine, and whether it has what the isolation needs.
func dockerVersion(ctx context.Context, host, isolation string) (doctor.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	h, err := docker.Probe(ctx, host)
	if err != nil {
		return doctor.Version{}, fmt.Errorf("%w; start the Docker engine, or use --engine oci, which needs none", err)
	}
	v := doctor.Version{Version: fmt.Sprintf("Docker %s (API %s, runc %s)", h.Version, h.APIVersion, orDefault(h.Runc, "?"))}
	if isolation == config.IsolationGVisor && !slices.Contains(h.Runtimes, "runsc") {
		return v, fmt.Errorf("the Docker engine has no runtime runsc: add it to the daemon's configuration (runtimes), " +
			"use --isolation runc, or --engine oci, which brings its own")
	}
	if n, ok := parseNumber(h.Version); !ok || n[0] < dockerOldest {
		v.Problem = "an old engine: known holes in it and in the runc that it brings"
	} else if h.Runc != "" {
		v.Problem = judgeRunc(h.Runc)
	}
	return v, nil
}
