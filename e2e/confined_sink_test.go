package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// A sink whose directory the configuration names only after the start needs a
// restart where the kernel confines the daemon, and status says so.
func TestANewSinkDirectoryNeedsARestart(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	first, second := w.sinkDir()+"/a", t.TempDir()+"/b"
	table := func(path string) string { return "[[profile.default.sink]]\npath = \"" + path + "\"\n" }
	w.configure(table(first))
	w.start("--store", "memory")
	w.login()
	w.eventually("the first sink", w.holdsToken(first))
	if !strings.Contains(w.must("", "bloq-agent", "status", "--json").stdout, `"landlock": "ABI`) &&
		!strings.Contains(w.must("", "bloq-agent", "status", "--json").stdout, `"landlock":"ABI`) {
		t.Skip("this kernel has no Landlock")
	}
	w.configure(table(first) + table(second))
	must(t, w.daemon.Process.Signal(hup))
	w.eventually("status says it", func() bool {
		s := w.status().Sinks
		return len(s) == 2 && strings.Contains(s[0].Error+s[1].Error, "restart it")
	})
	if got := content(second); got != "" {
		t.Errorf("%s was written", filepath.Base(second))
	}
	w.must("", "bloq-token")
}
