package main

import (
	"math"
	"strings"
	"testing"

	"bloq-agent/ipc"
)

func TestTheNoteOnClocksThatDiffer(t *testing.T) {
	for seconds, want := range map[int64]string{
		0: "", 30: "", -30: "", 90: "is 1m30s ahead of", -3600: "is 1h0m0s behind",
		100 * 365 * 86400: "is more than a year ahead of", -56 * 365 * 86400: "is more than a year behind",
		math.MaxInt64: "is more than a year ahead of", math.MinInt64: "is more than a year behind",
	} {
		got := strings.Join(notes(ipc.ProfileStatus{Profile: "work", ClockSkew: seconds}), "\n")
		if want != "" {
			want = "work: the endpoint's clock " + want + " this machine's"
		}
		if got != want {
			t.Errorf("%d s: %q, want %q", seconds, got, want)
		}
	}
}

func TestTheStatusLineTellsThatListenersAreUnknown(t *testing.T) {
	const says = ", listeners on loopback unknown (nobody tells)"
	if line := hardeningLine(ipc.Hardening{Loopback: "nobody tells"}); !strings.HasSuffix(line, says) {
		t.Error(line)
	}
	if line := hardeningLine(ipc.Hardening{}); strings.Contains(line, "loopback") {
		t.Error(line)
	}
}
