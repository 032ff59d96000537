package node

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The agent's files and the list of curated modules travel in the binary.
//
//go:embed *.js package*.json
var embedded embed.FS

// addAgent adds the agent: every JavaScript file here that is no test, to /paddock, and package.json beside them, which says
// how Node reads them.
func (t tree) addAgent() {
	t.dir("paddock", 0o755)
	entries, err := embedded.ReadDir(".")
	if err != nil {
		panic(fmt.Sprintf("embedded files: %v", err)) // cannot be: "." always exists
	}
	for _, e := range entries {
		if e.IsDir() || isTest(e.Name()) || e.Name() == "package-lock.json" {
			continue
		}
		text, err := embedded.ReadFile(e.Name())
		if err != nil {
			panic(fmt.Sprintf("embedded files: %v", err))
		}
		t.text("paddock/"+e.Name(), text)
	}
}

func isTest(name string) bool {
	return strings.HasSuffix(name, ".test.js") || strings.HasSuffix(name, "_test.js") || strings.HasPrefix(name, "test-")
}

// moduleFiles returns package.json and package-lock.json.
func moduleFiles() (manifest, lock []byte, err error) {
	manifest, err = embedded.ReadFile("package.json")
	if err != nil {
		return nil, nil, err
	}
	lock, err = embedded.ReadFile("package-lock.json")
	if err != nil {
		return nil, nil, errors.New("package-lock.json is not in this binary: run npm install --package-lock-only and build again")
	}
	return manifest, lock, nil
}

// Curated returns the names of the modules that code finds in its sandbox.
func Curated() ([]string, error) {
	text, _, err := moduleFiles()
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return nil, fmt.Errorf("package.json: %w", err)
	}
	return append(slices.Sorted(maps.Keys(manifest.Dependencies)), ownModules...), nil
}

// ownModules are served by the agent itself.
var ownModules = []string{"@auth0/rule-utilities"}
