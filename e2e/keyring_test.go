package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

// With a real Secret Service a login outlives the daemon, and its secrets are
// in clear nowhere.
func TestALoginInTheKeyringOutlivesTheDaemon(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	for _, kv := range service.Env {
		if strings.HasPrefix(kv, "DBUS_SESSION_BUS_ADDRESS=") {
			w.env = append(w.env, kv)
		}
	}
	w.start()
	w.login("--keep-client-secret")
	first := w.must("", "bloq-token").stdout
	w.must("", "bloq-agent", "refresh") // rotates: the keyring must hold the new one
	for range 2 {
		w.stop()
		w.start()
		if again := w.must("", "bloq-token").stdout; again == first || strings.Count(again, ".") != 2 {
			t.Errorf("after the restart: %q", again)
		}
	}
	if s := w.api.Load().Stats(); s.Issued.Account != 1 || s.Grants["clientCredentials"] != 1 || s.Reuse != 0 {
		t.Errorf("it took more than the one login: %+v", s)
	}
	if account := w.must("", "bloq-token", "--account").stdout; w.nodes(strings.TrimSpace(account)) != 200 {
		t.Error("the account token did not outlive the daemon")
	}
	keyrings, err := filepath.Glob(filepath.Join(service.Dir, "keyrings", "*.keyring"))
	if err != nil || len(keyrings) == 0 {
		t.Fatalf("no keyring was written: %v", err)
	}
	for _, path := range slices.Concat(keyrings, []string{w.dir + "/state/bloq-agent/profiles.json"}) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for secret, what := range w.secrets.all() {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds the %s in clear", path, what)
			}
		}
	}
	w.must("", "bloq-agent", "logout")
	w.stop()
	w.start()
	if r := w.run("", "bloq-token"); r.code != 3 {
		t.Errorf("after logout and a restart: %+v", r)
	}
}

// A bus of another user, by the environment that a person brings along (su,
// sudo -E): the refresh token does not go to that user's keyring, and the person
// reads why, and what to type instead.
func TestAnotherUsersKeyringGetsNoLogin(t *testing.T) {
	theirs := storetest.StartSecretServiceOf(t, ordinaryUser, "unix:abstract=")
	ours := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	clean := w.env
	name := strings.TrimPrefix(theirs.Address(), "unix:abstract=")
	sentence := "waiting for the keyring (D-Bus session not trusted): the bus at unix:abstract=" + name + " is served by another user (uid 65534)"
	args := []string{"login", "--accounts-url", w.url, "--user", w.user, "--password-stdin"}

	w.env = append(clean, "DBUS_SESSION_BUS_ADDRESS="+theirs.Address())
	w.start()
	hint := "bloq-agent: hint: bloq-agent " + strings.Join(args, " ") + " --store file\n"
	w.wants(w.run(w.pass, "bloq-agent", args...), 5, "bloq-agent: error: default: "+sentence, hint)
	if n := w.api.Load().Stats().Issued.Account; n != 0 {
		t.Errorf("%d passwords were spent on a login that could not be kept", n)
	}
	w.stop()

	w.env = append(clean, "DBUS_SESSION_BUS_ADDRESS="+ours.Address())
	w.start()
	w.login()
	w.stop()
	w.env = append(clean, "DBUS_SESSION_BUS_ADDRESS="+theirs.Address())
	w.start()
	if r := w.run("", "bloq-agent", "status"); !strings.Contains(r.stdout, "default: "+sentence) || !strings.Contains(r.stderr, "hint: bloq-agent login --store file --profile default\n") {
		t.Errorf("status says\n%s%s", r.stdout, r.stderr)
	}
	if n := theirs.Items(t); n != 0 {
		t.Errorf("another user's keyring holds %d items", n)
	}
	w.must(w.pass, "bloq-agent", append(args, "--store", "file")...) // as the hint says
	w.must("", "bloq-token")
}

func TestKeePassXCAsksForConsent(t *testing.T) {
	service := storetest.StartKeePassXC(t)
	w := newWorld(t, sandbox.Config{})
	w.useBus(service.SecretService)
	w.start()
	w.login()
	w.must("", "bloq-agent", "refresh")
	w.stop()
	w.start()
	const asking = "default: the keyring is asking for your consent: answer KeePassXC's window"
	w.wants(w.run("", "bloq-token"), 3, asking, "hint: allow bloq-agent in KeePassXC's window\n")
	events := w.events()
	service.Dismiss(t)
	w.await(events, "the refusal is noticed", func(e ipc.Event) bool {
		return e.Status != nil && strings.Contains(e.Status.LastError, "window was dismissed")
	})
	w.wants(w.run("", "bloq-agent", "unlock"), 3, asking, "hint: allow bloq-agent in KeePassXC's window\n")
	if n := service.Windows(t); n != 1 {
		t.Errorf("%d windows", n)
	}
	service.Allow(t)
	w.await(events, "the profile goes on by itself", func(e ipc.Event) bool { return e.Event == "refreshed" })
	w.must("", "bloq-token")
}
