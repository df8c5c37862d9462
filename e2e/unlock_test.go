package e2e

import (
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store/storetest"
)

// The file store's key can be opened before any profile needs it: that is how
// one comes to.
func TestAPassphraseIsTriedWhoeverNeedsIt(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{})
	w.useBus(service)
	w.start()
	w.login()
	w.must("correct horse\n", "bloq-agent", "store", "protect", "--passphrase-stdin")
	login := []string{"login", "-p", "other", "--store", "file", "--accounts-url", w.url, "--user", w.user, "--password-stdin"}
	for _, then := range [][]string{login, {"store", "move", "-p", "default", "--to", "file"}} {
		w.stop()
		w.start()
		w.must("", "bloq-token", "-p", "default")
		w.wants(w.run(w.pass, "bloq-agent", then...), 3, "waiting for the file store (locked)", "bloq-agent unlock")
		w.wants(w.run("", "bloq-agent", "unlock"), 2, "no terminal", "--passphrase-stdin")
		w.wants(w.run("wrong\n", "bloq-agent", "unlock", "--passphrase-stdin"), 3, "wrong passphrase", "")
		w.must("correct horse\n", "bloq-agent", "unlock", "--passphrase-stdin")
		w.wants(w.run("wrong\n", "bloq-agent", "unlock", "--passphrase-stdin"), 3, "wrong passphrase", "")
		w.must(w.pass, "bloq-agent", then...)
		if then[0] == "login" {
			w.must("", "bloq-agent", "logout", "-p", "other")
		}
	}
}

// Unlock answers for what was locked, and for nothing else.
func TestUnlockJudgesWhatWasLocked(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start()
	w.login("-p", "kept", "--store", "file")
	w.login("-p", "lost", "--store", "memory")
	w.stop()
	w.start()
	w.wants(w.run("", "bloq-token", "-p", "lost"), 3, "needs login", "bloq-agent login --profile lost")
	w.must("", "bloq-agent", "unlock")
	w.must("", "bloq-agent", "lock")
	w.must("", "bloq-agent", "unlock")
	w.must("", "bloq-token", "-p", "kept")
	// If nothing of it is served, that is the answer.
	w.must("", "bloq-agent", "logout", "-p", "kept")
	w.must("", "bloq-agent", "lock")
	w.wants(w.run("", "bloq-agent", "unlock"), 3, "needs login", "bloq-agent login --profile lost")
}

// A frozen keyring is named within 6 s, whatever else waits for it, and unlock
// does not claim that it has worked.
func TestAFrozenKeyringIsNamedInTime(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{})
	w.useBus(service)
	w.start()
	w.login()
	w.stop()
	must(t, syscall.Kill(service.PID, syscall.SIGSTOP))
	w.start()
	for name, run := range map[string]func() result{
		"unlock": func() result { return w.run("", "bloq-agent", "unlock") },
		"login": func() result {
			return w.run(w.pass, "bloq-agent", "login", "--user", w.user, "--password-stdin")
		},
	} {
		start := time.Now()
		w.wants(run(), 5, "waiting for the keyring (frozen)", "bloq-agent")
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("%s: after %v", name, took)
		} else {
			t.Logf("%s: after %v", name, took.Round(time.Millisecond))
		}
		time.Sleep(1500 * time.Millisecond) // another try of the daemon's own begins
	}
	must(t, syscall.Kill(service.PID, syscall.SIGCONT))
	service.Lock(t)
	w.wants(w.run("", "bloq-agent", "unlock"), 3, "waiting for the keyring (locked)", "unlock the keyring")
	service.Unlock(t)
	w.must("", "bloq-agent", "unlock")
	w.must("", "bloq-token")
}
