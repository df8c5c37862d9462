package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// A cleaner, or a logout, takes the socket, its directory or the one above. The
// daemon is the same afterwards, and callers find it: confined, and with no hint.
func TestASocketThatIsTakenAway(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	above := filepath.Join(w.dir, "run")
	dir := filepath.Join(above, "bloq-agent")
	socket := filepath.Join(dir, "agent.sock")
	w.env = append(w.env, "BLOQ_AGENT_SOCK="+socket)
	w.start("--store", "memory")
	w.login()
	for n, remove := range []func() error{
		func() error { return os.Remove(socket) },
		func() error { return os.RemoveAll(dir) },
		func() error { return errors.Join(os.Rename(dir, dir+".old"), os.RemoveAll(dir+".old")) },
		func() error { return os.RemoveAll(dir) },
		func() error { return errors.Join(os.RemoveAll(above), os.Mkdir(above, 0o700)) },
	} {
		must(t, remove())
		w.eventually("callers find the daemon again", func() bool { return w.run("", "bloq-token").code == 0 })
		w.eventually("it is told", func() bool {
			return strings.Count(w.log.String(), "the socket was gone and has been made again") == n+1
		})
	}
	must(t, errors.Join(os.Remove(socket), os.Mkdir(socket, 0o700)))
	mend := "mv " + socket + " " + socket + ".old"
	w.wants(w.run("", "bloq-agent", "status"), 4, "connect "+socket, "bloq-agent serve")
	w.wants(w.run("", "bloq-agent", "serve"), 1, socket+" is in the way and is no socket", mend)
	w.mustSh(mend)
	w.eventually("callers find the daemon again", func() bool { return w.run("", "bloq-token").code == 0 })
	w.stop()
}

// A daemon whose state directory was not there when it was confined can read it, but
// could not write there. It asks for a restart before a login is lost.
func TestAStateDirectoryThatComesLate(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	state, disk := filepath.Join(w.dir, "state", "bloq-agent"), filepath.Join(w.dir, "disk")
	must(t, errors.Join(os.MkdirAll(filepath.Dir(state), 0o700), os.Symlink(disk, state)))
	w.start("--store", "file")
	w.wants(w.run("", "bloq-agent", "status"), 5, state+" is a link to a directory that is not there", "")
	must(t, os.Mkdir(disk, 0o700))
	restart := fmt.Sprintf("hint: stop bloq-agent (kill %d) and start it again\n", w.daemon.Process.Pid)
	w.eventually("it asks for a restart", func() bool { return strings.Contains(w.run("", "bloq-agent", "status").stderr, restart) })
	w.stop()
	w.start("--store", "file")
	w.login()
}
