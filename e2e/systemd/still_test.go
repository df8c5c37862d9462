package systemd

import (
	"strings"
	"testing"
	"time"
)

// quick has the watchdog act in two seconds, so that nobody waits for it.
func (u unit) quick() { u.dropIn("quick", "[Service]\nWatchdogSec=2\n") }

// A journal that stands still keeps no request, no refresh and no watchdog waiting.
// When it goes on it has the lines that there was room for, and the number of the
// others.
func TestAJournalThatStandsStill(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.userUnit("alice")
	u.quick()
	u.configure("log_level = \"debug\"\n")
	h.serving()
	h.must("root", "systemctl", "kill", "-s", "STOP", "systemd-journald.service")
	l := u.loadOf()
	for range 5 { // seconds
		h.must("alice", "bloq-agent", "refresh")
		time.Sleep(time.Second)
	}
	u.end(l, "while the journal stands still")
	if n := u.restarts(); n != 0 {
		t.Errorf("%d restarts", n)
	}
	h.must("root", "systemctl", "kill", "-s", "CONT", "systemd-journald.service")
	h.eventually(20*time.Second, "the journal goes on", func() bool {
		return strings.Contains(u.log(), "part of the log is missing here")
	})
	t.Logf("%d lines are in the journal", strings.Count(u.log(), "\n"))
}
