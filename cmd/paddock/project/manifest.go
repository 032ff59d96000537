package project

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"paddock/internal/call"
)

// Example is a manifest with a bit of everything.
//
//go:embed example.yaml
var Example string

// Manifest is a pipeline as its author writes it. Field tags are the names in the file.
type Manifest struct {
	// Name of the pipeline.
	Name string `yaml:"name"`
	// Kind of its functions: rule (the default) or action.
	Kind call.Kind `yaml:"kind,omitempty"`
	// Timeout is the budget of a whole run. 0 is the tenant's.
	Timeout Duration `yaml:"timeout,omitempty"`
	// Steps run in this order.
	Steps []Step `yaml:"steps"`

	// Path is where it was read.
	Path string `yaml:"-"`
}

// Step is one function of a pipeline.
type Step struct {
	// File of code, relative to the manifest: published with the pipeline. Without it Function has to be there already.
	File string `yaml:"file,omitempty"`
	// Function is its name, by default the file's without ending; "name@3" pins one that is there already.
	Function string `yaml:"function,omitempty"`
	// OnFailure says what becomes of the run if the step fails: fail (the default), skip or last_good.
	OnFailure call.FailurePolicy `yaml:"on_failure,omitempty"`
	// Timeout of this step alone. 0 is none but the run's.
	Timeout Duration `yaml:"timeout,omitempty"`
	// Disabled steps stay in the list and do not run.
	Disabled bool `yaml:"disabled,omitempty"`
	// Note is kept with the version that publishing makes.
	Note string `yaml:"note,omitempty"`
}

// Duration is written with its unit: 500ms, 3s.
type Duration time.Duration

// UnmarshalYAML reads a duration; a number alone has no unit.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v <= 0 {
		return fmt.Errorf("line %d: timeout %q: write a time with its unit, for example 500ms or 3s", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes it as it is read.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// ReadManifest reads and checks a manifest; of a folder, that called pipeline.yaml in it.
func ReadManifest(path string) (*Manifest, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		path = filepath.Join(path, ManifestName)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && info.IsDir() {
		return nil, fmt.Errorf("there is no %s: it says which files are a pipeline, and in which order", path)
	}
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.Path = path
	for _, s := range m.Steps {
		if s.File == "" {
			continue
		}
		if info, err := os.Stat(m.FileOf(s)); err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: there is no file %s", path, m.FileOf(s))
		}
	}
	return m, nil
}

// FileOf is where a step's code is.
func (m *Manifest) FileOf(s Step) string {
	if filepath.IsAbs(s.File) {
		return s.File
	}
	return filepath.Join(filepath.Dir(m.Path), s.File)
}

// ParseManifest reads a manifest's text, strictly: a field that there is not is an error.
func ParseManifest(text []byte) (*Manifest, error) {
	var m Manifest
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&m); err != nil && !errors.Is(err, io.EOF) {
		return nil, plain(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document follows: one file holds one pipeline")
	}
	return &m, m.complete()
}

// complete fills in what may be left out and checks the rest.
func (m *Manifest) complete() error {
	if m.Kind == "" {
		m.Kind = call.KindRule
	}
	switch {
	case m.Name == "":
		return errors.New("name is missing: the pipeline's")
	case m.Kind != call.KindRule && m.Kind != call.KindAction:
		return fmt.Errorf("kind %q: use rule or action", m.Kind)
	case len(m.Steps) == 0:
		return errors.New("steps are missing: files or functions, in the order in which they run")
	}
	files := map[string]string{}
	for i := range m.Steps {
		s := &m.Steps[i]
		if err := s.complete(); err != nil {
			return fmt.Errorf("step %d%s: %w", i+1, s.inBrackets(), err)
		}
		if s.File == "" {
			continue
		}
		if other, ok := files[s.Function]; ok && other != s.File {
			return fmt.Errorf("step %d (%s): %s is function %q already; give one of them another name with function:", i+1, s.File, other, s.Function)
		}
		files[s.Function] = s.File
	}
	return nil
}

func (s *Step) inBrackets() string {
	if text := cmp.Or(s.File, s.Function); text != "" {
		return " (" + text + ")"
	}
	return ""
}

func (s *Step) complete() error {
	policy, ok := call.ParseFailurePolicy(string(s.OnFailure))
	switch {
	case s.File == "" && s.Function == "":
		return errors.New("give file or function")
	case s.File != "" && strings.Contains(s.Function, "@"):
		return fmt.Errorf("function %q: a file becomes a new version, which cannot be named before; leave @… or the file out", s.Function)
	case s.File == "" && s.Note != "":
		return errors.New("note is kept with a version that is made of a file, and there is none")
	case !ok:
		return fmt.Errorf("on_failure %q: use fail, skip or last_good", s.OnFailure)
	}
	s.OnFailure = policy
	if s.Function == "" {
		s.Function = BareName(s.File)
	}
	return nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type (?:\w+\.)?(\w+)`)

// plain says in an author's words what the decoder says in Go's.
func plain(err error) error {
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return err
	}
	all := make([]error, len(wrong.Errors))
	for i, said := range wrong.Errors {
		said = unknownField.ReplaceAllStringFunc(said, func(text string) string {
			m := unknownField.FindStringSubmatch(text)
			return fmt.Sprintf("there is no %q in a %s", m[1], map[string]string{"Manifest": "pipeline", "Step": "step"}[m[2]])
		})
		all[i] = errors.New(strings.ReplaceAll(said, "into bool", "into true or false"))
	}
	return errors.Join(all...)
}
