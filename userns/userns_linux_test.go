package userns_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"bloq-agent/userns"
	"bloq-agent/userns/usernstest"
)

func TestWhoIsUnknownInAUserNamespace(t *testing.T) {
	if !usernstest.Inside(t) {
		return
	}
	if !userns.Unknown(uint32(os.Getuid())) {
		t.Error("we are told from all others")
	}
	for _, uid := range []uint32{0, 1000, userns.Overflow - 1} {
		if userns.Unknown(uid) {
			t.Errorf("%d is unknown", uid)
		}
	}
}

func TestOutsideOfAUserNamespaceAllUsersAreKnown(t *testing.T) {
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(users))
	outside := slices.Equal(fields, []string{"0", "0", "4294967295"})
	if userns.Unknown(userns.Overflow) == outside {
		t.Errorf("with %q", users)
	}
}
