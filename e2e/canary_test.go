package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// Every secret of a run, down to parts of it, must be in no log at debug
// level, in no argv or environment, and in no file but the store's.
func TestCanary(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: 2 * time.Second, Rotation: sandbox.Rotation{On: true}})
	w.start("--store", "memory")
	var said strings.Builder // what people see of commands that print no secret
	note := func(r result) { said.WriteString(r.stdout + r.stderr) }
	note(w.run("x"+w.pass+"\n", "bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin"))
	w.login("--keep-client-secret")
	events := w.events()
	for range 3 {
		e := <-events
		fmt.Fprint(&said, e)
	}
	_ = w.api.Load().AddFault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: 500, Body: w.pass, Times: 1})
	note(w.run("", "bloq-agent", "refresh"))
	note(w.run("", "bloq-agent", "refresh"))
	for _, form := range []string{"token", "header", "json"} {
		w.must("", "bloq-token", form)
	}
	note(w.must("", "bloq-agent", "status", "--json"))
	note(w.must("", "bloq-agent", "keys", "list"))
	_ = w.daemon.Process.Signal(hup)
	proc := fmt.Sprintf("/proc/%d/", w.daemon.Process.Pid)
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		said.Write(b)
	}
	note(w.must("", "bloq-agent", "logout", "--delete-keys"))
	w.stop()

	secrets := w.secrets.all()
	if len(secrets) < 6 {
		t.Fatalf("only %d secrets in the run", len(secrets))
	}
	places := map[string][]byte{
		"the daemon's log":        []byte(w.log.String()),
		"what people see":         []byte(said.String()),
		"a command line":          []byte(fmt.Sprint(w.started)),
		"a program's environment": []byte(strings.Join(w.env, "\n")),
	}
	addFiles(t, w.dir, places)
	n := 0
	for secret, what := range secrets {
		for _, part := range parts(secret) {
			n++
			for place, content := range places {
				if bytes.Contains(content, []byte(part)) {
					t.Errorf("%s holds the %s", place, what)
				}
			}
		}
	}
	t.Logf("%d secrets in %d forms, looked for in %d places", len(secrets), n, len(places))
}

// parts are the forms in which a secret would still be one.
func parts(secret string) []string {
	list := []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))}
	if i := strings.LastIndex(secret, "."); i > 0 { // a JWT without its signature is of no use, and so the other way
		list = append(list, secret[i+1:], secret[i+1:i+41])
	}
	return list
}

func addFiles(t *testing.T, dir string, places map[string][]byte) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		places[path] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
