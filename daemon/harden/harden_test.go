//go:build linux

package harden

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is done to the process cannot be undone, so a child does it: the test
// of the same name, told so by this variable.
const role = "BLOQ_TEST_HARDEN"

func child(t *testing.T, dir string, env ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), role+"="+dir)
	cmd.Env = append(cmd.Env, env...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func needLandlock(t *testing.T) {
	t.Helper()
	if _, err := version(); err != nil {
		t.Skipf("needs Landlock: %v", err)
	}
}

func TestProcess(t *testing.T) {
	if os.Getenv(role) == "" {
		child(t, t.TempDir())
		return
	}
	var limit unix.Rlimit
	do(t, unix.Getrlimit(unix.RLIMIT_CORE, &limit))
	limit.Cur = limit.Max
	do(t, unix.Setrlimit(unix.RLIMIT_CORE, &limit))
	if now := Now(); !now.Dumpable || now.CoreLimit != limit.Cur {
		t.Errorf("before: %+v", now)
	}
	do(t, Process())
	after := func() {
		t.Helper()
		if now := Now(); now.Dumpable || now.CoreLimit != 0 {
			t.Errorf("after: %+v", now)
		}
	}
	after()
	for range 3 {
		cmd := exec.Command("sh", "-c", "ulimit -c; ulimit -Hc")
		var out strings.Builder
		cmd.Stdout = &out
		do(t, Start(cmd))
		do(t, cmd.Wait())
		if soft, hard, _ := strings.Cut(strings.TrimSpace(out.String()), "\n"); soft != hard {
			t.Errorf("a child has %s of %s", soft, hard)
		}
		after()
	}
}

func TestConfine(t *testing.T) {
	needLandlock(t)
	dir := os.Getenv(role)
	if dir == "" {
		child(t, t.TempDir())
		return
	}
	inside, outside := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	do(t, os.Mkdir(inside, 0o700))
	do(t, os.Mkdir(outside, 0o700))
	do(t, os.WriteFile(filepath.Join(outside, "old"), []byte("text"), 0o600))
	abi, err := Confine([]string{inside, filepath.Join(dir, "missing")})
	if err != nil || abi < 1 {
		t.Fatalf("ABI %d, %v", abi, err)
	}
	do(t, os.WriteFile(filepath.Join(inside, "new"), nil, 0o600))
	do(t, os.Rename(filepath.Join(inside, "new"), filepath.Join(inside, "newer")))
	do(t, os.MkdirAll(filepath.Join(inside, "a", "b"), 0o700))
	do(t, canWrite(os.DevNull))
	if b, err := os.ReadFile(filepath.Join(outside, "old")); err != nil || string(b) != "text" {
		t.Errorf("reading: %q, %v", b, err)
	}
	// Every thread is confined, those that are yet to come too.
	var threads sync.WaitGroup
	for i := range 20 {
		threads.Go(func() {
			runtime.LockOSThread()
			for name, err := range map[string]error{
				"make":     os.WriteFile(filepath.Join(outside, fmt.Sprint(i)), nil, 0o600),
				"write":    canWrite(filepath.Join(outside, "old")),
				"truncate": os.Truncate(filepath.Join(outside, "old"), 0),
				"remove":   os.Remove(filepath.Join(outside, "old")),
				"link":     os.Symlink("x", filepath.Join(outside, "link")),
				"mkdir":    os.Mkdir(filepath.Join(outside, "dir"), 0o700),
				"later":    os.Mkdir(filepath.Join(dir, "missing"), 0o700),
			} {
				if !errors.Is(err, fs.ErrPermission) && (abi >= 3 || name != "truncate") {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	threads.Wait()
	cmd := exec.Command("sh", "-c", "echo x 2>/dev/null >"+filepath.Join(outside, "x"))
	if err := cmd.Run(); err == nil {
		t.Error("a child can write elsewhere")
	}
}

// Where the daemon may have to make its socket again, it can make, write and remove no
// file.
func TestOnGroundNothingIsWrittenOrRemoved(t *testing.T) {
	needLandlock(t)
	ground := os.Getenv(role)
	if ground == "" {
		child(t, t.TempDir())
		return
	}
	old := filepath.Join(ground, "old")
	do(t, os.WriteFile(old, []byte("text"), 0o600))
	_, err := Confine([]string{filepath.Join(ground, "missing")}, ground, "")
	do(t, err)
	do(t, os.Mkdir(filepath.Join(ground, "dir"), 0o700))
	l, err := net.Listen("unix", filepath.Join(ground, "dir", "s"))
	do(t, err)
	defer func() { _ = l.Close() }()
	for name, err := range map[string]error{
		"write":  canWrite(old),
		"new":    os.WriteFile(filepath.Join(ground, "new"), []byte("x"), 0o600),
		"remove": os.Remove(old),
		"rename": os.Rename(old, filepath.Join(ground, "newer")),
		"link":   os.Symlink("x", filepath.Join(ground, "link")),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Where a filter lets Landlock's calls succeed and do nothing, or fail, Confine
// says that nothing holds.
func TestConfineTriesWhatItSays(t *testing.T) {
	needLandlock(t)
	filter := os.Getenv("BLOQ_TEST_FILTER")
	if os.Getenv(role) == "" {
		for name, filter := range map[string]string{"fails": "444:1 445:1 446:1", "does nothing": "445:0 446:0", "fails late": "446:1"} {
			t.Run(name, func(t *testing.T) {
				self, err := os.Executable()
				do(t, err)
				cmd := exec.Command(self, "-test.run=^TestConfineTriesWhatItSays$")
				cmd.Env = append(os.Environ(), role+"="+t.TempDir(), "BLOQ_TEST_FILTER="+filter)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		return
	}
	refuse(t, strings.Fields(filter))
	_, err := Confine([]string{os.Getenv(role)})
	if err == nil {
		t.Fatal("it says that it holds")
	}
	do(t, canWrite(probe))
	if strings.HasPrefix(filter, "444") && !strings.Contains(err.Error(), "filter") {
		t.Errorf("%v", err)
	}
}

// refuse installs a seccomp filter on all threads: each of calls is a number
// and the errno to answer (seccomp(2)).
func refuse(t *testing.T, calls []string) {
	t.Helper()
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for _, c := range calls {
		var nr, errno uint32
		if _, err := fmt.Sscanf(c, "%d:%d", &nr, &errno); err != nil {
			t.Fatal(err)
		}
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	runtime.LockOSThread()
	do(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		t.Skipf("no seccomp: %v", errno)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
