package node_test

import (
	"context"
	"encoding/pem"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"paddock/internal/testenv"
	"paddock/runtimes"
	"paddock/runtimes/node"
)

// inRoot runs Node in the image with chroot, as the sandbox's user, and returns what it prints.
func inRoot(t *testing.T, image runtimes.Image, args ...string) string {
	t.Helper()
	cmd := exec.Command("/paddock/bin/node", args...)
	cmd.Env = image.Environ(128 << 20)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     image.Rootfs,
		Credential: &syscall.Credential{Uid: runtimes.ContainerUID, Gid: runtimes.ContainerUID},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestImageRunsNode(t *testing.T) {
	image := testenv.NodeImage(t)
	if got := inRoot(t, image, "--version"); got != image.Version {
		t.Errorf("node --version = %q, want %q", got, image.Version)
	}
	script := `const os = require('os'), dns = require('dns');
		console.log(os.userInfo().username, process.env.HOME, new Date(0).getTimezoneOffset(),
			require('tls').rootCertificates.length > 50, new Intl.DateTimeFormat('en', {timeZone: 'Europe/Berlin'}).format(0))`
	if got, want := inRoot(t, image, "-e", script), "sandbox /tmp 0 true 1/1/1970"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestImagePosture reads the image as the host has it.
func TestImagePosture(t *testing.T) {
	image := testenv.NodeImage(t)
	seen := map[string]fs.FileMode{}
	err := filepath.WalkDir(image.Rootfs, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(image.Rootfs, path)
		mode := info.Mode()
		seen[rel] = mode
		stat := info.Sys().(*syscall.Stat_t)
		switch {
		case stat.Uid != 0 || stat.Gid != 0:
			t.Errorf("%s belongs to %d:%d", rel, stat.Uid, stat.Gid)
		case mode&(fs.ModeSetuid|fs.ModeSetgid) != 0:
			t.Errorf("%s has mode %v", rel, mode)
		case mode.Type() == fs.ModeSymlink:
		case mode.Type() != 0 && !mode.IsDir():
			t.Errorf("%s is a special file: %v", rel, mode)
		case mode&0o022 != 0 && rel != "tmp":
			t.Errorf("%s is writable for others: %v", rel, mode)
		case mode&0o004 == 0 || mode.IsDir() && mode&0o001 == 0:
			t.Errorf("%s is not readable for all: %v", rel, mode)
		}
		if base := filepath.Base(path); base == "sh" || base == "bash" || base == "busybox" {
			t.Errorf("%s looks like a shell", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"proc", "dev", "sys", "run/paddock", "tmp", "etc"} {
		if !seen[dir].IsDir() {
			t.Errorf("mount point %s is missing", dir)
		}
	}
	for _, file := range []string{"etc/passwd", "etc/resolv.conf", "etc/hosts", "etc/hostname", "etc/nsswitch.conf",
		"etc/ssl/certs/ca-certificates.crt", "paddock/agent.js", "paddock/bin/node"} {
		if !seen[file].IsRegular() {
			t.Errorf("%s is missing", file)
		}
	}
	if seen["tmp"] != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("/tmp has mode %v, want 1777", seen["tmp"])
	}
	for name := range seen {
		if strings.HasSuffix(name, ".test.js") && strings.Count(name, "/") == 1 {
			t.Errorf("a test of the agent is in the image: %s", name)
		}
	}
}

// TestBuildIsRepeatable builds the cached image again, from several goroutines at once, and mends a damaged one.
func TestBuildIsRepeatable(t *testing.T) {
	want := testenv.NodeImage(t)
	o := node.Options{Dir: filepath.Join(t.TempDir(), "images"), CacheDir: filepath.Join(testenv.CacheDir, "downloads")}
	var builders sync.WaitGroup
	for range 3 {
		builders.Go(func() {
			image, err := node.Build(t.Context(), o)
			if err != nil {
				t.Error(err)
			} else if image.Digest != want.Digest {
				t.Errorf("digest %s, want %s", image.Digest, want.Digest)
			}
		})
	}
	builders.Wait()
	entries, err := os.ReadDir(o.Dir)
	if err != nil || len(entries) != 2 { // the image and the lock
		t.Errorf("image directory holds %v (%v), want one image and the lock", entries, err)
	}
	agent := filepath.Join(o.Dir, want.Digest, "rootfs", "paddock", "agent.js")
	if err := os.Truncate(agent, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(agent); err != nil || info.Size() < 10 {
		t.Errorf("a truncated agent was not mended: %v, %v", info, err)
	}
	if err := node.Prune(t.Context(), o.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(agent)); !os.IsNotExist(err) {
		t.Errorf("the image is still there after Prune: %v", err)
	}
}

func TestBuildHonoursItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	_, err := node.Build(ctx, node.Options{Dir: t.TempDir(), CacheDir: t.TempDir()})
	if err == nil {
		t.Error("built with a dead context")
	}
}

// TestModulesLoad requires every curated module, so that nothing needed was stripped.
func TestModulesLoad(t *testing.T) {
	image := testenv.NodeImage(t)
	script := `const {dependencies} = require('/paddock/package.json');
		const load = require('module').createRequire('/paddock/agent.js');
		let n = 0;
		for (const name of Object.keys(dependencies)) { load(name); n++ }
		console.log('loaded', n)
		process.exit(0)`
	out := inRoot(t, image, "-e", script)
	if !strings.Contains(out, "loaded ") {
		t.Errorf("got %q", out)
	}
	t.Log(out)
}

// TestPrivateCAIsTrusted makes a TLS server whose certificate only the private CA vouches for, and asks it from the image.
func TestPrivateCAIsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "trusted") }))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	with, err := node.Build(t.Context(), node.Options{
		Dir: filepath.Join(t.TempDir(), "images"), CacheDir: filepath.Join(testenv.CacheDir, "downloads"), CAFile: ca,
	})
	if err != nil {
		t.Fatal(err)
	}
	without := testenv.NodeImage(t)
	if with.Digest == without.Digest {
		t.Error("a private CA leaves the digest as it was")
	}
	script := `require('https').get(process.argv[1], {servername: 'example.com'}, r => r.pipe(process.stdout))
		.on('error', e => console.log(e.code))`
	for want, image := range map[string]runtimes.Image{"trusted": with, "DEPTH_ZERO_SELF_SIGNED_CERT": without} {
		// Straight to the network, which a container has not.
		image.Env = slices.DeleteFunc(slices.Clone(image.Env), func(v string) bool { return strings.HasPrefix(v, "NODE_OPTIONS=") })
		args := []string{"-e", script, server.URL}
		if slices.Contains(image.Argv, "--use-openssl-ca") {
			args = append([]string{"--use-openssl-ca"}, args...)
		}
		if got := inRoot(t, image, args...); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
