package systemd

import (
	"context"
	"strings"
	"testing"
	"time"
)

// Connections whose answers nobody reads, as many as the daemon holds, neither
// stop the helpers nor have the watchdog or the kernel kill the daemon.
func TestUnreadAnswersUnderTheWatchdog(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.serving()
	u.dropIn("watchdog", "[Service]\nWatchdogSec=2\n")
	u.systemctl("restart", "bloq-agent.service")
	u.mustToken()
	pid := u.show("service", "MainPID")
	for _, route := range []string{"/v1/events", "/v1/status"} {
		l := u.loadOf()
		ctx, stop := context.WithCancel(context.Background())
		var ends []func() error
		for range 8 {
			holder := h.command(ctx, "alice", "env", "BLOQ_E2E_INSIDE=hold", "inside", u.socketPath(), route)
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			ends = append(ends, holder.Wait)
		}
		time.Sleep(6 * time.Second) // three times the watchdog's
		if after := u.show("service", "MainPID"); after != pid {
			t.Errorf("%s: another daemon runs\n%s", route, h.journal())
		}
		for line := range strings.Lines(h.must("root", "cat", "/proc/"+pid+"/status")) {
			if strings.HasPrefix(line, "VmHWM") {
				t.Log(route, strings.TrimSpace(line))
			}
		}
		u.end(l, route+" unread by 512 connections")
		stop()
		for _, wait := range ends {
			_ = wait()
		}
	}
	u.mustToken()
	if after := u.show("service", "MainPID"); after != pid {
		t.Errorf("process %s, was %s", after, pid)
	}
}
