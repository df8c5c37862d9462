package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// age makes every pending pair of client keys an old one, while no daemon runs.
func (w *world) age() {
	w.t.Helper()
	aged := regexp.MustCompile(`"since": "[^"]*"`).ReplaceAllString(w.state(), `"since": "2026-01-01T00:00:00Z"`)
	if err := os.WriteFile(filepath.Join(w.dir, "state", "bloq-agent", "profiles.json"), []byte(aged), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func TestAStateThatOthersCanReadIsClosed(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	w.stop()
	path := w.dir + "/state/bloq-agent/profiles.json"
	must(t, os.Chmod(path, 0o644))
	w.start("--store", "memory")
	fi, err := os.Stat(path)
	must(t, err)
	told := regexp.MustCompile(`"level":"warn".*was open to others, mode 0644; it is 0600 now`).MatchString(w.log.String())
	if fi.Mode().Perm() != 0o600 || !told {
		t.Errorf("mode %v, told %v\n%s", fi.Mode().Perm(), told, w.log.String())
	}
}

// A login that the daemon has taken over is none that left something behind,
// whatever becomes of the line that says so.
func TestALoginWhoseWordsAreLost(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	defer func() { _ = full.Close() }()
	cmd := w.command("bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin")
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(w.pass), full, &errs
	_ = cmd.Run() // its exit code is looked at
	w.wants(result{code: cmd.ProcessState.ExitCode(), stderr: errs.String()}, 1, "no space left on device", "")
	if strings.Contains(errs.String(), "client keys") {
		t.Errorf("%s", errs.String())
	}
	w.must("", "bloq-token")
}

// What a failed login left at one endpoint is no business of another: its "not
// found" must not strike it off the list.
func TestClientKeysAreDeletedWhereTheyWereMade(t *testing.T) {
	w, other := newWorld(t, sandbox.Config{}), newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.fault(sandbox.Fault{Route: "POST /auth/token", Grant: "clientCredentials", Times: 1, Kind: "status", Status: 503})
	r := w.run(w.pass, "bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin")
	w.wants(r, 5, "a later login deletes them", "bloq-agent login")
	id := strings.Fields(r.stderr[strings.Index(r.stderr, "client keys ")+len("client keys "):])[0]
	w.stop()
	w.age()
	w.start("--store", "memory")
	w.must(other.pass, "bloq-agent", "login", "--accounts-url", other.url, "--user", other.user, "--password-stdin")
	if n := other.api.Load().Stats().Routes["DELETE /users/me/client-keys/{id}"]; n != 0 {
		t.Error("another endpoint was asked to delete them")
	}
	if !strings.Contains(w.state(), id) {
		t.Fatalf("nobody knows of %s any more:\n%s", id, w.state())
	}
	w.login()
	if strings.Contains(w.state(), id) {
		t.Errorf("%s were not deleted by a login where they were made", id)
	}
	if n := w.api.Load().Stats().Routes["DELETE /users/me/client-keys/{id}"]; n != 1 {
		t.Errorf("deleted %d times", n)
	}
}
