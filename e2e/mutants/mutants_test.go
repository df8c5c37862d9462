package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const source = `package p

func Answer() int {
	const answer = 42
	return answer
}
`

const tests = `package p

import "testing"

func TestAnswer(t *testing.T) {
	if Answer() != 42 {
		t.Error(Answer())
	}
}

func TestOfNothing(t *testing.T) {}

func TestThatIsSkipped(t *testing.T) { t.Skip("no such machine") }

func TestThatIsSkippedInPart(t *testing.T) {
	t.Run("part", func(t *testing.T) { t.Skip("no such part") })
}

func TestThatFailsAnyway(t *testing.T) { t.Error("always") }

func TestThatPanics(t *testing.T) {
	if Answer() != 42 {
		panic(Answer())
	}
}

func TestParts(t *testing.T) {
	t.Run("right", func(t *testing.T) {
		if Answer() != 42 {
			t.Error(Answer())
		}
	})
	t.Run("other", func(*testing.T) {})
}
`

// wrong is a diff that changes the answer.
const wrong = `
diff --git a/p/p.go b/p/p.go
--- a/p/p.go
+++ b/p/p.go
@@ -4,2 +4,2 @@
-	const answer = 42
+	const answer = 41
 	return answer
`

// module makes a tree with one package, and mutants of it by name.
func module(t *testing.T, patches map[string]string) (tree, []mutant) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module m\n\ngo 1.25\n", "p/p.go": source, "p/p_test.go": tests,
	} {
		write(t, filepath.Join(dir, name), text)
	}
	from := t.TempDir()
	for name, text := range patches {
		write(t, filepath.Join(from, name+".patch"), text)
	}
	mutants, err := readMutants(from, "")
	if err != nil {
		t.Fatal(err)
	}
	return tree{dir}, mutants
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func head(test string) string { return "promise: the answer is 42\ntests: ./p " + test + "\n" }

// Each way in which a mutant can show nothing has its own words.
func TestWhatAMutantShows(t *testing.T) {
	patches, want := map[string]string{}, map[string]string{}
	for name, tt := range map[string]struct{ patch, want string }{
		"caught":               {head("TestAnswer") + wrong, `^caught .*: \./p TestAnswer$`},
		"caught by a panic":    {head("TestThatPanics") + wrong, `^caught `},
		"caught by a part":     {head("TestParts/right") + wrong, `^caught .*TestParts/right$`},
		"another part":         {head("TestParts/other") + wrong, `^NOT CAUGHT .*TestParts/other passes$`},
		"its test passes":      {head("TestOfNothing") + wrong, `^NOT CAUGHT .*TestOfNothing passes$`},
		"one of two passes":    {head("TestAnswer") + "tests: ./p TestOfNothing\n" + wrong, `^NOT CAUGHT .*TestOfNothing passes$`},
		"its test is skipped":  {head("TestThatIsSkipped") + wrong, `^not shown .* is not shown here: .*no such machine$`},
		"a part is skipped":    {head("TestThatIsSkippedInPart") + wrong, `^not shown .*no such part$`},
		"it fails without":     {head("TestThatFailsAnyway") + wrong, `^BROKEN .*TestThatFailsAnyway fails without it, too$`},
		"no such test":         {head("TestOfTomorrow") + wrong, `^BROKEN .*TestOfTomorrow did not run: there is no such test$`},
		"no such part":         {head("TestParts/third") + wrong, `^BROKEN .*there is no such test$`},
		"it does not apply":    {head("TestAnswer") + strings.Replace(wrong, "= 42", "= 43", 1), `^BROKEN .*it does not apply: .*p/p\.go`},
		"it does not compile":  {head("TestAnswer") + strings.Replace(wrong, "= 41", "= forty", 1), `^BROKEN .*it does not compile: .*forty`},
		"it stops the package": {head("TestAnswer -test.badflag") + wrong, `^BROKEN .*TestAnswer did not run: its package fails`},
	} {
		patches[name], want[name] = tt.patch, tt.want
	}
	tree, mutants := module(t, patches)
	var out strings.Builder
	if err := tree.runAll(t.Context(), &out, mutants); err == nil || err.Error() != "9 of 14 mutants show nothing" {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(mutants)+2 || lines[len(lines)-1] != "14 mutants: 3 caught, 3 not caught, 2 not shown here, 6 broken" {
		t.Fatal(out.String())
	}
	for i, m := range mutants {
		if line := lines[i+1]; !strings.Contains(line, m.name) || !regexp.MustCompile(want[m.name]).MatchString(line) {
			t.Errorf("%s: %s", m.name, line)
		}
	}
	if b, err := os.ReadFile(filepath.Join(tree.dir, "p", "p.go")); err != nil || string(b) != source {
		t.Errorf("the tree was not put back: %v\n%s", err, b)
	}
}

// All of a batch are applied at once; which of them is at fault is told.
func TestWhatDoesNotApplyOrCompile(t *testing.T) {
	other := strings.ReplaceAll(wrong, "p/p.go", "q/q.go")
	tree, mutants := module(t, map[string]string{
		"a-good": head("TestAnswer") + wrong, "b-good-too": head("TestAnswer") + other,
		"c-old": head("TestAnswer") + strings.Replace(wrong, "= 42", "= 43", 1), "d-no-go": head("TestAnswer") + strings.Replace(other, "= 41", "= forty", 1),
		"e-no-test": head("TestOfTomorrow") + wrong,
	})
	write(t, filepath.Join(tree.dir, "q", "q.go"), source)
	var out strings.Builder
	err := tree.applyAll(t.Context(), &out, mutants)
	const want = `^c-old: it does not apply: .*
e-no-test: there is no \./p TestOfTomorrow
d-no-go: it does not compile: .*forty
5 mutants, 2 of them apply and compile
$`
	if err == nil || !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestHeadsThatAreRefused(t *testing.T) {
	for _, text := range []string{
		"", head("TestAnswer"), wrong, "promise: x\n" + wrong, "tests: ./p TestAnswer\n" + wrong, head("Answer") + wrong,
		"promise: x\ntests: p TestAnswer\n" + wrong, "promise: x\ntests: ./p\n" + wrong, head("TestAnswer TestOfNothing") + wrong,
		head("TestAnswer") + "test: ./p TestAnswer\n" + wrong,
	} {
		if m, err := parseMutant(text); err == nil {
			t.Errorf("%q: %+v", text, m)
		}
	}
	m, err := parseMutant(head("TestAnswer BLOQ_E2E=1 -race") + wrong)
	if err != nil || len(m.tests) != 1 || m.tests[0].env[0] != "BLOQ_E2E=1" || m.tests[0].args[0] != "-race" {
		t.Errorf("%v: %+v", err, m)
	}
}

// What is broken is a copy: of what lies there, committed or not.
func TestTheTreeItselfIsNotTouched(t *testing.T) {
	from := t.TempDir()
	write(t, filepath.Join(from, "go.mod"), "module m\n\ngo 1.25\n")
	write(t, filepath.Join(from, "p", "p.go"), source)
	write(t, filepath.Join(from, "p", "p_test.go"), tests)
	write(t, filepath.Join(from, ".gitignore"), "ignored\n")
	write(t, filepath.Join(from, "ignored"), "x")
	if out, err := (tree{from}).command(context.Background(), "git", "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	copied := tree{filepath.Join(t.TempDir(), "tree")}
	if err := copied.copyFrom(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(copied.dir, "ignored")); err == nil {
		t.Error("what git ignores was copied")
	}
	m, err := parseMutant(head("TestAnswer") + wrong)
	if err != nil {
		t.Fatal(err)
	}
	m.file = filepath.Join(t.TempDir(), "m.patch")
	write(t, m.file, head("TestAnswer")+wrong)
	if err := copied.apply(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	there, _ := os.ReadFile(filepath.Join(copied.dir, "p", "p.go"))
	here, _ := os.ReadFile(filepath.Join(from, "p", "p.go"))
	if string(here) != source || string(there) == source {
		t.Errorf("broken is the wrong one:\n%s\n%s", here, there)
	}
}
