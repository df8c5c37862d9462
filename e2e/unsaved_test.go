package e2e

import (
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store/storetest"
)

// A rotated refresh token that no store has is the only good one. Lock keeps it in
// memory and says so.
func TestLockDoesNotWipeTheOnlyGoodToken(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.useBus(service)
	w.start()
	w.login()
	service.Lock(t)
	w.must("", "bloq-agent", "refresh")
	const held = "its refresh token stays in memory, because nothing else has it"
	if r := w.must("", "bloq-agent", "lock"); !strings.Contains(r.stderr, held) {
		t.Errorf("%+v", r)
	}
	w.wants(w.run("", "bloq-token"), 3, "locked", "bloq-agent unlock")
	w.must("", "bloq-agent", "unlock") // the keyring is locked still
	w.must("", "bloq-token")
	service.Unlock(t)
	w.must("", "bloq-agent", "lock")
	w.must("", "bloq-agent", "unlock")
	w.must("", "bloq-agent", "refresh")
	if n := w.api.Load().Stats().Reuse; n != 0 {
		t.Errorf("%d refresh tokens used twice", n)
	}
}

// A stop cannot wait for ever. It says what it costs.
func TestAStopTellsOfALoginThatIsLost(t *testing.T) {
	for _, lost := range []bool{false, true} {
		service := storetest.StartSecretService(t)
		w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
		w.useBus(service)
		w.start()
		w.login() // it is not known yet that the endpoint rotates
		if lost {
			service.Lock(t)
		}
		w.must("", "bloq-agent", "refresh")
		w.stop()
		for _, want := range []string{`"level":"error"`, "the login will be lost", "bloq-agent store move --to file --profile default", "keyring (locked)"} {
			if strings.Contains(w.log.String(), want) != lost {
				t.Errorf("lost %v, and the log says %q, or not:\n%s", lost, want, w.log.String())
			}
		}
	}
}
