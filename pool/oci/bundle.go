package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"paddock/pool"
)

// bundle is a container's directory: root-only, on the state directory's tmpfs, and the first thing of a container that
// exists and the last that goes. Its existence claims the id.
type bundle struct {
	id  pool.ContainerID
	dir string
}

func (b bundle) pidFile() string   { return filepath.Join(b.dir, "pid") }
func (b bundle) logFile() string   { return filepath.Join(b.dir, "log") }
func (b bundle) factsFile() string { return filepath.Join(b.dir, "facts.json") }

// make claims the id and writes the bundle. The error is fs.ErrExist if the id is taken.
func (b bundle) make(spec *specs.Spec, facts pool.Facts) error {
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	err := errors.Join(writeJSON(b.factsFile(), facts), writeJSON(filepath.Join(b.dir, "config.json"), spec))
	if err != nil {
		return errors.Join(fmt.Errorf("make bundle: %w", err), b.remove())
	}
	return nil
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// facts reads what Create wrote. Of a half-made bundle only the time is known.
func (b bundle) facts() pool.Facts {
	var f pool.Facts
	text, err := os.ReadFile(b.factsFile())
	if err == nil && json.Unmarshal(text, &f) == nil {
		return f
	}
	f = pool.Facts{Created: time.Now()}
	if info, err := os.Stat(b.dir); err == nil {
		f.Created = info.ModTime()
	}
	return f
}

// remove deletes the bundle. Nothing in it can be written by a container.
func (b bundle) remove() error {
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("remove bundle: %w", err)
	}
	return nil
}
