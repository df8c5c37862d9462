package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// State that cannot be read is an answer: the daemon starts, stays, says what is
// wrong, and goes on when that is mended.
func TestStateThatCannotBeReadIsAnAnswer(t *testing.T) {
	overwrite := func(text string) func(dir, file string) error {
		return func(_, file string) error {
			return errors.Join(os.Rename(file, file+".good"), os.WriteFile(file, []byte(text), 0o600))
		}
	}
	back := func(_, file string) error { return errors.Join(os.RemoveAll(file), os.Rename(file+".good", file)) }
	for name, tt := range map[string]struct {
		spoil, mend func(dir, file string) error
		text, hint  string
	}{
		"damaged":            {overwrite("{"), back, "it is damaged", ""},
		"empty":              {overwrite(""), back, "it is damaged", ""},
		"of a newer version": {overwrite(`{"version":99,"colour":"red"}`), back, "it was written by a newer bloq-agent: its version is 99, and this one reads up to 2; install that one", ""},
		"of no version":      {overwrite(`{"profiles":[]}`), back, "version 0 is not known here", ""},
		"a directory":        {func(_, f string) error { return errors.Join(os.Rename(f, f+".good"), os.Mkdir(f, 0o700)) }, back, "is not a regular file", ""},
		"a FIFO":             {func(_, f string) error { return errors.Join(os.Rename(f, f+".good"), syscall.Mkfifo(f, 0o600)) }, back, "not a regular file", ""},
		"a link":             {func(_, f string) error { return errors.Join(os.Rename(f, f+".good"), os.Symlink(f+".good", f)) }, back, "is not a regular file", ""},
		"open to writers": {
			func(d, f string) error { return errors.Join(os.Chmod(d, 0o755), os.Chmod(f, 0o606)) }, func(_, f string) error { return os.Chmod(f, 0o600) }, "can be written by others", "hint: chmod o-w ",
		},
		"in a directory open to writers": {
			func(d, _ string) error { return os.Chmod(d, 0o777) }, func(d, _ string) error { return os.Chmod(d, 0o700) }, "can be written by others", "hint: chmod go-w ",
		},
		"in a file": {
			func(d, _ string) error { return errors.Join(os.Rename(d, d+".good"), os.WriteFile(d, nil, 0o600)) },
			func(d, _ string) error { return errors.Join(os.Remove(d), os.Rename(d+".good", d)) }, "not a directory", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			w.start("--store", "file")
			w.login()
			w.stop()
			dir := w.dir + "/state/bloq-agent"
			file := filepath.Join(dir, "profiles.json")
			must(t, errors.Join(os.Chmod(w.dir, 0o755), os.Chmod(w.dir+"/state", 0o755))) // in reach of others
			must(t, tt.spoil(dir, file))
			w.start("--store", "file")
			for _, program := range [][]string{{"bloq-token"}, {"bloq-agent", "refresh"}, {"bloq-agent", "lock"}, {"bloq-agent", "logout"}, {"bloq-agent", "status"}} {
				w.wants(w.run("", program[0], program[1:]...), 5, tt.text, tt.hint)
			}
			must(t, tt.mend(dir, file))
			for end := time.Now().Add(20 * time.Second); w.run("", "bloq-token").code != 0; {
				if time.Now().After(end) {
					t.Fatalf("%s", w.log.String())
				}
			}
			w.stop() // it is the same process
		})
	}
}

// Another user's file is not read. The hint mends it, and the daemon sees that
// without a restart. So it is with a file that root has left there.
func TestStateOfRootIsAnAnswer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give files away: sudo go test ./e2e")
	}
	for _, mode := range []os.FileMode{0o600, 0o644} {
		w := newWorld(t, sandbox.Config{})
		w.asOrdinaryUser()
		w.start("--store", "file")
		w.login()
		w.stop()
		file := w.dir + "/state/bloq-agent/profiles.json"
		must(t, errors.Join(os.Chown(file, 0, 0), os.Chmod(file, mode)))
		w.start("--store", "file")
		w.wants(w.run("", "bloq-token"), 5, "profiles.json ", "hint: sudo chown nobody "+file+"\n")
		w.types("chown nobody " + file)
		w.eventually("the state is read", func() bool { return w.run("", "bloq-token").code == 0 })
		w.stop()
	}
}

// A mode that a copy or a umask has left is no reason to refuse anybody who asks.
func TestAStateThatOthersCouldNotReachIsSetRight(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "file")
	w.login()
	w.stop()
	file := w.dir + "/state/bloq-agent/profiles.json"
	must(t, os.Chmod(file, 0o666))
	w.start("--store", "file")
	w.must("", "bloq-token")
	w.logged(file + " was open to others, mode 0666; it is 0600 now")
	w.stop()
}

// A state directory that is a link to another disk is as good as one.
func TestAStateDirectoryOnAnotherDisk(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	must(t, errors.Join(os.Mkdir(w.dir+"/disk", 0o700), os.Mkdir(w.dir+"/state", 0o700), os.Symlink("../disk", w.dir+"/state/bloq-agent")))
	w.start("--store", "file")
	w.login()
	w.must("", "bloq-agent", "refresh")
	w.must("", "bloq-agent", "lock")
	w.stop()
	w.start("--store", "file")
	w.wants(w.run("", "bloq-token"), 3, "locked", "hint: bloq-agent unlock")
	w.must("", "bloq-agent", "unlock")
	w.must("", "bloq-agent", "refresh")
	w.stop()
}
