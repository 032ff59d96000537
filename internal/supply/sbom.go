package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// bom is the part of CycloneDX 1.6 that is written.
type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []part       `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component part `json:"component"`
}

type part struct {
	Type     string    `json:"type"`
	Ref      string    `json:"bom-ref"`
	Name     string    `json:"name"`
	Version  string    `json:"version,omitempty"`
	PURL     string    `json:"purl,omitempty"`
	Licences []licence `json:"licenses,omitempty"`
	Hashes   []digest  `json:"hashes,omitempty"`
}

type licence struct {
	Expression string `json:"expression"`
}

type digest struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// sbom makes the document: the release, its parts (paddock, runsc, runc, the node image) and what each is made of.
func sbom(all []component, version string) bom {
	release := part{Type: "application", Ref: "release", Name: "paddock", Version: version}
	b := bom{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{release}}
	made := map[string][]string{}
	var ours []string
	for _, p := range programs {
		ours = append(ours, p.name)
	}
	ours = append(ours, imageName)
	for _, name := range ours {
		kind := "application"
		if name == imageName {
			kind = "container"
		}
		b.Components = append(b.Components, part{Type: kind, Ref: "part:" + name, Name: name, Version: version})
	}
	for _, c := range all {
		p := part{Type: "library", Ref: c.id(), Name: c.name, Version: c.version, PURL: c.id()}
		e := c.licence
		if a, ok := aliases[e]; ok {
			e = a
		}
		if e != "" {
			p.Licences = []licence{{e}}
		}
		if c.sha512 != "" {
			p.Hashes = []digest{{"SHA-512", c.sha512}}
		}
		b.Components = append(b.Components, p)
		for _, of := range c.parts {
			made[of] = append(made[of], c.id())
		}
	}
	top := dependency{Ref: "release"}
	for _, name := range ours {
		top.DependsOn = append(top.DependsOn, "part:"+name)
		b.Dependencies = append(b.Dependencies, dependency{"part:" + name, made[name]})
	}
	b.Dependencies = append(b.Dependencies, top)
	return b
}

// sha512Of turns npm's integrity into hexadecimal.
func sha512Of(integrity string) (string, error) {
	sum, ok := strings.CutPrefix(integrity, "sha512-")
	if !ok {
		return "", fmt.Errorf("integrity %.20q is not SHA-512", integrity)
	}
	raw, err := base64.StdEncoding.DecodeString(sum)
	if err != nil || len(raw) != 64 {
		return "", fmt.Errorf("integrity %.20q cannot be read: %v", integrity, err)
	}
	return hex.EncodeToString(raw), nil
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
