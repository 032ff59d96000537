package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// counter keeps a number in its container: it shows whether a call met the same one.
const counter = `module.exports = async () => (globalThis.n = (globalThis.n || 0) + 1)`

func TestEveryEngineServesAndLeavesNothing(t *testing.T) {
	for _, e := range []struct{ engine, isolation string }{{"oci", "gvisor"}, {"oci", "runc"}, {"docker", "runc"}} {
		t.Run(e.engine+"-"+e.isolation, func(t *testing.T) {
			s := newSite(t, e.engine, e.isolation)
			s.start()
			s.cliAs(nil, counter, "run", "-").want(t, 0, "1\n", "")
			s.cliAs(nil, counter, "run", "-").want(t, 0, "2\n", "")
			s.asTenant(t, "default", refusesWhatDoesNotCompile)
			r := s.cli("pool", "--json").want(t, 0, e.engine+"/"+e.isolation, "")
			var pool struct{ Isolation string }
			if err := json.Unmarshal([]byte(r.out), &pool); err != nil || pool.Isolation != e.isolation {
				t.Errorf("pool says %q, %v", r.out, err)
			}
			s.stop(syscall.SIGTERM)
			if left := s.leftovers(); len(left) > 0 {
				t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
			}
			for _, want := range []string{"filling the pool", "Paddock serves", s.HTTP, "operator.key", "curl", "stopped"} {
				if !strings.Contains(s.out.String(), want) {
					t.Errorf("the output does not say %q", want)
				}
			}
			key, _ := os.ReadFile(filepath.Join(s.data, "operator.key"))
			secret := strings.TrimSpace(string(key))
			if secret == "" || strings.Contains(s.out.String(), secret) || strings.Contains(s.log.String(), secret) {
				t.Error("the operator's key stands in output or log, or is empty")
			}
		})
	}
}

// refusesWhatDoesNotCompile: at upload, compiled in a sandbox, whatever makes that.
func refusesWhatDoesNotCompile(t *testing.T, c *tenantAPI) {
	_, err := c.catalog.DeployFunction(c.ctx, &pb.DeployFunctionRequest{Name: "broken", Source: []byte("const a = 1\nlet b = ;\n")})
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, text := range []string{"does not compile", "line 2, column 9", "let b = ;\n        ^"} {
		if told := classify(err).Error(); !strings.Contains(told, text) {
			t.Errorf("%q does not say %q", told, text)
		}
	}
	if list, err := c.catalog.ListFunctions(c.ctx, &pb.ListFunctionsRequest{}); err != nil || len(list.GetFunctions()) != 0 {
		t.Errorf("stored: %v, %v", list, err)
	}
}

func TestRestartsAdopt(t *testing.T) {
	s := newSite(t, "oci", "runc")
	s.start()
	s.cliAs(nil, counter, "run", "-").want(t, 0, "1\n", "")
	s.stop(syscall.SIGUSR2)
	if _, err := os.Stat(s.ready); !os.IsNotExist(err) {
		t.Error("the ready file is still there")
	}
	old := filepath.Join(s.data, "images", strings.Repeat("0a", 32))
	if err := os.MkdirAll(filepath.Join(old, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.cliAs(nil, counter, "run", "-").want(t, 0, "2\n", "")
	testenv.Await(t, "a former version's runtime image goes", func() bool {
		_, err := os.Stat(old)
		return os.IsNotExist(err)
	})
	if images, err := os.ReadDir(filepath.Dir(old)); err != nil || len(images) < 1 {
		t.Errorf("runtime images: %v, %v", images, err)
	}
	s.stop(syscall.SIGKILL)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := s.tryStart("--http", taken.Addr().String()); err == nil {
		t.Error("it started on a port that is taken")
	}
	s.start() // what failed in between harmed nothing
	s.cliAs(nil, counter, "run", "-").want(t, 0, "3\n", "")
	s.cli("tenants", "delete", "default").want(t, 0, "1 container", "")
	s.stop(syscall.SIGTERM)
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	s.start() // a tenant that was deleted does not come back
	s.cliAs(nil, counter, "run", "-").want(t, 2, "", "default")
}

// TestSIGTERMWhileItStarts: what was adopted goes, too, whether or not the start had come through.
func TestSIGTERMWhileItStarts(t *testing.T) {
	s := newSite(t, "oci", "runc", "--min-ready", "1")
	s.start()
	s.cliAs(nil, counter, "run", "-").want(t, 0, "1\n", "")
	s.stop(syscall.SIGKILL)
	cmd, out := s.command(s.flags...), &testenv.Log{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	testenv.Await(t, "it fills its pool", func() bool { return strings.Contains(out.String(), "filling the pool") })
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

func TestASecondUpIsRefused(t *testing.T) {
	s := newSite(t, "oci", "runc", "--min-ready", "1")
	s.start()
	second := s.command(s.flags...)
	out, err := second.CombinedOutput()
	if err == nil || second.ProcessState.ExitCode() != exitPlatform {
		t.Errorf("a second one on the same data directory: %v", err)
	}
	if want := fmt.Sprintf("pid %d", s.PID); !strings.Contains(string(out), want) || !strings.Contains(string(out), s.data) {
		t.Errorf("it says %q, want %q and the directory", out, want)
	}
	s.cliAs(nil, counter, "run", "-").want(t, 0, "1\n", "") // the first is unharmed
}

func TestSecondSignalCutsShort(t *testing.T) {
	s := newSite(t, "oci", "runc", "--min-ready", "1")
	s.start()
	done := make(chan result, 1)
	go func() {
		done <- s.cliAs(nil, `module.exports = () => new Promise(r => { console.log("begun"); setTimeout(r, 25000) })`, "run", "-", "--timeout", "28s")
	}()
	testenv.Await(t, "the call runs", func() bool { return strings.Contains(s.cli("logs").out, "begun") })
	s.cmd.Process.Signal(syscall.SIGTERM)
	testenv.Await(t, "it says that it stops", func() bool { return strings.Contains(s.out.String(), "stopping") })
	s.stop(syscall.SIGTERM)
	if r := <-done; r.code == 0 {
		t.Errorf("the call that was cut ended well: %+v", r)
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

func TestCallsInFlightFinishAtSIGTERM(t *testing.T) {
	s := newSite(t, "oci", "runc", "--min-ready", "1")
	s.start()
	done := make(chan result, 1)
	go func() {
		done <- s.cliAs(nil, `module.exports = () => new Promise(r => { console.log("begun"); setTimeout(() => r("whole"), 1500) })`, "run", "-")
	}()
	testenv.Await(t, "the call runs", func() bool { return strings.Contains(s.cli("logs").out, "begun") })
	s.stop(syscall.SIGTERM)
	(<-done).want(t, 0, `"whole"`, "")
}

// Everything that only a person can mend is said before anything is made, with the remedy.
func TestStartsThatCannotBe(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	full, small := smallDisk(t, "1m"), smallDisk(t, "170m") // for the store, but not for the runtime image
	for _, c := range []struct {
		name string
		args []string
		code int
		say  []string
	}{
		{"port in use", []string{"--http", taken.Addr().String()}, exitPlatform, []string{taken.Addr().String(), "in use", "port 0"}},
		{"open to the world", []string{"--grpc", "0.0.0.0:0"}, exitUsage, []string{"grpc", "TLS", "--insecure"}},
		{"no such runtime", []string{"--runtime", "/nowhere/runc"}, exitPlatform, []string{"/nowhere/runc"}},
		{"dead Docker engine", []string{"--engine", "docker", "--config", confWith(t, "docker: {host: unix:///nowhere/docker.sock}")},
			exitPlatform, []string{"/nowhere/docker.sock", "--engine oci"}},
		{"dead Docker engine of the environment", []string{"--engine", "docker"}, exitPlatform, []string{"/nowhere/env.sock", "--engine oci"}},
		{"Docker without runsc", []string{"--engine", "docker", "--isolation", "gvisor"}, exitPlatform, []string{"runsc", "--isolation runc"}},
		{"full disk", []string{"--data-dir", filepath.Join(full, "data")}, exitPlatform, []string{"space"}},
		{"old runtime, strictly", []string{"--runtime", oldRunc(t), "--strict"}, exitPlatform, []string{"1.1.5", "known container escapes", "make build"}},
		{"disk that fills up", []string{"--data-dir", filepath.Join(small, "data")}, exitPlatform, []string{"no space", "make room"}},
		{"unknown engine", []string{"--engine", "podman"}, exitUsage, []string{"podman", "oci or docker"}},
		{"unknown setting", []string{"--config", confWith(t, "min_redy: 1")}, exitUsage, []string{"min_redy"}},
		{"unknown flag", []string{"--min-redy", "1"}, exitUsage, []string{"min-redy"}},
		{"half a certificate", []string{"--tls-cert", "x.pem"}, exitUsage, []string{"tls-key"}},
		{"no such certificate", []string{"--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"}, exitPlatform, []string{"/nowhere.pem"}},
		{"budget of nothing", []string{"--memory-budget", "1MiB"}, exitPlatform, []string{"memory budget"}},
		{"argument", []string{"now"}, exitUsage, []string{"now"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, "oci", "runc")
			cmd := s.command(append(s.flags, c.args...)...)
			if strings.Contains(c.name, "environment") {
				cmd.Env = append(cmd.Env, "DOCKER_HOST=unix:///nowhere/env.sock")
			}
			tooLong := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }) // it serves, which it should not
			out, err := cmd.CombinedOutput()
			tooLong.Stop()
			if err == nil || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("exit %v, want code %d", err, c.code)
			}
			for _, say := range c.say {
				if !strings.Contains(string(out), say) {
					t.Errorf("%q is not said in:\n%s", say, out)
				}
			}
			if strings.Contains(c.name, "certificate") && strings.Contains(string(out), "building") {
				t.Errorf("said too late:\n%s", out)
			}
			if left, _ := filepath.Glob(s.run + "/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), s.run) {
				t.Error("still mounted")
			}
		})
	}
}

func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := filepath.Join(passableDir(t), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("test", dir, "tmpfs", 0, "mode=0755,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// oldRunc is a program that calls itself a runc with known holes.
func oldRunc(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho runc version 1.1.5+ds1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func confWith(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "paddock.yml")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUpNeedsRoot(t *testing.T) {
	s := newSite(t, "oci", "runc")
	cmd := s.command(s.flags...)
	// The test's own temporary directories are root's; a fresh start needs none of them.
	cmd.Args = append(cmd.Args[:1], "up", "--data-dir", "/var/tmp/none-of-ours")
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	if err := os.Chmod(filepath.Dir(cmd.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != exitPlatform || !strings.Contains(string(out), "needs root") {
		t.Errorf("%v: %s", err, out)
	}
}
