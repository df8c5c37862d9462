package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"

	"golang.org/x/sys/unix"
)

// attack is the part of a test that another process plays: of the same user as
// the daemon, or of another. Its value says which.
const attack = "BLOQ_TEST_ATTACK"

// attacker runs this test binary as who, with the part what. Its output is the
// attacker's report.
func (w *world) attacker(who *syscall.Credential, what string, args ...string) *exec.Cmd {
	w.t.Helper()
	self := filepath.Join(bin, "attacker")
	if _, err := os.Stat(self); err != nil { // the test binary lies where only we can look
		b, err := os.ReadFile(os.Args[0])
		if err == nil {
			err = os.WriteFile(self, b, 0o755)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{attack + "=" + what}
	cmd.Dir = "/"
	if who != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	}
	return cmd
}

// attacks are the parts; TestMain plays one instead of running tests.
var attacks = map[string]func(args []string){
	"look into a process": lookIntoProcess,
}

// A look is what a program sees of another's inside.
type look map[string]string // :: way in → "", or why not

func lookIntoProcess(args []string) {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		panic(err)
	}
	proc := "/proc/" + args[0] + "/"
	seen := look{}
	note := func(way string, err error) {
		seen[way] = ""
		if err != nil {
			seen[way] = err.Error()
		}
	}
	for _, name := range []string{"environ", "maps", "auxv"} {
		b, err := os.ReadFile(proc + name)
		if err == nil && len(b) == 0 {
			err = errors.New("empty")
		}
		note(name, err)
	}
	_, err = os.ReadDir(proc + "fd")
	note("fd", err)
	_, err = os.Readlink(proc + "exe")
	note("exe", err)
	mem, err := os.Open(proc + "mem")
	note("mem", err)
	if err == nil {
		_ = mem.Close()
	}
	note("process_vm_readv", vmRead(pid))
	note("ptrace", traced(pid))
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		panic(err)
	}
}

// vmRead reads a word at an address where every program of Go's linker has its
// header, and the kernel looks at who asks before it looks at the address.
func vmRead(pid int) error {
	var word uint64
	local := syscall.Iovec{Base: (*byte)(unsafe.Pointer(&word)), Len: uint64(binary.Size(word))}
	remote := struct {
		base uintptr
		n    uint64
	}{0x400000, 8}
	_, _, errno := syscall.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func traced(pid int) error {
	err := syscall.PtraceAttach(pid)
	if err == nil {
		var status syscall.WaitStatus
		_, _ = syscall.Wait4(pid, &status, 0, nil)
		_ = syscall.PtraceDetach(pid)
	}
	return err
}

// A program of the daemon's own user can neither trace it nor read its memory,
// environment and descriptors. The sandbox, which does nothing against that,
// shows that the attacker knows how.
func TestAProgramOfTheSameUserCannotLookInside(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	w.start("--store", "memory")
	w.login()
	open := w.command("bloq-sandbox", "serve", "--listen", "127.0.0.1:0")
	must(t, open.Start())
	defer func() {
		_ = open.Process.Kill()
		_ = open.Wait()
	}()
	time.Sleep(200 * time.Millisecond) // until it has execed
	control := w.look(open.Process.Pid)
	daemon := w.look(w.daemon.Process.Pid)
	for way, refused := range daemon {
		if refused == "" {
			t.Errorf("the daemon can be looked into: %s", way)
		}
		if control[way] != "" {
			// Yama, or a container, forbids it whoever asks.
			t.Logf("%s proves nothing here: of an open process it says %s", way, control[way])
		}
	}
	t.Logf("%d ways to look inside were tried", len(daemon))
	if control["environ"] != "" || len(daemon) != 8 {
		t.Errorf("the attacker can't: %v", control)
	}
	w.must("", "bloq-token") // none of it did any harm
}

func (w *world) look(pid int) look {
	w.t.Helper()
	out, err := w.attacker(w.as, "look into a process", strconv.Itoa(pid)).Output()
	var seen look
	if err == nil {
		err = json.Unmarshal(out, &seen)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return seen
}

// A daemon that is killed by a signal leaves no core, though it may as far as
// the limit goes and GOTRACEBACK asks for one; and what Go prints about it
// holds no secret.
func TestACrashLeavesNoCoreAndNoSecret(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGABRT} {
		w := newWorld(t, sandbox.Config{})
		w.env = append(w.env, "GOTRACEBACK=crash")
		w.configure("landlock = false\n") // which would forbid the file
		w.start("--store", "memory")
		w.login("--keep-client-secret")
		w.must("", "bloq-token")
		w.allowCores(w.daemon.Process.Pid)
		must(t, w.daemon.Process.Signal(sig))
		_ = w.daemon.Wait()
		status := w.daemon.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.CoreDump() {
			t.Errorf("%v: %v", sig, w.daemon.ProcessState)
		}
		if !w.log.contains(0, "goroutine ") {
			t.Errorf("%v: no trace was printed: %s", sig, w.log.String())
		}
		err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasPrefix(d.Name(), "core") {
				t.Errorf("%v: %s is there", sig, path)
			}
			return err
		})
		must(t, err)
		for secret, what := range w.secrets.all() {
			for _, part := range parts(secret) {
				if w.log.contains(0, part) {
					t.Errorf("%v: the trace holds the %s", sig, what)
				}
			}
		}

		// The sandbox, started the same way, shows that cores are possible here.
		open := w.command("bloq-sandbox", "serve", "--listen", "127.0.0.1:0")
		must(t, open.Start())
		time.Sleep(200 * time.Millisecond)
		w.allowCores(open.Process.Pid)
		must(t, open.Process.Signal(sig))
		_ = open.Wait()
		if !open.ProcessState.Sys().(syscall.WaitStatus).CoreDump() {
			t.Logf("%v: nobody dumps core here, so this proves less", sig)
		}
	}
}

// allowCores raises the limit from outside, so that only the process's own
// refusal is left.
func (w *world) allowCores(pid int) {
	w.t.Helper()
	var limit unix.Rlimit
	must(w.t, unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &limit))
	limit.Cur = limit.Max
	must(w.t, unix.Prlimit(pid, unix.RLIMIT_CORE, &limit, nil))
}

// kernelHasLandlock asks it (landlock(7)).
func kernelHasLandlock() bool {
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0
}

// What the kernel holds is told, and a configuration without Landlock is
// obeyed.
func TestTheStatusTellsWhatHolds(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	w.start("--store", "memory")
	hardening := func() ipc.Hardening {
		t.Helper()
		var s ipc.Status
		must(t, json.Unmarshal([]byte(w.must("", "bloq-agent", "status", "--json").stdout), &s))
		return s.Hardening
	}
	h := hardening()
	if h.Dumpable || h.CoreLimit != 0 {
		t.Errorf("%+v", h)
	}
	if strings.HasPrefix(h.Landlock, "ABI ") {
		want := []string{w.dir + "/state/bloq-agent", w.dir + "/.local/share/bloq-agent", w.dir + "/bloq-agent"}
		if fmt.Sprint(h.Writable) != fmt.Sprint(want) {
			t.Errorf("it can write in %q, not %q", h.Writable, want)
		}
	} else if kernelHasLandlock() || !strings.HasPrefix(h.Landlock, "not in force: ") || len(h.Writable) != 0 {
		t.Errorf("%+v", h)
	}
	if text := w.must("", "bloq-agent", "status").stdout; !strings.Contains(text, "no core files") || !strings.Contains(text, h.Landlock) {
		t.Errorf("%s", text)
	}
	w.stop()
	w.configure("landlock = false\n")
	w.start("--store", "memory")
	if h := hardening(); !strings.Contains(h.Landlock, "landlock = false") || len(h.Writable) != 0 || h.Dumpable {
		t.Errorf("%+v", h)
	}
}
