package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

// Who has mended what the endpoint complained of says so by a reload, and does
// not wait half an hour.
func TestAReloadLiftsAConfigurationVerdict(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("log_level = \"info\"\n")
	w.start()
	w.login("--store", "file")
	w.fault(sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 401, Body: `{"error":"invalid_client"}`})
	w.run("", "bloq-agent", "refresh")
	if s := w.status(); s.State != ipc.StateConfiguration {
		t.Fatalf("state %s: %s", s.State, s.LastError)
	}
	w.api.Load().ClearFaults()
	events := w.events()
	must(t, w.daemon.Process.Signal(hup))
	w.await(events, "an exchange after the reload", func(e ipc.Event) bool { return e.Event == "recovered" })
}

// While a rotated refresh token is in memory alone, a configuration that names
// another origin must not be the end of it.
func TestAReloadDoesNotDropAnUnsavedToken(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.useBus(service)
	w.configure("")
	// The access token ends within five minutes, so that a broken store does not
	// hold the exchange back.
	w.setSandbox(func(c *sandbox.Config) { c.AccessTTL = 2 * time.Minute })
	w.start()
	w.login()
	w.must("", "bloq-agent", "refresh")
	service.Lock(t)
	w.must("", "bloq-agent", "refresh")
	if !w.status().Unsaved {
		t.Fatal("the rotated token is saved in a locked keyring")
	}
	events := w.events()
	reload := func(text string) {
		w.configure(text)
		must(t, w.daemon.Process.Signal(hup))
		w.await(events, "the reload", isReload)
	}
	reload("[profile.default]\ntoken_url = \"https://localhost:1/auth/token\"\n")
	w.logged("before its refresh token is saved")
	reload("[profile.default]\n")
	service.Unlock(t)
	w.await(events, "the save", func(e ipc.Event) bool {
		return e.Event == "saved" || e.Status != nil && e.Event == "refreshed" && !e.Status.Unsaved
	})
	w.must("", "bloq-agent", "refresh")
	if n := w.api.Load().Stats().Reuse; n != 0 {
		t.Errorf("%d spent tokens used again", n)
	}
}

// An ordinary restart after an outage that was only that says nothing of lost
// replies.
func TestARestartAfterAnOutageIsSilent(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start()
	w.login("--store", "file")
	w.fault(sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 429})
	w.run("", "bloq-agent", "refresh")
	w.stop()
	w.api.Load().ClearFaults()
	w.start()
	w.must("", "bloq-token")
	if w.log.contains(0, "may have been lost") {
		t.Errorf("a warning without a reason:\n%s", w.log.String())
	}
}

// The end of a login is in the status, the log and the events, also where nobody
// has typed a command: a systemd credential.
func TestTheEndOfALoginIsTold(t *testing.T) {
	w := newWorld(t, sandbox.Config{RefreshTTL: 10 * 24 * time.Hour})
	w.start()
	w.login("--store", "file")
	events := w.events()
	w.must("", "bloq-agent", "refresh")
	w.await(events, "login ends", func(e ipc.Event) bool { return e.Event == "refreshed" }) // after it was told
	end := w.status().RefreshExpiry
	if d := time.Until(end); d < 9*24*time.Hour || d > 10*24*time.Hour {
		t.Errorf("the login ends in %v", d)
	}
	if n := strings.Count(w.log.String(), "the login ends in 9 days; bloq-agent login --profile default"); n != 1 {
		t.Errorf("the log says it %d times:\n%s", n, w.log.String())
	}
	w.stop()
	refresh := ""
	for secret, what := range w.secrets.all() {
		if what == "refresh token" {
			refresh = secret
		}
	}
	credentials := t.TempDir()
	must(t, os.WriteFile(credentials+"/bloq-agent.robot.refresh-token", []byte(refresh+"\n"), 0o400))
	w.configure("[profile.robot]\naccounts_url = \"" + w.url + "\"\n")
	w.env = append(w.env, "CREDENTIALS_DIRECTORY="+credentials)
	w.start()
	w.must("", "bloq-token", "-p", "robot")
	w.await(w.events(), "the end of a credential", func(e ipc.Event) bool {
		return e.Profile == "robot" && !e.Status.RefreshExpiry.IsZero()
	})
	w.must("", "bloq-agent", "refresh", "-p", "robot")
	if !w.log.contains(0, "the login ends in 9 days; bloq-agent login --profile robot") {
		t.Errorf("the end of a credential is not told:\n%s", w.log.String())
	}
}

// Clocks that differ are told of once, and break nothing.
func TestSkewIsTold(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead of": 2 * time.Minute, "behind": -time.Hour} {
		w := newWorld(t, sandbox.Config{Now: func() time.Time { return time.Now().Add(off) }})
		w.start()
		w.login("--store", "file")
		for range 3 {
			w.must("", "bloq-agent", "refresh")
		}
		w.must("", "bloq-token", "--min-ttl", "25m")
		if got := time.Duration(w.status().ClockSkew) * time.Second; got < off-5*time.Second || got > off+5*time.Second {
			t.Errorf("status says %v, want %v", got, off)
		}
		if r := w.must("", "bloq-agent", "status"); !strings.Contains(r.stdout, name+" this machine's") {
			t.Errorf("status: %s", r.stdout)
		}
		if n := strings.Count(w.log.String(), "the clock of the endpoint"); n != 1 {
			t.Errorf("told %d times", n)
		}
		t.Logf("a clock %v off: %d exchanges, all granted", off, w.status().Exchanges)
	}
}
