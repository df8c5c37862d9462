package systemd

import (
	"strings"
	"testing"
	"time"
)

// Within both units, another user who has bound the port of a stopped endpoint is
// recognized, by netlink and by /proc.
func TestBothUnitsKnowWhoListensOnLoopback(t *testing.T) {
	t.Parallel()
	h := ready(t)
	alice, carol := h.serving(), h.systemUnit("carol")
	carol.systemctl("enable", "--now", "bloq-agent@carol.socket")
	carol.login("file")
	h.must("root", "systemctl", "stop", "sandbox.service")
	h.must("root", "systemd-run", "--quiet", "--unit=foreign", "--uid=bob", "bloq-sandbox", "serve", "--listen", "127.0.0.1:4000")
	h.eventually(10*time.Second, "bob listens", func() bool {
		return strings.Contains(h.run("root", "", "journalctl", "--no-pager", "-u", "foreign", "-o", "cat").out, "accounts_url")
	})
	says := "port 4000 on 127.0.0.1 belongs to another user (uid " + h.uid("bob") + "); nothing was sent"
	refused := func(how string) {
		t.Helper()
		for _, u := range []unit{alice, carol} {
			if r := h.run(u.user, "", "bloq-agent", "refresh"); r.code != 5 || !strings.Contains(r.err, says) {
				t.Errorf("%s, %s: %+v", u.user, how, r)
			}
		}
	}
	refused("by netlink")
	const withoutNetlink = "[Service]\nRestrictAddressFamilies=~AF_NETLINK\n"
	for _, u := range []unit{alice, carol} {
		u.dropIn("loopback", withoutNetlink)
		u.systemctl("restart", u.name+".service")
	}
	refused("by /proc")
	h.must("root", "systemctl", "stop", "foreign.service")
	h.startSandbox()
	for _, u := range []unit{alice, carol} {
		h.eventually(10*time.Second, "a refresh works again", func() bool { return h.run(u.user, "", "bloq-agent", "refresh").code == 0 })
		if r := h.run(u.user, "", "bloq-agent", "status"); strings.Contains(r.out, "loopback") {
			t.Errorf("%s: status doubts the answers: %s", u.user, r.out)
		}
	}
}
