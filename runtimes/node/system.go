package node

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The small files of /etc. There is no network and no resolver in a container; what looks for one must fail fast.
var etc = map[string]string{
	"passwd":        "root:x:0:0:root:/:/nonexistent\nsandbox:x:1000:1000:sandbox:/tmp:/nonexistent\n",
	"group":         "root:x:0:\nsandbox:x:1000:\n",
	"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	"hosts":         "127.0.0.1 localhost\n::1 localhost\n",
	"resolv.conf":   "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n", // a documentation address: nobody's
	"hostname":      "sandbox\n",
	"timezone":      "Etc/UTC\n",
}

// addSkeleton adds the mount points and /etc.
func (t tree) addSkeleton() {
	for _, dir := range []string{"dev", "proc", "sys", "run", "run/paddock", "etc/ssl/certs", "usr/share", "var"} {
		t.dir(dir, 0o755)
	}
	t.dir("tmp", fs.ModeSticky|0o777) // some runtimes take the mode of the tmpfs from here
	t.symlink("var/tmp", "../tmp")
	t.symlink("etc/localtime", "../usr/share/zoneinfo/UTC")
	for name, text := range etc {
		t.text("etc/"+name, []byte(text))
	}
}

// addLibraries adds the loader and the shared libraries of a program, as its own loader lists them. All go to the directory of
// libc, which the loader searches without a cache file.
func (t tree) addLibraries(ctx context.Context, program string) error {
	loader, err := interpreter(program)
	if err != nil {
		return err
	}
	if _, err := os.Stat(loader); err != nil {
		return fmt.Errorf("Node needs glibc and this host has no %s: use a glibc distribution (Debian, Ubuntu, Fedora, …)", loader)
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, loader, "--list", program)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("list the libraries of Node: %w: %s", err, clip(errOut.Bytes(), 500))
	}
	libs, err := parseLibraries(out.String())
	if err != nil {
		return err
	}
	if err := t.copyOf(strings.TrimPrefix(loader, "/"), loader, 0o755); err != nil {
		return err
	}
	dir := filepath.Dir(libs["libc.so.6"])
	for name, path := range libs {
		if err := t.copyOf(strings.TrimPrefix(filepath.Join(dir, name), "/"), path, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func interpreter(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		text, err := io.ReadAll(p.Open())
		return strings.TrimRight(string(text), "\x00"), err
	}
	return "", fmt.Errorf("%s names no loader", program)
}

// parseLibraries reads lines like "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)".
func parseLibraries(list string) (map[string]string, error) {
	libs := map[string]string{}
	for line := range strings.Lines(list) {
		name, rest, found := strings.Cut(strings.TrimSpace(line), " => ")
		if !found {
			continue // the loader itself, or the kernel's vdso
		}
		path, _, _ := strings.Cut(rest, " (")
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("Node needs %s, which this host has not (%s): install it (Debian, Ubuntu: apt-get install libstdc++6)",
				name, path)
		}
		libs[name] = path
	}
	if libs["libc.so.6"] == "" {
		return nil, errors.New("the loader lists no libc.so.6 for Node")
	}
	return libs, nil
}

// Where distributions keep their bundle of certificate authorities.
var hostBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
}

const bundlePath = "etc/ssl/certs/ca-certificates.crt"

// addCertificates adds the host's bundle (an empty one where it has none: Node's own is the default) and the private ones.
func (t tree) addCertificates(private string) error {
	var bundle []byte
	for _, path := range hostBundles {
		text, err := os.ReadFile(path)
		if err == nil {
			bundle = text
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if private != "" {
		text, err := os.ReadFile(private)
		if err != nil {
			return fmt.Errorf("private CA: %w", err)
		}
		if block, _ := pem.Decode(text); block == nil || block.Type != "CERTIFICATE" {
			return fmt.Errorf("private CA: %s holds no PEM certificate", private)
		}
		bundle = append(append(bundle, '\n'), text...)
	}
	t.text(bundlePath, bundle)
	return nil
}

// addZones adds the time zone files of the host, if it has any; Node itself has its own.
func (t tree) addZones(from string) error {
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		t.dir("usr/share/zoneinfo", 0o755)
		return nil
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (rel == "right" || rel == "posix"):
			return fs.SkipDir // the same zones again
		case d.IsDir():
			t.dir(filepath.Join("usr/share/zoneinfo", rel), 0o755)
			return nil
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil // a dangling link of the distribution's
		}
		return t.copyOf(filepath.Join("usr/share/zoneinfo", rel), path, 0o644)
	})
}
