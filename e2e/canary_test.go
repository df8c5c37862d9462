package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// Every secret of a run, down to parts of it, must be in no log at debug
// level, in no argv or environment, and in no file of ours, the items of the
// file store included: those are encrypted. The key alone lies in its file, and
// the token in the sinks that the configuration names, while there is a login.
func TestCanary(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: 2 * time.Second, Rotation: sandbox.Rotation{On: true}})
	sinks := t.TempDir()
	sink := filepath.Join(sinks, "x")
	w.configure("[[profile.default.sink]]\npath = \"" + sink + "\"\ncommand = [\"cat\", \"" + sink + "\"]\n")
	w.start("--store", "file")
	var said strings.Builder // what people see of commands that print no secret
	note := func(r result) { said.WriteString(r.stdout + r.stderr) }
	login := []string{"login", "--accounts-url", w.url, "--user", w.user, "--password-stdin", "--keep-client-secret"}
	note(w.run("x"+w.pass+"\n", "bloq-agent", login...))
	places := map[string][]byte{}
	note(w.watched(places, "bloq-agent login", func(stdin io.Writer) { _, _ = io.WriteString(stdin, w.pass+"\n") }, "bloq-agent", login...))
	events := w.events()
	for range 3 {
		e := <-events
		fmt.Fprint(&said, e)
	}
	w.fault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: 500, Body: w.pass, Times: 1})
	note(w.run("", "bloq-agent", "refresh"))
	note(w.run("", "bloq-agent", "refresh"))
	for _, form := range []string{"token", "header", "json"} {
		said.WriteString(w.must("", "bloq-token", form).stderr)
	}
	// The helper waits for a daemon that is frozen, and can be looked at.
	signal := func(s syscall.Signal) { must(t, w.daemon.Process.Signal(s)) }
	signal(syscall.SIGSTOP)
	said.WriteString(w.watched(places, "bloq-token", func(io.Writer) { signal(syscall.SIGCONT) }, "bloq-token").stderr)
	note(w.must("", "bloq-agent", "status"))
	note(w.must("", "bloq-agent", "status", "--json"))
	note(w.must("", "bloq-agent", "keys", "list"))
	signal(hup)
	addProcess(t, places, "the daemon", w.daemon.Process.Pid)
	key := w.key()
	w.secrets.add("key of the file store", key)
	addFiles(t, w.dir, "with a login: ", places)
	items, err := filepath.Glob(w.dir + "/state/bloq-agent/*.age")
	if err != nil || len(items) != 1 {
		t.Fatalf("items: %q, %v", items, err)
	}
	w.eventually("the sink", w.holdsToken(sink))
	note(w.must("", "bloq-agent", "logout", "--delete-keys"))
	w.stop()
	addFiles(t, w.dir, "after logout: ", places)
	addFiles(t, sinks, "after logout: ", places)

	secrets := w.secrets.all()
	if len(secrets) < 7 {
		t.Fatalf("only %d secrets in the run", len(secrets))
	}
	places["the daemon's log"] = []byte(w.log.String())
	places["what people see"] = []byte(said.String())
	places["a command line"] = []byte(fmt.Sprint(w.started))
	places["a program's environment"] = []byte(strings.Join(w.env, "\n"))
	if !w.log.contains(0, `"message":"request"`) || !strings.Contains(said.String(), "logged in as") {
		t.Error("the log is not at debug level, or the login's words are missing")
	}
	n := 0
	for secret, what := range secrets {
		for _, part := range parts(secret) {
			n++
			for place, content := range places {
				if bytes.Contains(content, []byte(part)) && (secret != key || filepath.Base(place) != "identity.txt") {
					t.Errorf("%s holds the %s", place, what)
				}
			}
		}
	}
	t.Logf("%d secrets in %d forms, looked for in %d places", len(secrets), n, len(places))
}

// key is the secret key of the file store.
func (w *world) key() string {
	w.t.Helper()
	b, err := os.ReadFile(w.dir + "/.local/share/bloq-agent/identity.txt")
	i := bytes.Index(b, []byte("AGE-SECRET-KEY-"))
	if err != nil || i < 0 {
		w.t.Fatalf("no key: %v", err)
	}
	return strings.TrimSpace(string(b[i:]))
}

// watched runs a program that waits for something until let lets it go on, and
// keeps what everybody can see of it meanwhile.
func (w *world) watched(places map[string][]byte, what string, let func(stdin io.Writer), name string, args ...string) result {
	w.t.Helper()
	cmd := w.command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	stdin, err := cmd.StdinPipe()
	must(w.t, err)
	must(w.t, cmd.Start())
	guard := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer guard.Stop()
	addProcess(w.t, places, what, cmd.Process.Pid)
	let(stdin)
	_ = stdin.Close() // the program may have ended
	if err := cmd.Wait(); err != nil {
		w.t.Fatalf("%s: %v\n%s", what, err, errs.String())
	}
	return result{0, out.String(), errs.String()}
}

// addProcess adds what a process was started with.
func addProcess(t *testing.T, places map[string][]byte, what string, pid int) {
	t.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if errors.Is(err, fs.ErrPermission) {
			continue // the daemon's is closed to all but root
		}
		if err != nil || len(b) == 0 {
			t.Fatalf("%s of %s: %q, %v", name, what, b, err)
		}
		places[name+" of "+what] = b
	}
}

// parts are the forms in which a secret would still be one.
func parts(secret string) []string {
	list := []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))}
	if i := strings.LastIndex(secret, "."); i > 0 { // a JWT without its signature is of no use, and so the other way
		list = append(list, secret[i+1:], secret[i+1:i+41])
	}
	return list
}

func addFiles(t *testing.T, dir, when string, places map[string][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		b, err := os.ReadFile(path)
		places[when+path] = b
		return ignoreMissing(err)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ignoreMissing is for temporary files of a daemon at work.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
