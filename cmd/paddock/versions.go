package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"paddock/cmd/paddock/doctor"
	"paddock/cmd/paddock/machine"
	"paddock/internal/config"
	"paddock/pool/docker"
	"paddock/pool/oci"
)

// versionTimeout bounds asking a program or engine for its version.
const versionTimeout = 5 * time.Second

// dockerOldest is the oldest major version of the Docker engine that still gets fixes.
const dockerOldest = 28

// release numbers: major, minor, patch.
type number [3]int

var threeNumbers = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)`)

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
	found, err := oci.Detect(ctx, path)
	if err != nil {
		return doctor.Version{Path: path}, err
	}
	return doctor.Version{Path: path, Version: found.Name + " " + found.Version, Problem: found.Why}, nil
}

// askDocker asks the engine for doctor.
func askDocker(cfg config.Config) func(context.Context) (doctor.Version, error) {
	return func(ctx context.Context) (doctor.Version, error) {
		isolation := cfg.Isolation
		if cfg.Engine != config.EngineDocker {
			isolation = config.IsolationRunc // what every engine has: the wish is for another engine
		}
		return dockerVersion(ctx, cfg.Docker.Host, isolation)
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
	if isolation == config.IsolationGVisor {
		if err := docker.CheckRunsc(h); err != nil {
			return v, fmt.Errorf("docker engine: %w", err)
		}
	}
	if n, ok := parseNumber(h.Version); !ok || n[0] < dockerOldest {
		v.Problem = "an old engine: known holes in it and in the runc that it brings"
	} else if h.Runc != "" {
		v.Problem = oci.Judge("runc", h.Runc)
	}
	return v, nil
}
