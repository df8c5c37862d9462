package e2e

import (
	"fmt"
	"os"
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

// A sink's command has the limits that the daemon was started with, and can't
// write where the daemon can't.
func TestWhatACommandMay(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	w.configure(fmt.Sprintf(tokenSink, "x") +
		fmt.Sprintf("command = [\"sh\", \"-c\", \"ulimit -c >%s/core; echo x 2>/dev/null >%s/outside; echo $? >%s/done\"]\n", dir, w.dir, dir))
	w.through("ulimit -Sc 4")
	w.start("--store", "memory")
	w.login()
	w.eventually("the command ends", func() bool { return content(dir+"/done") != "" })
	if got := strings.TrimSpace(content(dir + "/core")); got != "4" {
		t.Errorf("the limit of core files is %s", got)
	}
	confined := strings.Contains(w.must("", "bloq-agent", "status").stdout, "writes confined")
	if _, err := os.Lstat(w.dir + "/outside"); (err == nil) == confined {
		t.Errorf("confined: %v, but a write elsewhere gives %v", confined, err)
	}
}
