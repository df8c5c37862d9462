package store

import (
	"strings"
	"testing"

	"bloq-agent/userns"
	"bloq-agent/userns/usernstest"
)

// The state and the bus are our own, and could be anybody's.
func TestAStateThatCouldBeAnybodysIsRefused(t *testing.T) {
	if !usernstest.Inside(t) {
		return
	}
	if _, err := OpenProfiles(t.TempDir() + "/state"); err == nil || !strings.Contains(err.Error(), "/state may belong to another user: ") {
		t.Errorf("%v", err)
	}
	if ours(userns.Overflow) {
		t.Error("a bus is ours")
	}
}
