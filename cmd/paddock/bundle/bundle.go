// Package bundle makes one file out of an author's many: ES modules, TypeScript, files that code requires and modules that
// are installed beside it, with esbuild, on the author's machine. Code that is one plain file already stays as it is, byte for
// byte. It runs nothing of the author's and downloads nothing.
package bundle

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// Result is what to upload.
type Result struct {
	Code    []byte // UTF-8 JavaScript; bundled code ends in its source map
	Bundled bool
	Files   []string // that went in, absolute, the first one named first
	Parts   []Part   // of a bundle, largest first: files, and installed modules as a whole
}

// Part is what a file or an installed module adds to a bundle.
type Part struct {
	Name  string
	Bytes int64
}

// needs are the endings of files that are never plain JavaScript.
var needs = []string{".ts", ".mts", ".cts", ".tsx", ".jsx", ".mjs"}

// File reads the code in path and bundles it if it is more than one plain file. curated are the modules that the sandbox
// has, which stay outside. An error says where the author has to look.
func File(path string, curated []string) (Result, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return Result{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return Result{}, err
	}
	plain := Result{Code: source, Files: []string{path}}
	must := slices.Contains(needs, filepath.Ext(path))
	if !must && !mayImport.Match(source) {
		return plain, nil
	}
	o := options(path, curated)
	wrapped := isFunction(source, path)
	if wrapped { // what a bundler takes for a statement without effect, or for no statement at all
		o.EntryPoints, o.Stdin = nil, &api.StdinOptions{
			Contents: exported + string(source) + "\n);", ResolveDir: filepath.Dir(path), Sourcefile: filepath.Base(path), Loader: loaderOf(path),
		}
	}
	out := api.Build(o)
	if slices.ContainsFunc(out.Errors, func(m api.Message) bool { return strings.HasPrefix(m.Text, "Top-level await") }) {
		o.Format = api.FormatESModule // which alone has it, and does not load at once: only where it is needed
		out = api.Build(o)
	}
	if len(out.Errors) > 0 {
		return Result{}, explain(out.Errors, wrapped)
	}
	m, err := readMeta(out.Metafile)
	if err != nil {
		return Result{}, err
	}
	if !must && len(m.files) == 1 && !m.module {
		return plain, nil
	}
	if len(out.OutputFiles) != 1 {
		return Result{}, fmt.Errorf("%d files came out, want one: code that is split or carries assets cannot be bundled", len(out.OutputFiles))
	}
	r := Result{Code: out.OutputFiles[0].Contents, Bundled: true, Files: []string{path}, Parts: m.parts}
	for _, name := range m.files {
		if file := filepath.Join(filepath.Dir(path), name); file != path {
			r.Files = append(r.Files, file)
		}
	}
	return r, nil
}

// exported stands before the text of a function expression, in its first line.
const exported = "module.exports = ("

// mayImport is a cheap first look; what it takes for an import is looked at closely.
var mayImport = regexp.MustCompile(`(?m)^\s*(?:import|export)\b|\brequire\s*\(|\bimport\s*\(`)

// Names stay, and nothing is minified: the names of parameters are part of the contract.
func options(path string, curated []string) api.BuildOptions {
	return api.BuildOptions{
		EntryPoints: []string{path}, AbsWorkingDir: filepath.Dir(path), Outdir: filepath.Dir(path),
		Bundle: true, Write: false, Metafile: true, LogLevel: api.LogLevelSilent,
		Platform: api.PlatformNode, Format: api.FormatCommonJS, Engines: []api.Engine{{Name: api.EngineNode, Version: "24"}},
		KeepNames: true, Charset: api.CharsetUTF8, LegalComments: api.LegalCommentsInline,
		Sourcemap: api.SourceMapInline, SourcesContent: api.SourcesContentExclude,
		Plugins: []api.Plugin{outside(curated)},
	}
}

// outside leaves the sandbox's own modules alone, with or without a version: require("lodash@4").
func outside(curated []string) api.Plugin {
	return api.Plugin{Name: "curated", Setup: func(b api.PluginBuild) {
		b.OnResolve(api.OnResolveOptions{Filter: `^[^./]`}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
			m := specifier.FindStringSubmatch(a.Path)
			if a.Kind == api.ResolveEntryPoint || m == nil || !slices.Contains(curated, m[1]) {
				return api.OnResolveResult{}, nil
			}
			return api.OnResolveResult{Path: a.Path, External: true}, nil
		})
	}}
}

var specifier = regexp.MustCompile(`^(@[^/@]+/[^/@]+|[^/@]+)(?:@[^/]*)?(?:/.*)?$`)

func loaderOf(path string) api.Loader {
	switch filepath.Ext(path) {
	case ".ts", ".mts", ".cts":
		return api.LoaderTS
	case ".tsx":
		return api.LoaderTSX
	case ".jsx":
		return api.LoaderJSX
	}
	return api.LoaderJS
}

// isFunction says whether the text is one function expression, as a rule is.
func isFunction(source []byte, path string) bool {
	if !startsAsFunction(string(source)) {
		return false
	}
	out := api.Transform("("+string(source)+"\n)", api.TransformOptions{LogLevel: api.LogLevelSilent, Loader: loaderOf(path)})
	return len(out.Errors) == 0
}

var (
	comments = regexp.MustCompile(`^(?:[\s\x{feff}]+|//[^\n\r]*|(?s:/\*.*?\*/))+`)
	function = regexp.MustCompile(`^(?:async\s+)?function\b`)
	async    = regexp.MustCompile(`^async\b\s*`)
	name     = regexp.MustCompile(`^[\p{L}$_][\p{L}\p{N}$_]*`)
	arrow    = regexp.MustCompile(`^\s*(?::[^=\n]*)?=>`) // with the type of what it returns
)

// startsAsFunction looks at the beginning, as the sandbox does before it compiles. It decides what to ask the parser.
func startsAsFunction(text string) bool {
	text = text[len(comments.FindString(text)):]
	if function.MatchString(text) {
		return true
	}
	if m := async.FindString(text); m != "" && !arrow.MatchString(text[len(m):]) {
		text = text[len(m):]
	}
	if !strings.HasPrefix(text, "(") {
		parameter := name.FindString(text)
		return parameter != "" && arrow.MatchString(text[len(parameter):])
	}
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			return arrow.MatchString(text[i+1:])
		}
	}
	return false
}

// meta is what esbuild says of a bundle.
type meta struct {
	files  []string // relative to the first one's folder
	module bool     // the first is an ES module
	parts  []Part
}

func readMeta(text string) (m meta, err error) {
	var said struct {
		Inputs map[string]struct {
			Format string `json:"format"`
		} `json:"inputs"`
		Outputs map[string]struct {
			EntryPoint string `json:"entryPoint"`
			Inputs     map[string]struct {
				Bytes int64 `json:"bytesInOutput"`
			} `json:"inputs"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		return m, fmt.Errorf("esbuild's metafile: %w", err)
	}
	sizes := map[string]int64{}
	for _, out := range said.Outputs {
		m.module = m.module || said.Inputs[out.EntryPoint].Format == "esm"
		for file, in := range out.Inputs {
			sizes[partOf(file)] += in.Bytes
		}
	}
	m.files = slices.Sorted(maps.Keys(said.Inputs))
	for name, bytes := range sizes {
		m.parts = append(m.parts, Part{name, bytes})
	}
	slices.SortFunc(m.parts, func(a, b Part) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name)) })
	return m, nil
}

// partOf is a file of ours, or the module that a file belongs to.
func partOf(file string) string {
	_, inside, ok := cutLast(file, "node_modules/")
	if !ok {
		return file
	}
	names := strings.SplitN(inside, "/", 3)
	if strings.HasPrefix(inside, "@") && len(names) > 1 {
		return names[0] + "/" + names[1]
	}
	return names[0]
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// most errors shown; the rest is counted.
const most = 5

// explain shows errors with their places. wrapped: exported stands before the first line.
func explain(all []api.Message, wrapped bool) error {
	var b strings.Builder
	for i, m := range all {
		if i == most {
			fmt.Fprintf(&b, "\nand %d more", len(all)-most)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		if l := m.Location; l != nil {
			column, line := l.Column, l.LineText
			if wrapped && l.Line == 1 && strings.HasPrefix(line, exported) {
				column, line = max(column-len(exported), 0), line[len(exported):]
			}
			fmt.Fprintf(&b, "%s:%d:%d: %s\n\n%s\n%s^", l.File, l.Line, column+1, m.Text, line, strings.Repeat(" ", column))
		} else {
			b.WriteString(m.Text)
		}
		if name, ok := strings.CutPrefix(m.Text, "Could not resolve \""); ok && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "/") {
			b.WriteString("\nthe sandbox does not have it, and it is not installed here: npm install it beside the code")
		}
	}
	return errors.New(b.String())
}
