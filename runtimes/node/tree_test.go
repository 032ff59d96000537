package node

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestDigestCoversEverything(t *testing.T) {
	base := func() tree {
		tr := tree{}
		tr.addSkeleton()
		tr.addAgent()
		return tr
	}
	want := base().digest()
	if got := base().digest(); got != want {
		t.Fatalf("the same tree has two digests, %s and %s", got, want)
	}
	for name, change := range map[string]func(tree){
		"content": func(tr tree) { tr.text("paddock/agent.js", []byte("// another agent")) },
		"path":    func(tr tree) { tr.text("paddock/more.js", nil) },
		"mode":    func(tr tree) { n := tr["paddock/agent.js"]; n.mode = 0o755; tr["paddock/agent.js"] = n },
		"link":    func(tr tree) { tr.symlink("var/tmp", "../etc") },
		"type":    func(tr tree) { tr.dir("paddock/agent.js", 0o644) },
		"removed": func(tr tree) { delete(tr, "run/paddock") },
	} {
		tr := base()
		change(tr)
		if tr.digest() == want {
			t.Errorf("a changed %s leaves the digest as it was", name)
		}
	}
}

func TestWriteAndCheck(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte("from the host"), 0o640); err != nil {
		t.Fatal(err)
	}
	tr := tree{}
	tr.addSkeleton()
	if err := tr.copyOf("opt/copy", source, 0o644); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "rootfs")
	if err := tr.write(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if err := tr.check(root); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"short file":   func() error { return os.Truncate(filepath.Join(root, "opt/copy"), 3) },
		"mode":         func() error { return os.Chmod(filepath.Join(root, "tmp"), 0o755) },
		"missing file": func() error { return os.Remove(filepath.Join(root, "etc/hosts")) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if tr.check(root) == nil {
			t.Errorf("%s was not noticed", name)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		if err := tr.write(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(source, []byte("changed since!"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := tr.write(t.Context(), root+"2"); err == nil {
		t.Error("a host file that changed after it was hashed went into the image")
	}
}

func TestIntegrity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tgz")
	if err := os.WriteFile(path, []byte("not Node"), 0o600); err != nil {
		t.Fatal(err)
	}
	for arch, d := range dists {
		if err := checkIntegrity(path, d.Integrity); !errors.Is(err, errIntegrity) {
			t.Errorf("%s: %v", arch, err)
		}
	}
}

func TestCheckLock(t *testing.T) {
	_, lock, err := moduleFiles()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := checkLock(lock); err != nil || n < 20 {
		t.Errorf("our own lock file: %d packages, %v", n, err)
	}
	if _, err := checkLock([]byte(`{"packages": {"": {}, "node_modules/x": {"version": "1.0.0"}}}`)); err == nil {
		t.Error("a package without a hash was accepted")
	}
}

func TestNPMErrorsSayWhatToDo(t *testing.T) {
	failed := errors.New("exit status 1")
	for output, want := range map[string]string{
		"npm error code ENOTFOUND":  "cannot be reached",
		"npm error code EINTEGRITY": "not the file that this release of Paddock pins",
		"npm error code E404":       "mirror that is behind",
		"npm error code ENOSPC":     "disk is full",
		"something else":            "something else",
	} {
		if err := npmError("pack", []byte(output), failed); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", output, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := npm(t.Context(), t.TempDir(), "ci"); err == nil || !strings.Contains(err.Error(), "apt-get install npm") {
		t.Errorf("without npm: %v", err)
	}
}

// TestNPMThatWritesHalf: npm warns of a file that it could not write, goes on and exits 0.
func TestNPMThatWritesHalf(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\necho 'npm warn tar TAR_ENTRY_ERROR ENOSPC: no space left on device, write' >&2\n"
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	if err := npm(t.Context(), t.TempDir(), "ci"); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("%v", err)
	}
}

func TestNeedSpace(t *testing.T) {
	dir := t.TempDir()
	if err := needSpace(dir, 1, "nothing"); err != nil {
		t.Error(err)
	}
	if err := needSpace(dir, 1<<60, "everything"); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
}

func TestStrip(t *testing.T) {
	root := filepath.Join(t.TempDir(), "node_modules")
	keep := []string{"a/index.js", "a/LICENSE", "a/lib/test/index.js", "@s/b/index.json", "test/index.js", "a/node_modules/tests/i.js"}
	drop := []string{
		"a/README.md", "a/index.d.ts", "a/index.js.map", "a/test/x.js", "@s/b/__tests__/x.js", ".bin/tool", ".package-lock.json",
	}
	for _, f := range slices.Concat(keep, drop) {
		path := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := strip(root); err != nil {
		t.Fatal(err)
	}
	for _, f := range keep {
		if info, err := os.Stat(filepath.Join(root, f)); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	for _, f := range drop {
		if _, err := os.Stat(filepath.Join(root, f)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", f)
		}
	}
}

func TestParseLibraries(t *testing.T) {
	libs, err := parseLibraries("\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n")
	if err != nil || len(libs) != 1 || libs["libc.so.6"] != "/lib/x/libc.so.6" {
		t.Errorf("got %v, %v", libs, err)
	}
	if _, err := parseLibraries("\tlibstdc++.so.6 => not found\n"); err == nil || !strings.Contains(err.Error(), "libstdc++.so.6") {
		t.Errorf("a missing library: %v", err)
	}
}

func TestPrivateCA(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := tree{}
	if err := tr.addCertificates(ca); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(tr[bundlePath].text), "TUlJ\n-----END CERTIFICATE-----\n") {
		t.Error("the private CA is not in the bundle")
	}
	argv, env := command(true)
	if !slices.Contains(argv, "--use-openssl-ca") || !slices.Contains(env, "SSL_CERT_FILE=/"+bundlePath) {
		t.Errorf("Node is not told of it: %v, %v", argv, env)
	}
	if argv, _ := command(false); slices.Contains(argv, "--use-openssl-ca") {
		t.Error("Node's own bundle is not the default")
	}
	if err := os.WriteFile(ca, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (tree{}).addCertificates(ca); err == nil {
		t.Error("a file without a certificate was accepted")
	}
}

func TestExtractOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.tgz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	zw := gzip.NewWriter(f)
	tw := tar.NewWriter(zw)
	for name, text := range map[string]string{"package/other": "no", "package/bin/node": "yes"} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "node")
	if err := extractOne(path, "package/bin/node", out); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "yes" {
		t.Errorf("got %q, %v", text, err)
	}
	if err := extractOne(path, "package/none", out+"2"); err == nil {
		t.Error("a file that is not there was extracted")
	}
}
