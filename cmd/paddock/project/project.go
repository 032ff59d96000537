// Package project reads an author's folder: files of code, the cases beside them, and manifests of pipelines. It finds what
// belongs together and checks what can be checked without a service. It bundles nothing, runs nothing and writes nothing.
package project

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// CodeEndings are the endings of files with code, those that stand for a name first.
var CodeEndings = []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx"}

// ManifestName is a folder's pipeline; further ones are called NAME.pipeline.yaml.
const ManifestName = "pipeline.yaml"

// IsManifest says by its name whether a file is a pipeline's manifest.
func IsManifest(path string) bool {
	base := filepath.Base(path)
	return base == ManifestName || strings.HasSuffix(base, "."+ManifestName)
}

// IsCode says by its name whether a file is code.
func IsCode(path string) bool {
	return slices.Contains(CodeEndings, filepath.Ext(path)) && !strings.HasSuffix(path, ".d.ts")
}

// BareName is a file's name without folder and ending.
func BareName(path string) string {
	name := filepath.Base(path)
	for _, ending := range append([]string{".yaml"}, CodeEndings...) {
		if bare, ok := strings.CutSuffix(name, ending); ok {
			return bare
		}
	}
	return name
}

// Unit is a file of code or a manifest, with its cases.
type Unit struct {
	Name  string // the file's without ending
	Path  string
	Cases []Case // by name
}

// Folder is what was found in one. It is a snapshot: nothing in it follows the files.
type Folder struct {
	Units    []Unit  // by name
	Problems []error // cases that cannot be read or belong to nothing
}

// Scan reads a folder, or what belongs to one file of code, one manifest or one case of a folder.
func Scan(path string) (*Folder, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	dir, only := path, ""
	if !info.IsDir() {
		dir, only = filepath.Dir(path), filepath.Base(path)
		if !IsCode(path) && !IsManifest(path) && !strings.HasSuffix(path, CaseSuffix) {
			return nil, fmt.Errorf("%s is neither code (%s) nor a case (*%s) nor a manifest (%s)", path, strings.Join(CodeEndings, ", "),
				CaseSuffix, ManifestName)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{}
	byPath := f.addUnits(dir, entries)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), CaseSuffix) || e.IsDir() {
			continue
		}
		if strings.HasSuffix(only, CaseSuffix) && e.Name() != only {
			continue
		}
		f.addCase(byPath, filepath.Join(dir, e.Name()), only)
	}
	f.keep(only)
	return f, nil
}

// addUnits adds a folder's files of code and manifests, and returns where each stands.
func (f *Folder) addUnits(dir string, entries []os.DirEntry) map[string]int {
	byPath := map[string]int{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() || !IsCode(path) && !IsManifest(path) {
			continue
		}
		byPath[path] = len(f.Units)
		f.Units = append(f.Units, Unit{Name: BareName(path), Path: path})
	}
	return byPath
}

func (f *Folder) addCase(byPath map[string]int, file, only string) {
	owner, err := ownerOf(file)
	if err == nil && only != "" && filepath.Base(owner) != only && filepath.Base(file) != only {
		return // another file's: of no interest, right or wrong
	}
	var c Case
	if err == nil {
		c, err = readCase(file, IsManifest(owner))
	}
	if err != nil {
		if !strings.Contains(err.Error(), file) {
			err = fmt.Errorf("%s: %w", file, err)
		}
		f.Problems = append(f.Problems, err)
		return
	}
	u := &f.Units[byPath[owner]]
	u.Cases = append(u.Cases, c)
}

// keep leaves only the unit of the file that was named, if one was.
func (f *Folder) keep(only string) {
	switch {
	case only == "":
	case strings.HasSuffix(only, CaseSuffix):
		f.Units = slices.DeleteFunc(f.Units, func(u Unit) bool { return len(u.Cases) == 0 })
	default:
		f.Units = slices.DeleteFunc(f.Units, func(u Unit) bool { return filepath.Base(u.Path) != only })
	}
}

// Err returns all problems as one error, nil if there are none.
func (f *Folder) Err() error { return errors.Join(f.Problems...) }

// Cases counts the cases.
func (f *Folder) Cases() (n int) {
	for _, u := range f.Units {
		n += len(u.Cases)
	}
	return n
}

// ownerOf finds the file that a case belongs to: NAME.js or a manifest NAME.yaml for NAME.case.json and NAME.WHAT.case.json.
func ownerOf(file string) (string, error) {
	for base := strings.TrimSuffix(file, CaseSuffix); ; {
		for _, ending := range append(slices.Clone(CodeEndings), ".yaml") {
			path := base + ending
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && (ending != ".yaml" || IsManifest(path)) {
				return path, nil
			}
		}
		dot := strings.LastIndexByte(base, '.')
		if dot <= strings.LastIndexByte(base, '/')+1 {
			return "", errors.New("there is no file of code that it belongs to")
		}
		base = base[:dot]
	}
}
