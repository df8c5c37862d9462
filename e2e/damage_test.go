package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store/storetest"
)

// What is wrong with an item, what that is called, and what mends it. A login is
// told before it spends a password if it could not be kept.
func TestAnItemThatCannotBeRead(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil        func(path string) error
		code, status int
		text, hint   string
		login        int // exit code
	}{
		"damaged": {func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) }, 3, 3, "is damaged", "bloq-agent login --profile default", 0},
		"no key": {func(p string) error {
			return os.RemoveAll(filepath.Join(filepath.Dir(p), "..", "..", ".local"))
		}, 3, 3, "the key of the item is not here", "bloq-agent login --profile default", 0},
		"mode": {func(p string) error { return os.Chmod(p, 0o644) }, 5, 0, "mode 0644", "chmod 600 ", 5},
		"link": {func(p string) error { return errors.Join(os.Rename(p, p+"x"), os.Symlink(p+"x", p)) }, 5, 0, "is a symbolic link", "bloq-agent status", 5},
		"FIFO": {func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o600)) }, 5, 0, "not a regular file", "bloq-agent status", 5},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			w.start()
			w.login("--store", "file")
			w.stop()
			files, err := filepath.Glob(w.dir + "/state/bloq-agent/*.age")
			if err != nil || len(files) != 1 {
				t.Fatalf("%q, %v", files, err)
			}
			must(t, tt.spoil(files[0]))
			w.start()
			w.wants(w.run("", "bloq-token"), tt.code, tt.text, tt.hint)
			r := w.run("", "bloq-agent", "status")
			if r.code != tt.status || !strings.Contains(r.stdout, tt.text) || strings.Contains(r.stderr, "hint: bloq-agent status") {
				t.Errorf("status: %+v", r)
			}
			if name == "no key" && strings.Contains(r.stdout, "identity.txt unprotected") {
				t.Errorf("status names a file that is not there:\n%s", r.stdout)
			}
			before := w.api.Load().Stats().Routes["POST /auth"]
			r = w.run(w.pass, "bloq-agent", "login", "--user", w.user, "--password-stdin")
			if r.code != tt.login || tt.login != 0 && !strings.Contains(r.stderr, tt.text) {
				t.Errorf("login: %+v", r)
			}
			if spent := w.api.Load().Stats().Routes["POST /auth"] - before; tt.login != 0 && spent != 0 {
				t.Error("the password was spent on a login that could not be kept")
			}
			if tt.login == 0 {
				w.must("", "bloq-token")
			}
			if name == "mode" { // the hint works as it stands there
				must(t, os.Chmod(strings.TrimSpace(strings.Fields(strings.SplitN(r.stderr, "chmod 600 ", 3)[2])[0]), 0o600))
				w.must("", "bloq-agent", "unlock")
				w.must("", "bloq-token")
			}
		})
	}
}

// Where the keyring cannot take a login, another store is one hint away.
func TestALoginThatTheKeyringCannotTake(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *storetest.SecretService){
		"frozen": func(t *testing.T, s *storetest.SecretService) { must(t, syscall.Kill(s.PID, syscall.SIGSTOP)) },
		"locked": func(t *testing.T, s *storetest.SecretService) { s.Lock(t) },
	} {
		service := storetest.StartSecretService(t)
		spoil(t, service)
		w := newWorld(t, sandbox.Config{})
		w.useBus(service)
		w.start()
		r := w.run(w.pass, "bloq-agent", "login", "-p", "work", "--accounts-url", w.url, "--user", w.user, "--password-stdin")
		w.wants(r, map[string]int{"frozen": 5, "locked": 3}[name], "waiting for the keyring ("+name+")",
			map[string]string{"frozen": "", "locked": "unlock the keyring in your desktop session, or: "}[name]+
				"bloq-agent login -p work --accounts-url "+w.url+" --user "+w.user+" --password-stdin --store file")
	}
}
