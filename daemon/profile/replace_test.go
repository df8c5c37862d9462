package profile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// replaces are what changes a profile, and the only functions that do it
// (invariant 2). Each of them is replace, or is called by it, but for those that
// make the first state, which nothing else knows yet, and for Close, after which
// there is no other.
var replaces = map[string]string{
	"state{}":        "get publish",
	"state.Store":    "Open get publish",
	".publish":       "replace resume",
	".resume":        "replace",
	".halt":          "Close replace",
	".stop":          "halt start",
	"start":          "publish",
	".release":       "publish",
	"refresher.New":  "start",
	"refresher.Wipe": "release",
	".Run":           "start",
}

func TestOnlyReplaceChangesWhatAProfileIs(t *testing.T) {
	names, err := filepath.Glob("*.go")
	do(t, err)
	found := map[string]map[string]bool{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		do(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				for _, what := range doings(n) {
					if found[what] == nil {
						found[what] = map[string]bool{}
					}
					found[what][f.Name.Name] = true
				}
				return true
			})
		}
	}
	for what, want := range replaces {
		if got := strings.Join(slices.Sorted(maps.Keys(found[what])), " "); got != want {
			t.Errorf("%s is in %s, want it in %s", what, got, want)
		}
		delete(found, what)
	}
	for what, where := range found {
		t.Errorf("%s is in %v", what, slices.Sorted(maps.Keys(where)))
	}
}

// doings names what n does, as replaces does.
func doings(n ast.Node) (list []string) {
	switch n := n.(type) {
	case *ast.CompositeLit:
		if name, ok := n.Type.(*ast.Ident); ok && name.Name == "state" {
			return []string{"state{}"}
		}
	case *ast.CallExpr:
		if name, ok := n.Fun.(*ast.Ident); ok && name.Name == "start" {
			return []string{"start"}
		}
	case *ast.SelectorExpr:
		what := "." + n.Sel.Name
		if _, known := replaces[what]; known {
			list = append(list, what)
		}
		of := ""
		switch x := n.X.(type) {
		case *ast.Ident:
			of = x.Name
		case *ast.SelectorExpr:
			of = x.Sel.Name
		}
		whole := of + what
		if _, known := replaces[whole]; known || of == "state" && what != ".Load" {
			list = append(list, whole)
		}
	}
	return list
}
