// Command supply says what Paddock is made of: the Go modules in paddock, runsc and runc, Node.js, and the npm packages in the
// runtime image. `supply licences` fails on a licence that is not on the list, or that it does not recognise; `supply sbom`
// writes a CycloneDX document. It reads the tree and the module cache, and asks no network.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// component is one thing that somebody else wrote.
type component struct {
	kind     string // "golang", "npm", "generic"
	name     string
	version  string
	licence  string   // an SPDX expression; "" if it is not recognised
	parts    []string // which of ours have it
	sha512   string   // hexadecimal; "" where the ecosystem has none
	evidence string   // where the licence was read
}

// programs are ours that are made of Go modules.
var programs = []struct{ name, dir, tags, pkg string }{
	{"paddock", ".", "", "./cmd/paddock"},
	{"runsc", "tools/runsc", "", "gvisor.dev/gvisor/runsc"},
	{"runc", "tools/runc", "seccomp", "github.com/opencontainers/runc"},
}

const (
	lockFile  = "runtimes/node/package-lock.json"
	nodeFile  = "runtimes/node/download.go"
	imageName = "node image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "supply:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	all, err := components(".")
	if err != nil {
		return err
	}
	switch {
	case slices.Equal(args, []string{"licences"}):
		return report(all)
	case len(args) == 2 && args[0] == "sbom":
		return json.NewEncoder(os.Stdout).Encode(sbom(all, args[1]))
	}
	return errors.New("usage: supply licences | supply sbom VERSION")
}

// report prints how many components have which licence, and fails on those that may not be shipped.
func report(all []component) error {
	count := map[string]int{}
	var bad []error
	for _, c := range all {
		if !allowedExpression(c.licence) {
			bad = append(bad, fmt.Errorf("%s %s@%s in %s has licence %q (%s), which is not on the list", c.kind, c.name, c.version,
				strings.Join(c.parts, ", "), c.licence, c.evidence))
			continue
		}
		count[c.licence]++
	}
	for _, name := range slices.Sorted(keys(count)) {
		fmt.Printf("%4d  %s\n", count[name], name)
	}
	if len(bad) > 0 {
		return errors.Join(bad...)
	}
	fmt.Printf("licences: %d components, all allowed\n", len(all))
	return nil
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// components lists everything, in order of kind, name and version.
func components(root string) ([]component, error) {
	byID := map[string]*component{}
	for _, p := range programs {
		modules, err := goModules(filepath.Join(root, p.dir), p.tags, p.pkg)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		for _, m := range modules {
			merge(byID, m, p.name)
		}
	}
	lock, err := os.ReadFile(filepath.Join(root, lockFile))
	if err != nil {
		return nil, err
	}
	packages, err := npmPackages(lock)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", lockFile, err)
	}
	node, err := nodeItself(filepath.Join(root, nodeFile))
	if err != nil {
		return nil, err
	}
	for _, p := range append(packages, node) {
		merge(byID, p, imageName)
	}
	all := make([]component, 0, len(byID))
	for _, c := range byID {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b component) int { return strings.Compare(a.id(), b.id()) })
	return all, nil
}

func merge(byID map[string]*component, c component, part string) {
	if there := byID[c.id()]; there != nil {
		if !slices.Contains(there.parts, part) {
			there.parts = append(there.parts, part)
		}
		return
	}
	c.parts = []string{part}
	byID[c.id()] = &c
}

// id is the package URL.
func (c component) id() string {
	name := c.name
	if c.kind == "npm" {
		name = strings.Replace(name, "@", "%40", 1)
	}
	return "pkg:" + c.kind + "/" + name + "@" + c.version
}

// goModules lists the modules whose packages are linked into a program, without its own.
func goModules(dir, tags, pkg string) ([]component, error) {
	cmd := exec.Command("go", "list", "-deps", "-tags", tags, "-f", "{{with .Module}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}", pkg)
	cmd.Dir = dir
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, problems.Bytes())
	}
	var all []component
	seen := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Split(lines.Text(), "\t")
		if len(f) != 3 || f[1] == "" || seen[f[0]] { // of the standard library, or ours
			continue
		}
		seen[f[0]] = true
		licence, evidence, err := licenceIn(f[2])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f[0], err)
		}
		all = append(all, component{kind: "golang", name: f[0], version: f[1], licence: licence, evidence: evidence})
	}
	return all, nil
}

var licenceFile = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying`)

// licenceIn reads a module's licence files. All of them count.
func licenceIn(dir string) (expression, evidence string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", "", err
	}
	var found, files []string
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) || path.Ext(e.Name()) == ".docs" { // of texts that are not shipped
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", "", err
		}
		files = append(files, e.Name())
		id := classify(string(text))
		if id == "" {
			return "", e.Name() + " is not recognised", nil
		}
		if !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	if len(files) == 0 {
		return "", "no licence file", nil
	}
	return strings.Join(found, " AND "), strings.Join(files, ", "), nil
}

// npmPackages reads the lock file, which says each package's licence.
func npmPackages(lock []byte) ([]component, error) {
	var doc struct {
		Packages map[string]struct {
			Name, Version, Integrity string
			License                  json.RawMessage
		}
	}
	if err := json.Unmarshal(lock, &doc); err != nil {
		return nil, err
	}
	var all []component
	for at, p := range doc.Packages {
		if at == "" { // ours
			continue
		}
		name := p.Name // where it is installed under another
		if name == "" {
			_, name, _ = cutLast(at, "node_modules/")
		}
		c := component{kind: "npm", name: name, version: p.Version, evidence: path.Base(lockFile)}
		_ = json.Unmarshal(p.License, &c.licence)
		if c.licence == "" {
			c.licence, c.evidence = unstated[name+"@"+p.Version], "its licence file, read by hand"
		}
		var err error
		if c.sha512, err = sha512Of(p.Integrity); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		all = append(all, c)
	}
	return all, nil
}

var nodePin = regexp.MustCompile(`const nodeVersion = "([0-9.]+)"`)

// nodeItself is the Node.js that the image has.
func nodeItself(file string) (component, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return component{}, err
	}
	m := nodePin.FindSubmatch(text)
	if m == nil {
		return component{}, fmt.Errorf("%s: it does not pin Node.js any more in the way that is read here", file)
	}
	return component{kind: "generic", name: "node", version: string(m[1]), licence: "MIT", evidence: "its LICENSE, for Node.js itself"}, nil
}
