package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// FindRuntime returns the path of a runtime program ("runsc", "runc"): the one named, else beside this program, in bin/
// beside it, in bin/ above it, then in PATH.
func FindRuntime(name, named string) (string, error) {
	if named != "" {
		path, err := filepath.Abs(named)
		if err != nil {
			return "", err
		}
		if !isProgram(path) {
			return "", fmt.Errorf("runtime %s: there is no such program", named)
		}
		return path, nil
	}
	var tried []string
	for _, dir := range besideSelf() {
		path := filepath.Join(dir, name)
		if isProgram(path) {
			return path, nil
		}
		tried = append(tried, dir)
	}
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	return "", fmt.Errorf("no %s found (looked in %v and PATH): 'make build' in the source tree builds a current one "+
		"into bin/, or name one with --runtime", name, tried)
}

func besideSelf() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	dir := filepath.Dir(self)
	return []string{dir, filepath.Join(dir, "bin")}
}

func isProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0
}
