package e2e

import (
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store/storetest"
)

// Whatever takes a login out of a keyring that cannot be had says that a copy is
// left there, remembers it, and deletes it as soon as the keyring is back.
func TestACopyThatIsLeftIsNamedUntilItIsGone(t *testing.T) {
	const left = "a copy of the login is left in the keyring"
	for name, tt := range map[string]struct {
		restart bool // with the keyring locked: the daemon does not have the login
		args    []string
	}{
		"move":                  {false, []string{"store", "move", "--to", "file"}},
		"login":                 {false, []string{"login", "--store", "file"}},
		"login while it waits":  {true, []string{"login", "--store", "file"}},
		"a login that forgets":  {true, []string{"login", "--store", "memory"}},
		"move, then to a third": {false, []string{"store", "move", "--to", "file"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := storetest.StartSecretService(t)
			w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
			w.useBus(service)
			w.start()
			w.login()
			service.Lock(t)
			if tt.restart {
				w.stop()
				w.start()
			}
			if tt.args[0] == "login" {
				tt.args = append(tt.args, "--user", w.user, "--password-stdin")
			}
			if r := w.must(w.pass, "bloq-agent", tt.args...); !strings.Contains(r.stderr, "warning: "+left) {
				t.Errorf("nothing is said: %+v", r)
			}
			if w.status().Warning == "" || !w.remembers("keyring") {
				t.Errorf("it is not remembered:\n%s", w.state())
			}
			w.must("", "bloq-token")
			if strings.HasPrefix(name, "move, then") {
				r := w.must(w.pass, "bloq-agent", "login", "--store", "memory", "--user", w.user, "--password-stdin")
				if !strings.Contains(r.stderr, "warning: "+left) || !w.remembers("keyring") || w.remembers("file") {
					t.Errorf("%+v\n%s", r, w.state())
				}
			}
			service.Unlock(t)
			w.forgetsLeftovers()
			if n := service.Items(t); n != 0 || w.status().Warning != "" {
				t.Errorf("%d items are left in the keyring", n)
			}
			w.must("", "bloq-token")
			w.must("", "bloq-agent", "logout")
		})
	}
}

// remembers reports whether the record names a copy in the store.
func (w *world) remembers(store string) bool {
	_, list, _ := strings.Cut(w.state(), `"leftovers": [`)
	list, _, _ = strings.Cut(list, "]")
	return strings.Contains(list, store)
}

// forgetsLeftovers waits until no copy is on record any more.
func (w *world) forgetsLeftovers() {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); strings.Contains(w.state(), "leftover"); {
		if time.Now().After(deadline) {
			w.t.Fatalf("it is not deleted:\n%s", w.log.String())
		}
	}
}

// A logout always ends the login, over restarts too, whether or not its secrets can
// be deleted now.
func TestALogoutEndsTheLoginWhateverTheStoreSays(t *testing.T) {
	for name, restart := range map[string]bool{"the daemon goes on": false, "a restart in between": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := storetest.StartSecretService(t)
			w := newWorld(t, sandbox.Config{})
			w.useBus(service)
			w.start()
			w.login()
			service.Lock(t)
			const left = "logged out, but a copy of the login is left in the keyring"
			w.wants(w.run("", "bloq-agent", "logout"), 5, left, "bloq-agent logout --profile default")
			w.wants(w.run("", "bloq-token"), 3, "needs login", "bloq-agent login --profile default")
			if restart {
				w.stop()
				w.start()
				w.wants(w.run("", "bloq-token"), 3, "needs login", "bloq-agent login --profile default")
			}
			if r := w.run("", "bloq-agent", "status", "--json"); !strings.Contains(r.stdout, "a copy of the login is left in the keyring") || !w.remembers("keyring") {
				t.Errorf("it is not remembered:\n%s%s", r.stdout, w.state())
			}
			service.Unlock(t)
			w.forgetsLeftovers()
			if n := service.Items(t); n != 0 {
				t.Errorf("%d items are left in the keyring", n)
			}
		})
	}
}

// A move that fails because there is no keyring leaves nothing behind: no copy is
// on record that never existed.
func TestAMoveToAKeyringThatIsNotThereLeavesNothing(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "file")
	w.login()
	if r := w.run("", "bloq-agent", "store", "move", "--to", "keyring"); r.code == 0 {
		t.Fatalf("there is no keyring: %+v", r)
	}
	if w.status().Warning != "" || strings.Contains(w.state(), "leftover") {
		t.Errorf("a copy that never existed is on record:\n%s", w.state())
	}
	w.must("", "bloq-token")
	r := w.must("", "bloq-agent", "logout", "--delete-keys")
	forgot, deleted := strings.Index(r.stdout, "forgot"), strings.Index(r.stdout, "deleted client keys")
	if forgot < 0 || deleted < forgot {
		t.Errorf("the keys are deleted last: %s", r.stdout)
	}
	w.wants(w.run("", "bloq-token"), 3, "nobody has logged in yet", "bloq-agent login")
}
