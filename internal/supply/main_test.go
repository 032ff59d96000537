package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestExpressions(t *testing.T) {
	for e, want := range map[string]bool{
		"MIT": true, "MIT/X11": true, "(AFL-2.1 OR BSD-3-Clause)": true, "MIT AND Apache-2.0": true, "GPL-3.0": false, "": false,
		"MIT AND GPL-3.0": false, "GPL-2.0 OR AGPL-3.0": false, "(MIT OR (GPL-2.0 AND MIT))": false, "UNLICENSED": false, "mit": false,
		"SEE LICENSE IN LICENSE.txt": false,
	} {
		if allowedExpression(e) != want {
			t.Errorf("%q: want %v", e, want)
		}
	}
}

func TestClassify(t *testing.T) {
	for text, want := range map[string]string{
		"Permission is hereby granted,\n free of charge, to any\tperson obtaining a copy":                                    "MIT",
		"// Redistribution and use in source and\n// binary forms ... Neither the name of":                                   "BSD-3-Clause",
		"Redistribution and use in source and binary forms":                                                                  "BSD-2-Clause",
		"Apache License\n   Version 2.0, January 2004":                                                                       "Apache-2.0",
		"Mozilla Public License, version 2.0 ... \"Secondary License\" means the GNU General Public License":                 "MPL-2.0",
		"Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee":               "ISC",
		"GNU LESSER GENERAL PUBLIC LICENSE":                                                                                  "LGPL",
		"Permission is hereby granted, free of charge, to any person obtaining a copy ... or the GNU General Public License": "GPL",
		"All rights reserved.": "", "": "",
	} {
		if got := classify(text); got != want {
			t.Errorf("%.60q: %q, want %q", text, got, want)
		}
	}
}

// A part with a licence that is not on the list, or none, fails the report by name.
func TestReportFailsOnTheUnknown(t *testing.T) {
	fine := component{kind: "npm", name: "a", version: "1", licence: "MIT", parts: []string{"x"}}
	if err := report([]component{fine}); err != nil {
		t.Error(err)
	}
	for _, licence := range []string{"GPL-3.0-only", ""} {
		bad := component{kind: "npm", name: "culprit", version: "2", licence: licence, parts: []string{"x"}}
		if err := report([]component{fine, bad}); err == nil || !strings.Contains(err.Error(), "culprit@2") {
			t.Errorf("%q: %v", licence, err)
		}
	}
	dir := t.TempDir()
	if e, _, err := licenceIn(dir); e != "" || err != nil {
		t.Errorf("no licence file: %q, %v", e, err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("LICENSE", "Apache License Version 2.0")
	write("LICENSE-MIT.txt", "Permission is hereby granted, free of charge, to any person obtaining a copy")
	if e, _, err := licenceIn(dir); e != "Apache-2.0 AND MIT" || err != nil {
		t.Errorf("two: %q, %v", e, err)
	}
	write("COPYING", "as you like it")
	if e, evidence, _ := licenceIn(dir); e != "" || !strings.Contains(evidence, "COPYING") {
		t.Errorf("one unknown among them: %q, %q", e, evidence)
	}
}

func TestNPMPackages(t *testing.T) {
	const sum = "sha512-1pTPQDKTdd61ozlKGNCjhNRd+KPmgLSGa3mZTHoOliaGcESD8G1PXhh7c1fgiPjVbNVfgy2Faw4BI8/m0cC8Mg=="
	all, err := npmPackages([]byte(`{"packages": {"": {"license": "none"},
		"node_modules/a/node_modules/@s/b": {"version": "1.2.3", "license": "ISC", "integrity": "` + sum + `"},
		"node_modules/window-size": {"version": "0.1.1", "integrity": "` + sum + `"},
		"node_modules/uuid-3": {"name": "uuid", "version": "3.4.0", "license": {"type": "MIT"}, "integrity": "` + sum + `"}}}`))
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	got := map[string]string{}
	for _, c := range all {
		got[c.id()] = c.licence
	}
	if l, ok := got["pkg:npm/%40s/b@1.2.3"]; !ok || l != "ISC" {
		t.Errorf("%v", got)
	}
	if l, ok := got["pkg:npm/uuid@3.4.0"]; !ok || l != "" || got["pkg:npm/window-size@0.1.1"] != "" {
		t.Errorf("%v: a licence that is not stated, or stated of another version, is none", got)
	}
	if _, err := npmPackages([]byte(`{"packages": {"node_modules/a": {"version": "1", "license": "MIT", "integrity": "sha1-x"}}}`)); err == nil {
		t.Error("a package without SHA-512 was taken")
	}
}

// The tree as it is: every licence is allowed, and the document names the parts that matter with versions and hashes.
func TestThisTree(t *testing.T) {
	all, err := components("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := report(all); err != nil {
		t.Error(err)
	}
	text, err := json.Marshal(sbom(all, "v1"))
	if err != nil {
		t.Fatal(err)
	}
	var doc bom
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	refs := map[string]part{}
	for _, c := range doc.Components {
		if _, twice := refs[c.Ref]; twice || c.Name == "" || c.Version == "" {
			t.Errorf("%+v stands twice, or says too little", c)
		}
		refs[c.Ref] = c
	}
	for _, d := range doc.Dependencies {
		if len(d.DependsOn) < 4 {
			t.Errorf("%s is made of %q", d.Ref, d.DependsOn)
		}
		for _, on := range d.DependsOn {
			if _, ok := refs[on]; !ok {
				t.Errorf("%s: there is no %s", d.Ref, on)
			}
		}
	}
	for of, name := range map[string]string{
		"part:paddock": "google.golang.org/grpc", "part:runsc": "gvisor.dev/gvisor", "part:runc": "github.com/opencontainers/runc",
		"part:" + imageName: "node",
	} {
		i := slices.IndexFunc(doc.Dependencies, func(d dependency) bool { return d.Ref == of })
		if i < 0 || !slices.ContainsFunc(doc.Dependencies[i].DependsOn, func(ref string) bool { return refs[ref].Name == name }) {
			t.Errorf("%s has no %s", of, name)
		}
	}
	for ref, c := range refs {
		if strings.HasPrefix(ref, "pkg:npm/") && (len(c.Hashes) != 1 || len(c.Hashes[0].Content) != 128) {
			t.Errorf("%s: hashes %v", ref, c.Hashes)
		}
	}
}
