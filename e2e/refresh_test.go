package e2e

import (
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// A refresh in a loop costs three exchanges, and then one every 5 s. The command
// reports the token that there is, and does not fail.
func TestARefreshInALoop(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	before, start := w.api.Load().Stats().Grants["refreshToken"], time.Now()
	for range 500 {
		w.refreshNow()
	}
	took := time.Since(start)
	n := w.api.Load().Stats().Grants["refreshToken"] - before
	t.Logf("%d exchanges in %v", n, took.Round(time.Millisecond))
	if n < 3 || n > 3+int(took/(5*time.Second)) {
		t.Errorf("%d exchanges in %v", n, took)
	}
	w.eventually("a refresh that is skipped", func() bool {
		out := w.must("", "bloq-agent", "refresh").stdout
		return strings.HasPrefix(out, "default was refreshed ") && strings.Contains(out, " s ago; access token good until ")
	})
	w.must("", "bloq-token")
}
