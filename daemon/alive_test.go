package daemon

import "testing"

// The watchdog is fed while both loops turn, and while neither has been asked yet.
func TestTheWatchdogLooksAtBothLoops(t *testing.T) {
	accept, run := uint64(0), newPulse()
	look := alive(func() uint64 { return accept }, run.turns)
	for i, tt := range []struct {
		accepts, runs bool
		want          string
	}{
		{false, false, ""},
		{true, true, ""},
		{true, true, ""},
		{false, true, "the loop that accepts connections stands still"},
		{true, true, ""},
		{true, false, "the daemon's main loop stands still"},
		{true, true, ""},
	} {
		if tt.accepts {
			accept++
		}
		if tt.runs {
			<-run.asked
			run.count.Add(1)
		}
		got := ""
		if err := look(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("look %d: %q, want %q", i, got, tt.want)
		}
	}
}
