package e2e

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
)

const restartHint = "and start it again"

// Somebody moves the home to another disk while the agent runs. It tells so before
// it spends or writes anything, and a restart loses nothing.
func TestAStateDirectoryThatIsReplacedWhileRunning(t *testing.T) {
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.start("--store", "file")
	w.login()
	w.must("", "bloq-agent", "refresh")
	w.mustSh("cd state && cp -a bloq-agent B && rm -rf bloq-agent && mv B bloq-agent")
	before, grants := w.mustSh("cd state/bloq-agent && cat *"), w.api.Load().Stats().Grants["refreshToken"]
	const replaced = "was replaced since the daemon started"
	for range 2 { // another try is told the same
		w.wants(w.run("", "bloq-agent", "refresh"), 5, replaced, restartHint)
		w.wants(w.run("", "bloq-agent", "store", "move", "--to", "file"), 2, "are in the file already", "")
		w.wants(w.run("", "bloq-agent", "store", "move", "--to", "keyring"), 5, replaced, restartHint)
		w.wants(w.run(w.pass, "bloq-agent", "login", "--user", w.user, "--password-stdin"), 5, replaced, restartHint)
	}
	w.must("", "bloq-token") // which is good still
	if got := w.api.Load().Stats().Grants["refreshToken"]; got != grants {
		t.Errorf("%d refresh tokens spent", got-grants)
	}
	if n := w.api.Load().Stats().Routes["POST /auth"]; n != 1 {
		t.Errorf("%d passwords sent", n)
	}
	if w.mustSh("cd state/bloq-agent && cat *") != before {
		t.Error("something was written")
	}
	w.kill()
	w.start("--store", "file")
	w.must("", "bloq-token")
	w.noReuse()
}

// A home that is mounted after the start hides the logins that it has. No login is
// written over them, and a restart finds them.
func TestAHomeThatIsMountedAfterTheStart(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	for name, config := range map[string]string{
		"confined":                      "",
		"not confined":                  "landlock = false\n",
		"not confined, a profile known": "landlock = false\n[profile.default]\nhosts = []\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
			w.configure(config)
			w.start("--store", "file")
			w.login()
			w.stop()
			w.mustSh("mv state home && mkdir -m 700 state")
			w.start("--store", "file")
			w.wants(w.run("", "bloq-token"), 3, "", "bloq-agent login")
			if err := syscall.Mount(w.dir+"/home", w.dir+"/state", "", syscall.MS_BIND, ""); err != nil {
				t.Skipf("cannot mount: %v", err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(w.dir+"/state", syscall.MNT_DETACH) })
			before := w.mustSh("cd home/bloq-agent && cat *")
			for _, args := range [][]string{
				{"bloq-token"},
				{"bloq-agent", "status"},
				{"bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin"},
				{"bloq-agent", "login", "-p", "other", "--accounts-url", w.url, "--user", w.user, "--password-stdin"},
			} {
				w.wants(w.run(w.pass, args[0], args[1:]...), 5, "or a file system was mounted over it", restartHint)
			}
			if n := w.api.Load().Stats().Routes["POST /auth"]; n != 1 {
				t.Errorf("%d passwords sent", n)
			}
			if w.mustSh("cd home/bloq-agent && cat *") != before {
				t.Error("something was written over the logins that are there")
			}
			w.kill()
			w.start("--store", "file")
			w.must("", "bloq-token")
			w.noReuse()
		})
	}
}

// Started by hand, the daemon has no service to restart: the hint says what a
// person does, and names the process.
func TestTheHintToRestart(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "file")
	w.login()
	w.mustSh("cd state && mv bloq-agent B && mkdir -m 700 bloq-agent")
	r := w.run("", "bloq-agent", "refresh")
	_, hint, _ := strings.Cut(r.stderr, ": hint: ")
	kill, _, found := strings.Cut(strings.TrimPrefix(hint, "stop bloq-agent ("), ") and start it again")
	if !found {
		t.Fatalf("%+v", r)
	}
	must(t, exec.Command("sh", "-c", kill).Run())
	if err := w.daemon.Wait(); err != nil {
		t.Error(err)
	}
	w.mustSh("cd state && rmdir bloq-agent && mv B bloq-agent")
	w.start("--store", "file")
	w.must("", "bloq-token")
}
