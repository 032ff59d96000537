//go:build vm

// Package vm tests the service on a machine with cgroup v2 alone, as it is inside the emulated machine that run.sh boots. It
// has only tests. It does not test what needs no control groups.
package vm
