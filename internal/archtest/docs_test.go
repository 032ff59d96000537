package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Every package says what it does in a few lines, in one file.
func TestPackagesHaveDocs(t *testing.T) {
	fset := token.NewFileSet()
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 || below(p.ImportPath, module+"/proto") {
			continue
		}
		var docs []string
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Doc != nil {
				docs = append(docs, f.Doc.Text())
			}
		}
		switch {
		case len(docs) == 0:
			t.Errorf("%s has no package comment", p.ImportPath)
		case len(docs) > 1:
			t.Errorf("%s has %d package comments", p.ImportPath, len(docs))
		case len(strings.Split(strings.TrimSpace(docs[0]), "\n")) < 2:
			t.Errorf("%s: its comment is one line: say also what it does not", p.ImportPath)
		}
	}
}

// Exported names are documented, unless a comment over their group does it.
func TestExportedNamesHaveDocs(t *testing.T) {
	fset := token.NewFileSet()
	for _, p := range list(t) {
		if below(p.ImportPath, module+"/proto") || p.Name == "main" {
			continue
		}
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, d := range f.Decls {
				undocumented(d, func(n ast.Node, name string) {
					t.Errorf("%s: %s has no comment", fset.Position(n.Pos()), name)
				})
			}
		}
	}
}

func undocumented(d ast.Decl, report func(ast.Node, string)) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !obvious(d.Name.Name) {
			report(d, d.Name.Name)
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return
		}
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && s.Comment == nil {
					report(s, s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && s.Doc == nil && s.Comment == nil {
					report(s, s.Names[0].Name)
				}
			}
		}
	}
}

// obvious are methods whose meaning their interface fixes.
func obvious(name string) bool {
	switch name {
	case "Error", "Unwrap", "String", "Is", "ServeHTTP", "Read", "Write", "Close", "Len", "Less", "Swap", "Push", "Pop":
		return true
	}
	return false
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if idx, ok := t.(*ast.IndexExpr); ok {
		t = idx.X
	}
	id, ok := t.(*ast.Ident)
	return !ok || id.IsExported()
}
