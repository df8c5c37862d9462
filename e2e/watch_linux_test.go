package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"

	"golang.org/x/sys/unix"
)

func init() { attacks["use up inotify"] = useUpInotify }

// useUpInotify holds every inotify instance that its user may have until stdin
// ends.
func useUpInotify([]string) {
	for {
		if _, err := unix.InotifyInit1(0); err != nil {
			fmt.Println(err)
			break
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// Programs of the user can use up what the kernel has for watching files. The
// status says so, and a status or a refresh finds the change then, each beside its
// answer.
func TestAConfigurationThatCannotBeWatched(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be a user who uses up something: sudo go test ./e2e")
	}
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	cmd := w.attacker(w.as, "use up inotify")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}()
	if lines := newLines(stdout); !lines.Scan() || !strings.Contains(lines.Text(), "too many open files") {
		t.Skipf("inotify is not used up: %q", lines.Text())
	}
	w.start("--store", "file")
	config := filepath.Join(w.dir, "config", "bloq-agent", "config.toml")
	const why = "couldn't initialize inotify: too many open files"
	line := "a change of " + config + " is only noticed after the next refresh or status, because it cannot be watched: " + why + "\n"
	if r := w.run("", "bloq-agent", "status"); !strings.Contains(r.stdout, line) {
		t.Errorf("%+v", r)
	}
	w.login()

	reloads := func(n int) func() bool {
		return func() bool { return strings.Count(w.log.String(), "configuration reloaded") == n }
	}
	w.configure("log_level = \"debug\"\n")
	w.must("", "bloq-agent", "refresh")
	w.eventually("the file is read after a refresh", reloads(1))
	w.configure("log_level = \"info\"\n")
	w.must("", "bloq-agent", "status")
	w.eventually("the file is read after a status", reloads(2))
	w.stop()
}

// Dotfiles are links: into a directory of their own, which is edited, replaced and
// moved.
func TestALinkedConfiguration(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := filepath.Join(w.dir, "config", "bloq-agent")
	must(t, os.MkdirAll(w.dir+"/dotfiles", 0o700))
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(w.dir+"/dotfiles/bloq.toml", nil, 0o600))
	must(t, os.Symlink("../../dotfiles/bloq.toml", dir+"/config.toml"))
	w.start("--store", "memory")
	events := w.events()
	must(t, os.WriteFile(w.dir+"/dotfiles/bloq.toml", []byte("log_level = \"debug\"\n"), 0o600))
	w.await(events, "the target is read", isReload)
	must(t, os.Rename(w.dir+"/config", w.dir+"/old"))
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(dir+"/config.toml", []byte("log_level = \"info\"\n"), 0o600))
	w.await(events, "the directory is read that came in place of the one before", isReload)
	w.stop()
}
