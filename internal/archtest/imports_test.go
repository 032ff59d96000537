package archtest

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
}

const module = "paddock"

// packages lists the module's packages once.
var packages = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Name,GoFiles,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func list(t *testing.T) []pkg {
	t.Helper()
	all, err := packages()
	if err != nil || len(all) < 10 {
		t.Fatalf("go list: %d packages, %v", len(all), err)
	}
	return all
}

// below says whether path is prefix or a package below it.
func below(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

// layers: a package may import what stands in its own line and in lines further down.
//
//	cmd → router, controller → pool → runtimes → internal, proto
var layers = [][]string{
	{"cmd", "bench", "examples", "test"},
	{"router", "controller"},
	{"pool"},
	{"runtimes", "client"},
	{"internal", "proto"},
}

func layerOf(path string) int {
	for i, l := range layers {
		for _, top := range l {
			if below(path, module+"/"+top) {
				return i
			}
		}
	}
	return -1
}

// helpers of tests sit in internal but reach up to the real things.
var testHelpers = []string{module + "/internal/testenv"}

func isTestHelper(path string) bool {
	for _, h := range testHelpers {
		if below(path, h) {
			return true
		}
	}
	return false
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range list(t) {
		from := layerOf(p.ImportPath)
		if from < 0 {
			t.Errorf("%s is in no layer: add it to the list, with a reason", p.ImportPath)
			continue
		}
		if isTestHelper(p.ImportPath) {
			continue
		}
		for _, imp := range p.Imports {
			if !below(imp, module) {
				continue
			}
			if to := layerOf(imp); to < from {
				t.Errorf("%s imports %s, which is above it", p.ImportPath, imp)
			}
			if isTestHelper(imp) && !strings.HasSuffix(p.ImportPath, "test") {
				t.Errorf("%s imports %s, which is for tests", p.ImportPath, imp)
			}
		}
	}
}

// bans: packages that only some may import. The reason is what breaks otherwise.
var bans = []struct {
	what   string   // import path or prefix
	only   []string // who may, with everything below; of this module
	reason string
}{
	{"go.etcd.io", []string{"controller/etcdstore"}, "the store is an interface; etcd is one adapter"},
	{"github.com/docker", []string{"pool/docker"}, "engines are an interface; Docker is one of them"},
	{"github.com/opencontainers/runtime-spec", []string{"pool/oci"}, "bundles are the oci engine's matter"},
	{"github.com/elazarl/goproxy", []string{"pool/egress"}, "one place decides what may leave"},
	{"github.com/spf13", []string{"cmd"}, "flags are read in cmd"},
	{"google.golang.org/grpc", []string{"client", "cmd", "router", "controller", "internal/errs", "internal/metrics", "internal/nodewire", "proto", "bench", "examples"}, "pool does not know the public API"},
	{"paddock/proto", []string{"client", "cmd", "router", "controller", "internal/nodewire", "bench", "examples"}, "pool does not know the public API"},
	{"paddock/controller/etcdstore", []string{"controller/etcdstore", "cmd", "bench"}, "only the wiring chooses a store"},
	{"paddock/controller/memstore", []string{"controller/memstore", "bench"}, "it persists nothing: for tests"},
	{"paddock/pool/docker", []string{"pool/docker", "cmd", "bench"}, "only the wiring chooses an engine"},
	{"paddock/pool/oci", []string{"pool/oci", "cmd", "bench"}, "only the wiring chooses an engine"},
	{"paddock/pool/fake", []string{"pool/fake", "pool/enginetest"}, "for tests"},
	{"paddock/pool/enginetest", []string{"pool/enginetest"}, "for tests"},
	{"paddock/cmd", []string{"cmd", "bench"}, "nothing hangs on the wiring"},
	{"testing", []string{"internal/testenv", "pool/enginetest", "controller/storetest", "pool/link/linktest", "pool/fake", "bench", "examples"}, "test code stays in tests"},
}

func TestOnlyWhoMayImports(t *testing.T) {
	for _, p := range list(t) {
		for _, imp := range p.Imports {
			if imp == "log" {
				t.Errorf("%s imports log: loggers are *slog.Logger and passed in", p.ImportPath)
			}
			for _, b := range bans {
				if below(imp, b.what) && !allowed(p.ImportPath, b.only) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, b.reason)
				}
			}
		}
	}
}

func allowed(path string, only []string) bool {
	for _, o := range only {
		if below(path, module+"/"+o) {
			return true
		}
	}
	return false
}

// The router and controllers reach each other through an interface of the router's; it may read the catalogue's view.
func TestRouterAndControllerAreApart(t *testing.T) {
	for _, p := range list(t) {
		for _, imp := range p.Imports {
			if below(p.ImportPath, module+"/router") && below(imp, module+"/controller") && imp != module+"/controller/catalog" {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
			if below(p.ImportPath, module+"/controller") && below(imp, module+"/router") {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

// Signals, exits and the environment belong to the commands: a library that reads them cannot be used twice.
func TestLibrariesLeaveTheProcessAlone(t *testing.T) {
	calls := map[string]map[string]bool{
		"os": {"Exit": true, "Getenv": true, "LookupEnv": true, "Environ": true}, "signal": {"Notify": true, "NotifyContext": true},
	}
	// The keeper is a process of its own and hears of its children by signal.
	exempt := []string{"cmd", "pool/oci/keeper", "pool/enginetest", "internal/testenv", "internal/testsum", "bench", "examples"}
	fset := token.NewFileSet()
	for _, p := range list(t) {
		if allowed(p.ImportPath, exempt) || p.Name == "main" {
			continue
		}
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Error(err)
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && calls[x.Name][sel.Sel.Name] {
					t.Errorf("%s: %s.%s belongs to cmd", fset.Position(n.Pos()), x.Name, sel.Sel.Name)
				}
				return true
			})
		}
	}
}
