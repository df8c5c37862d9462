// Package usernstest runs a test where nobody can be told from ourselves.
package usernstest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"bloq-agent/userns"
)

const inside = "BLOQ_TEST_USERNS"

// Inside is true in a process that has the number of the unknown users, in a user
// namespace that knows no other. Where it is false, that process runs this same
// test, and has done so when Inside returns.
func Inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		if os.Getuid() != userns.Overflow {
			t.Fatalf("we are user %d", os.Getuid())
		}
		t.Log("inside")
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a user namespace")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Dir = "/"
	cmd.Env = []string{inside + "=1", "GORACE=atexit_sleep_ms=0"}
	one := []syscall.SysProcIDMap{{ContainerID: userns.Overflow, HostID: 1000, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one,
		Credential: &syscall.Credential{Uid: userns.Overflow, Gid: userns.Overflow, NoSetGroups: true},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}
