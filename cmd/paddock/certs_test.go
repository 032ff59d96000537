package main

import (
	"path/filepath"
	"strings"
	"testing"

	"paddock/internal/testenv"
)

// What init and issue leave is what controllers and routers take.
func TestCerts(t *testing.T) {
	dir := t.TempDir()
	ca, out := filepath.Join(dir, "ca"), filepath.Join(dir, "node")
	run := func(code int, want string, argv ...string) string {
		t.Helper()
		var text testenv.Log
		a := &app{stdin: strings.NewReader(""), stdout: &text, stderr: &text, getenv: func(string) string { return "" }}
		r := result{code: a.main(argv), out: text.String()}
		if r.code != code || !strings.Contains(r.out+r.stderr, want) {
			t.Fatalf("paddock %v: exit code %d, %s%s; want %d and %q", argv, r.code, r.out, r.stderr, code, want)
		}
		return r.out
	}
	issue := func(more ...string) []string {
		return append([]string{"certs", "issue", "--ca", ca, "--out", out}, more...)
	}
	run(exitUsage, "paddock certs init", issue("--role", "router", "--name", "r")...)
	run(0, "keep it safe", "certs", "init", "--dir", ca)
	run(exitUsage, "has an authority already", "certs", "init", "--dir", ca)
	run(exitUsage, "--host", issue("--role", "controller", "--name", "c1")...)
	run(exitUsage, "router, controller", issue("--role", "king", "--name", "c1")...)
	run(0, "valid until", issue("--role", "controller", "--name", "c1", "--host", "10.0.0.1", "--host", "c1.internal")...)
	run(0, "controller c1\nserves at  [c1.internal 10.0.0.1]", "certs", "show", filepath.Join(out, "controller-c1.pem"))
	run(0, "authority", "certs", "show", filepath.Join(out, "ca.pem"))
	run(exitUsage, "no PEM certificate", "certs", "show", filepath.Join(out, "controller-c1-key.pem"))

	// The store's rights are set by who has them afterwards.
	access := func(more ...string) []string {
		return append([]string{"store", "access", "--etcd-endpoints", "https://127.0.0.1:1", "--etcd-ca", filepath.Join(ca, "ca.pem")}, more...)
	}
	run(exitUsage, "etcd-endpoints is empty", "store", "access")
	run(exitUsage, "neither TLS nor on this machine", "store", "access", "--etcd-endpoints", "http://10.0.0.1:2379")
	run(exitUsage, "etcd-admin", access()...)
	run(exitUsage, "that of paddock-controller", access("--etcd-cert", filepath.Join(out, "controller-c1.pem"), "--etcd-key", filepath.Join(out, "controller-c1-key.pem"))...)
}
