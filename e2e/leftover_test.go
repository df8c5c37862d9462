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
			if w.status().Warning == "" || !strings.Contains(w.state(), `"leftover": "keyring"`) {
				t.Errorf("it is not remembered:\n%s", w.state())
			}
			w.wants(w.run("", "bloq-agent", "logout"), 3, left, "unlock the keyring")
			w.must("", "bloq-token")
			if strings.HasPrefix(name, "move, then") {
				r := w.run(w.pass, "bloq-agent", "login", "--store", "memory", "--user", w.user, "--password-stdin")
				w.wants(r, 3, left, "unlock the keyring")
			}
			service.Unlock(t)
			for deadline := time.Now().Add(20 * time.Second); strings.Contains(w.state(), "leftover"); {
				if time.Now().After(deadline) {
					t.Fatalf("it is not deleted:\n%s", w.log.String())
				}
			}
			if n := service.Items(t); n != 0 || w.status().Warning != "" {
				t.Errorf("%d items are left in the keyring", n)
			}
			w.must("", "bloq-token")
			w.must("", "bloq-agent", "logout")
		})
	}
}
