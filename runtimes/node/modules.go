package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// stripVersion names the rules of strip; raise it with them, so that a cached layer is made anew.
const stripVersion = 2

// moduleBytes is what the modules take while they are unpacked, and some room.
const moduleBytes = 400 << 20

// moduleLayer returns the curated modules, by the lock file's exact versions and hashes, without what no program reads.
func moduleLayer(ctx context.Context, o Options) (layer, error) {
	manifest, lock, err := moduleFiles()
	if err != nil {
		return layer{}, err
	}
	count, err := checkLock(lock)
	if err != nil {
		return layer{}, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d\n%d\n%s\n%s", stripVersion, len(manifest), manifest, lock)
	return cached(ctx, o, fmt.Sprintf("modules-%x", h.Sum(nil)[:12]), func(dir string) error {
		if err := needSpace(o.CacheDir, moduleBytes, "the modules"); err != nil {
			return err
		}
		o.progress("downloading %d modules", count)
		scratch, err := os.MkdirTemp(o.CacheDir, stagingPrefix)
		if err != nil {
			return err
		}
		defer os.RemoveAll(scratch)
		for name, text := range map[string][]byte{"package.json": manifest, "package-lock.json": lock} {
			if err := os.WriteFile(filepath.Join(scratch, name), text, 0o644); err != nil {
				return err
			}
		}
		err = npm(ctx, scratch, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-bin-links",
			"--loglevel=warn", "--prefer-offline") // what npm has already is checked against the lock file all the same
		if err != nil {
			return err
		}
		modules := filepath.Join(scratch, "node_modules")
		if err := makeDir(modules, 0o755); err != nil { // npm makes none when there are no dependencies
			return err
		}
		if err := strip(modules); err != nil {
			return err
		}
		if err := os.Remove(dir); err != nil {
			return err
		}
		return os.Rename(modules, dir)
	})
}

// checkLock refuses a lock file with a package that npm could not verify, and counts the packages.
func checkLock(lock []byte) (int, error) {
	var file struct {
		Packages map[string]struct {
			Integrity string
			Dev       bool
		}
	}
	if err := json.Unmarshal(lock, &file); err != nil {
		return 0, fmt.Errorf("package-lock.json: %w", err)
	}
	count := 0
	for path, p := range file.Packages {
		if path == "" || p.Dev {
			continue
		}
		if !strings.HasPrefix(p.Integrity, "sha512-") && !strings.HasPrefix(p.Integrity, "sha1-") {
			return 0, fmt.Errorf("package-lock.json: %s has no integrity hash", path)
		}
		count++
	}
	return count, nil
}

// Never read by a program that requires a module. Licences stay.
var (
	bulkSuffixes = []string{".md", ".markdown", ".ts", ".mts", ".cts", ".map", ".flow", ".tsbuildinfo", ".html.orig"}
	bulkDirs     = []string{"test", "tests", "__tests__", "example", "examples", "benchmark", "benchmarks", ".github", ".bin"}
	bulkFiles    = []string{".package-lock.json", ".npmignore", ".eslintrc", ".eslintrc.json", ".editorconfig", ".travis.yml"}
)

// strip removes documentation, TypeScript, source maps and tests. A directory named like a test directory goes only when it
// is a package's own (beside its package.json): deeper down it may be code.
func strip(modules string) error {
	return filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == modules {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if slices.Contains(bulkDirs, name) && isPackage(filepath.Dir(path)) && !isPackage(path) || name == ".bin" {
				if err := os.RemoveAll(path); err != nil {
					return err
				}
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || slices.Contains(bulkFiles, name) || hasSuffix(name, bulkSuffixes) {
			return os.Remove(path)
		}
		return os.Chmod(path, 0o644)
	})
}

// isPackage says whether dir is the root of an installed package.
func isPackage(dir string) bool {
	parent := filepath.Dir(dir)
	if strings.HasPrefix(filepath.Base(parent), "@") {
		parent = filepath.Dir(parent)
	}
	return filepath.Base(parent) == "node_modules"
}

func hasSuffix(name string, suffixes []string) bool {
	lower := strings.ToLower(name)
	return slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(lower, s) })
}
