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
		"of a newer version": {overwrite(`{"version":99}`), back, "version 99 is not known here", ""},
		"a directory":        {func(_, f string) error { return errors.Join(os.Rename(f, f+".good"), os.Mkdir(f, 0o700)) }, back, "is not a regular file", ""},
		"a FIFO":             {func(_, f string) error { return errors.Join(os.Rename(f, f+".good"), syscall.Mkfifo(f, 0o600)) }, back, "not a regular file", ""},
		"a link":             {func(_, f string) error { return errors.Join(os.Rename(f, f+".good"), os.Symlink(f+".good", f)) }, back, "is not a regular file", ""},
		"open to writers": {
			func(_, f string) error { return os.Chmod(f, 0o666) }, func(_, f string) error { return os.Chmod(f, 0o600) }, "can be written by others", "hint: chmod",
		},
		"in a directory open to writers": {
			func(d, _ string) error { return os.Chmod(d, 0o777) }, func(d, _ string) error { return os.Chmod(d, 0o700) }, "can be written by others", "chmod",
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
