package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A result must not be repeated after a change of the programs, although go
// test does not see that they are built from those sources.
func TestAResultIsNotRepeatedAfterAChange(t *testing.T) {
	// A module of its own, with what matters of this one.
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text), 0o600))
		// go test trusts no file that has changed in the last two seconds.
		old := time.Now().Add(-time.Hour).Add(time.Duration(len(text)) * time.Second)
		must(t, os.Chtimes(path, old, old))
	}
	source, err := os.ReadFile("world_test.go")
	must(t, err)
	from, to := strings.Index(string(source), "var readOnce"), strings.Index(string(source), "// A world is")
	write("go.mod", "module m\n\ngo 1.26\n")
	write("cmd/p/main.go", "package main\n\nfunc main() {}\n")
	write("e2e/e_test.go", `package e2e
import ("io/fs"; "os"; "path/filepath"; "strings"; "sync"; "testing")
`+string(source)[from:to]+"\nfunc TestX(t *testing.T) { readSources(t) }\n")
	run := func() string {
		t.Helper()
		cmd := exec.Command("go", "test", "./e2e")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	run()
	if out := run(); !strings.Contains(out, "(cached)") {
		t.Skipf("go test repeats nothing here: %s", out)
	}
	write("cmd/p/main.go", "package main\n\nfunc main() { println() }\n")
	if out := run(); strings.Contains(out, "(cached)") {
		t.Errorf("an old result was repeated: %s", out)
	}
}
