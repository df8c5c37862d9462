package systemd

import (
	"strings"
	"testing"
	"time"
)

// What a restarted daemon has from systemd serves, when it can ask neither the
// endpoint nor the keyring.
func TestARestartWithNothingToAsk(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.userUnit("alice")
	// The keyring of alice, on her bus, opened with a password.
	h.must("alice", "systemd-run", "--user", "--quiet", "--unit=keyring", "--property=Type=dbus", "--property=BusName=org.freedesktop.secrets",
		"sh", "-c", "printf pass | exec gnome-keyring-daemon --foreground --unlock --components=secrets")
	u.systemctl("enable", "--now", "bloq-agent.socket")
	u.login("keyring")
	token := u.mustToken()
	if got := u.show("service", "NFileDescriptorStore"); got != "1" {
		t.Errorf("%s descriptors in the store", got)
	}
	h.must("root", "systemctl", "stop", "sandbox.service")
	h.must("alice", "systemctl", "--user", "stop", "keyring.service")
	// One that was given no password.
	h.must("alice", "systemd-run", "--user", "--quiet", "--unit=locked", "--property=Type=dbus", "--property=BusName=org.freedesktop.secrets",
		"gnome-keyring-daemon", "--foreground", "--components=secrets")
	for _, how := range [][]string{{"restart", "bloq-agent.service"}, {"kill", "-s", "KILL", "bloq-agent.service"}, {"daemon-reload"}, {"restart", "bloq-agent.service"}} {
		u.systemctl(how...)
		if got := u.mustToken(); got != token {
			t.Errorf("after %v: another token", how)
		}
	}
	h.install("1.0.1")
	if got := u.mustToken(); got != token {
		t.Error("after an upgrade: another token")
	}
	if status := h.run("alice", "", "bloq-agent", "status"); !strings.Contains(status.out, "locked") {
		t.Errorf("the keyring is not locked: %+v", status)
	}
	// A stop drops them.
	u.systemctl("stop", "bloq-agent.service")
	if r := u.token(); r.code == 0 {
		t.Error("a token after stop, with nothing to ask")
	}
}

func TestLockLogoutAndForgetEmptyTheStore(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.serving()
	for _, how := range []string{"lock", "logout"} {
		h.eventually(5*time.Second, "a token is kept", func() bool { return u.show("service", "NFileDescriptorStore") == "1" })
		h.must("alice", "bloq-agent", how)
		h.eventually(5*time.Second, "the store is empty after "+how, func() bool { return u.show("service", "NFileDescriptorStore") == "0" })
		if how == "lock" {
			h.must("alice", "bloq-agent", "unlock")
			u.mustToken()
		}
	}
}

// A daemon that hangs is replaced, and who waits for it is answered.
func TestAHangIsNoticed(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.userUnit("alice")
	u.quick()
	h.serving()
	time.Sleep(5 * time.Second) // more than two of its times, well fed
	if n := u.restarts(); n != 0 {
		t.Fatalf("%d restarts of a daemon that serves\n%s", n, h.journal())
	}
	u.systemctl("kill", "-s", "STOP", "bloq-agent.service")
	start := time.Now()
	u.mustToken()
	t.Logf("answered %v after the hang", time.Since(start).Round(10*time.Millisecond))
	if n := u.restarts(); n != 1 {
		t.Errorf("%d restarts", n)
	}
}
