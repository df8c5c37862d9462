package main

import (
	"strings"
	"testing"

	"bloq-agent/ipc"
)

func TestTheStatusLineTellsThatListenersAreUnknown(t *testing.T) {
	const says = ", listeners on loopback unknown (nobody tells)"
	if line := hardeningLine(ipc.Hardening{Loopback: "nobody tells"}); !strings.HasSuffix(line, says) {
		t.Error(line)
	}
	if line := hardeningLine(ipc.Hardening{}); strings.Contains(line, "loopback") {
		t.Error(line)
	}
}
