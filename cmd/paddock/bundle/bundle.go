// Package bundle makes one file out of an author's many: ES modules, TypeScript, files that code requires and modules that
// are installed beside it, with esbuild, on the author's machine. Code that is one plain file already stays as it is, byte for
// byte. It runs nothing of the author's and downloads nothing.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
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
	Inputs  int // files that went in
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
	must := slices.Contains(needs, filepath.Ext(path))
	if !must && !mayImport.Match(source) {
		return Result{Code: source, Inputs: 1}, nil
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return Result{}, err
	}
	out := api.Build(options(path, curated))
	if len(out.Errors) > 0 {
		if !must && isFunctionExpression(source) {
			return Result{Code: source, Inputs: 1}, nil // a rule; only as an expression does it parse
		}
		return Result{}, explain(out.Errors)
	}
	inputs, module, err := readMeta(out.Metafile)
	if err != nil {
		return Result{}, err
	}
	if !must && inputs == 1 && !module {
		return Result{Code: source, Inputs: 1}, nil
	}
	if len(out.OutputFiles) != 1 {
		return Result{}, fmt.Errorf("%d files came out, want one: code that is split or carries assets cannot be bundled", len(out.OutputFiles))
	}
	return Result{Code: out.OutputFiles[0].Contents, Bundled: true, Inputs: inputs}, nil
}

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

// isFunctionExpression says whether the text is one expression, as a rule is.
func isFunctionExpression(source []byte) bool {
	out := api.Transform("("+string(source)+"\n)", api.TransformOptions{LogLevel: api.LogLevelSilent, Loader: api.LoaderJS})
	return len(out.Errors) == 0
}

// readMeta says how many files went in, and whether the first is an ES module.
func readMeta(text string) (inputs int, module bool, err error) {
	var meta struct {
		Inputs map[string]struct {
			Format string `json:"format"`
		} `json:"inputs"`
		Outputs map[string]struct {
			EntryPoint string `json:"entryPoint"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal([]byte(text), &meta); err != nil {
		return 0, false, fmt.Errorf("esbuild's metafile: %w", err)
	}
	for _, out := range meta.Outputs {
		module = module || meta.Inputs[out.EntryPoint].Format == "esm"
	}
	return len(meta.Inputs), module, nil
}

// most errors shown; the rest is counted.
const most = 5

func explain(all []api.Message) error {
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
			fmt.Fprintf(&b, "%s:%d:%d: %s\n\n%s\n%s^", l.File, l.Line, l.Column+1, m.Text, l.LineText, strings.Repeat(" ", l.Column))
		} else {
			b.WriteString(m.Text)
		}
		if strings.HasPrefix(m.Text, "Could not resolve") {
			b.WriteString("\nthe sandbox does not have it, and it is not installed here: npm install it beside the code")
		}
	}
	return errors.New(b.String())
}
