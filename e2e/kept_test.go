package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/daemon/notifytest"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

// startUnder starts the daemon as systemd would: with what it holds for it.
func (w *world) startUnder(m *notifytest.Manager) {
	w.t.Helper()
	before := m.Said()
	w.daemon = w.command("bloq-agent")
	// Only the process itself knows the pid that systemd would have named.
	w.daemon.Path = "/bin/sh"
	w.daemon.Args = []string{
		"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, filepath.Join(bin, "bloq-agent"),
		"serve", "--log-level", "debug", "--log-format", "json",
	}
	w.daemon.Env = append(slices.Clone(w.env), "NOTIFY_SOCKET="+m.Path)
	if files := m.Held(w.t); len(files) > 0 {
		var names []string
		for _, f := range files {
			names = append(names, f.Name())
		}
		w.daemon.ExtraFiles = files
		w.daemon.Env = append(w.daemon.Env, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		defer func() {
			for _, f := range files {
				_ = f.Close()
			}
		}()
	}
	w.daemon.Stderr = &w.log
	if err := w.daemon.Start(); err != nil {
		w.t.Fatal(err)
	}
	daemon := w.daemon
	w.t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	m.Await(w.t, "READY=1", func(said []string) bool {
		return slices.ContainsFunc(said[before:], func(s string) bool { return strings.HasPrefix(s, "READY=1") })
	})
}

// kill ends the daemon without a word.
func (w *world) kill() {
	w.t.Helper()
	if err := w.daemon.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	_ = w.daemon.Wait() // killed
}

// With the endpoint away and the keyring locked, a daemon that was killed serves
// what it served before. Its tokens are dropped by lock, logout and nothing else.
func TestATokenOutlivesADaemonThatIsKilled(t *testing.T) {
	service := storetest.StartSecretService(t)
	m := notifytest.New(t, 3)
	w := newWorld(t, sandbox.Config{})
	w.useBus(service)
	w.startUnder(m)
	w.login()
	token := w.must("", "bloq-token").stdout
	m.Await(t, "the token is held", func([]string) bool { return len(m.Held(t)) == 1 })
	service.Lock(t)
	if err := w.api.Load().AddFault(sandbox.Fault{Route: "POST /auth/token", Kind: "hang"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.kill()
		w.startUnder(m)
		if again := w.must("", "bloq-token").stdout; again != token {
			t.Fatal("another token, although nothing could be had")
		}
	}
	if r := w.run("", "bloq-agent", "status"); r.code != ipc.ExitPerson || !strings.Contains(r.stdout, "locked") {
		t.Errorf("status: %+v", r)
	}
	w.must("", "bloq-agent", "lock")
	if n := len(m.Held(t)); n != 0 {
		t.Errorf("after lock systemd holds %d files", n)
	}
	w.kill()
	w.startUnder(m)
	if r := w.run("", "bloq-token"); r.code != ipc.ExitPerson {
		t.Errorf("after lock and a restart: %+v", r)
	}
}

// A restart in good order costs no exchange, and keeps the token's number.
func TestARestartCostsNoExchange(t *testing.T) {
	m := notifytest.New(t, 3)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.startUnder(m)
	w.login("--store", "file")
	w.must("", "bloq-agent", "refresh")
	before := w.must("", "bloq-token", "json").stdout
	for range 3 {
		w.stop()
		w.startUnder(m)
		if after := w.must("", "bloq-token", "json").stdout; generationOf(after) != generationOf(before) {
			t.Errorf("before: %safter: %s", before, after)
		}
	}
	if s := w.api.Load().Stats(); s.Grants["refreshToken"] != 1 {
		t.Errorf("three restarts cost %d exchanges", s.Grants["refreshToken"]-1)
	}
	w.must("", "bloq-agent", "refresh") // the rotated token is the one in the store
	w.must("", "bloq-agent", "logout")
	if n := len(m.Held(t)); n != 0 {
		t.Errorf("after logout systemd holds %d files", n)
	}
}

func generationOf(json string) string {
	_, rest, _ := strings.Cut(json, `"generation":`)
	n, _, _ := strings.Cut(rest, ",")
	return n
}

// The memory file holds an access token and nothing that is worth more.
func TestWhatSystemdHoldsIsAnAccessToken(t *testing.T) {
	m := notifytest.New(t, 3)
	w := newWorld(t, sandbox.Config{})
	w.startUnder(m)
	w.login("--store", "file", "--keep-client-secret")
	m.Await(t, "the token is held", func([]string) bool { return len(m.Held(t)) == 1 })
	f := m.Held(t)[0]
	defer func() { _ = f.Close() }()
	var held struct{ Profiles []struct{ Token []byte } }
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil || json.Unmarshal(text, &held) != nil || len(held.Profiles) != 1 {
		t.Fatalf("%v, %d bytes", err, len(text))
	}
	known := w.secrets.all()
	if what := known[string(held.Profiles[0].Token)]; what != "token of /auth/token" {
		t.Errorf("systemd holds a %q", what)
	}
	for secret, what := range known {
		encoded := base64.StdEncoding.EncodeToString([]byte(secret))
		if what != "token of /auth/token" && (bytes.Contains(text, []byte(secret)) || bytes.Contains(text, []byte(encoded))) {
			t.Errorf("systemd holds the %s", what)
		}
	}
}
