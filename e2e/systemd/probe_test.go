package systemd

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// probe tries to look into the process pid in all the ways that there are, and
// prints one line for each: the way, and what the kernel said.
func probe(of string) int {
	pid, err := strconv.Atoi(of)
	if err != nil {
		return 2
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	_, err = os.ReadFile(dir + "environ")
	fmt.Println("environ:", err)
	_, err = os.ReadDir(dir + "fd")
	fmt.Println("fd:", err)
	_, err = os.ReadFile(dir + "maps")
	fmt.Println("maps:", err)
	mem, err := os.Open(dir + "mem")
	if err == nil {
		_ = mem.Close()
	}
	fmt.Println("mem:", err)
	fmt.Println("process_vm_readv:", readWord(pid))
	err = syscall.PtraceAttach(pid)
	if err == nil {
		var status syscall.WaitStatus
		_, _ = syscall.Wait4(pid, &status, 0, nil)
		_ = syscall.PtraceDetach(pid)
	}
	fmt.Println("ptrace:", err)
	return 0
}

// readWord reads where every program of Go's linker has its header.
func readWord(pid int) error {
	var word uint64
	local := syscall.Iovec{Base: (*byte)(unsafe.Pointer(&word)), Len: 8}
	remote := struct{ base, n uint64 }{0x400000, 8}
	_, _, errno := syscall.Syscall6(310, uintptr(pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0) // process_vm_readv
	if errno != 0 {
		return errno
	}
	return nil
}

// A program of the daemon's own user looks into it, in the user unit and in the
// system unit. The sandbox of the same user, which does nothing against that,
// shows that it knows how.
func TestNobodyLooksIntoEitherUnit(t *testing.T) {
	t.Parallel()
	h := ready(t)
	user, system := h.serving(), h.systemUnit("carol")
	system.systemctl("enable", "--now", "bloq-agent@carol.socket")
	system.login("file")
	h.must("alice", "systemd-run", "--user", "--quiet", "--unit=open", "bloq-sandbox", "serve", "--listen", "127.0.0.1:0")
	open := strings.TrimSpace(h.must("alice", "systemctl", "--user", "show", "--property=MainPID", "--value", "open.service"))
	h.eventually(5*time.Second, "the sandbox runs its own program", func() bool {
		return strings.Contains(h.run("alice", "", "readlink", "/proc/"+open+"/exe").out, "bloq-sandbox")
	})
	control := h.must("alice", "env", "BLOQ_E2E_INSIDE=probe", "inside", open)
	for who, unit := range map[string]unit{"alice": user, "carol": system} {
		pid := unit.show("service", "MainPID")
		for line := range strings.Lines(h.must(who, "env", "BLOQ_E2E_INSIDE=probe", "inside", pid)) {
			way, said, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if !strings.HasSuffix(said, "permission denied") && !strings.HasSuffix(said, "operation not permitted") {
				t.Errorf("%s looks into the daemon by %s", who, way)
			}
			if !strings.Contains(control, way+": <nil>") {
				t.Errorf("of an open process %s says the same: the probe proves nothing\n%s", way, control)
			}
			t.Logf("%s, process %s: %s: %s", who, pid, way, said)
		}
	}
}
