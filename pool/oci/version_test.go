package oci

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"paddock/internal/testenv"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, version string
		tooOld        bool
	}{
		{"runc", "1.1.5+ds1", true}, {"runc", "1.2.7", true}, {"runc", "1.2.8", false}, {"runc", "1.3.5", true},
		{"runc", "1.3.6", false}, {"runc", "1.4.2", true}, {"runc", "1.4.3-rc.1", true}, {"runc", "1.4.3", false},
		{"runc", "1.5.0-rc.1", true}, {"runc", "1.5.0", false}, {"runc", "1.5.2", false}, {"runc", "1.6.0-rc.1", false},
		{"runc", "2.0.0", false}, {"runc", "0.1.1", true}, {"runc", "unknown", true}, {"runc", "", true},
		{"runsc", "release-20221212.0", true}, {"runsc", "release-20260224.0", false}, {"runsc", "paddock-20260224", false},
		{"runsc", "v0.0.0-20260224225140-573d5e7127a8", false}, {"runsc", "v0.0.0-20230224225140-573d5e7127a8", true},
		{"runsc", "VERSION_MISSING", true}, {"runsc", "", true},
	} {
		why := Judge(c.name, c.version)
		if (why != "") != c.tooOld {
			t.Errorf("%s %s: %q, want too old = %t", c.name, c.version, why, c.tooOld)
		}
	}
}

func TestDetectRealBinaries(t *testing.T) {
	for _, name := range []string{"runc", "runsc"} {
		v, err := Detect(t.Context(), testenv.Binary(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if v.Name != name || v.Version == "" || v.TooOld {
			t.Errorf("the pinned %s is %+v", name, v)
		}
	}
}

func TestDetectRefusesOthers(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"other": "echo crun version 1.0", "fails": "exit 3", "silent": "exit 0",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if v, err := Detect(t.Context(), path); err == nil {
			t.Errorf("%s was taken for %+v", name, v)
		}
	}
	if _, err := Detect(t.Context(), filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing binary has a version")
	}
}

func TestDetectReadsBuildInformation(t *testing.T) {
	info, err := buildinfo.ReadFile(testenv.Binary(t, "runsc"))
	if err != nil {
		t.Fatal(err)
	}
	if version := moduleVersion(info); Judge("runsc", version) != "" {
		t.Errorf("the pinned runsc's module version %q: %s", version, Judge("runsc", version))
	}
	// a binary that says VERSION_MISSING and has no build information of a runtime
	path := filepath.Join(t.TempDir(), "runsc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho runsc version VERSION_MISSING\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	v, err := Detect(t.Context(), path)
	if err != nil || !v.TooOld || !strings.Contains(v.Why, "no date") {
		t.Errorf("%+v, %v; want it judged unknown", v, err)
	}
}
