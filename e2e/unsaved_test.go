package e2e

import (
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store/storetest"
)

// A rotated refresh token that no store has is the only good one. Lock refuses
// to wipe it, and the hint saves it.
func TestLockDoesNotWipeTheOnlyGoodToken(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.useBus(service)
	w.start()
	w.login()
	service.Lock(t)
	w.must("", "bloq-agent", "refresh")
	const hint = "bloq-agent store move --to file --profile default"
	w.wants(w.run("", "bloq-agent", "lock"), 5, "would lose the login", hint)
	w.must("", "bloq-token")
	w.must("", "bloq-agent", strings.Fields(hint)[1:]...)
	w.must("", "bloq-agent", "lock")
	w.wants(w.run("", "bloq-token"), 3, "locked", "bloq-agent unlock")
	w.must("", "bloq-agent", "unlock")
	w.must("", "bloq-agent", "refresh")
	if n := w.api.Load().Stats().Reuse; n != 0 {
		t.Errorf("%d refresh tokens used twice", n)
	}
}

// A stop cannot wait for ever. It says what it costs.
func TestAStopTellsOfALoginThatIsLost(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.useBus(service)
	w.start()
	w.login()
	w.stop()
	if strings.Contains(w.log.String(), "will be lost") {
		t.Error("a stop in good order tells of a loss")
	}
	w.start()
	w.login() // it is not known yet that this one rotates
	service.Lock(t)
	w.must("", "bloq-agent", "refresh")
	w.stop()
	for _, want := range []string{`"level":"error"`, "the login will be lost", "bloq-agent store move --to file --profile default", "keyring (locked)"} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, w.log.String())
		}
	}
}
