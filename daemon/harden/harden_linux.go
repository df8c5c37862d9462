package harden

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// started is the limit of core files that the process was started with.
var started struct {
	sync.Mutex
	core unix.Rlimit
	set  bool
}

// Process is to be called before there is anything to read.
func Process() error {
	// ptrace, process_vm_readv, /proc/PID/{mem,environ,fd} and core dumps all ask
	// for it (ptrace(2), core(5)). execve sets it back.
	err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	started.Lock()
	defer started.Unlock()
	if e := unix.Getrlimit(unix.RLIMIT_CORE, &started.core); e != nil {
		return errors.Join(err, e)
	}
	started.set = true
	return errors.Join(err, limitCore(0))
}

// limitCore sets the soft limit alone, so that it can be given back.
func limitCore(soft uint64) error {
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: soft, Max: started.core.Max})
}

// Start starts cmd with the limits that this process was started with. What
// Landlock forbids stays forbidden to it.
func Start(cmd *exec.Cmd) error {
	started.Lock()
	defer started.Unlock()
	if !started.set {
		return cmd.Start()
	}
	// A child takes its limits from us. We leave no core in between: that takes
	// a process that is dumpable.
	if err := limitCore(started.core.Cur); err != nil {
		return err
	}
	defer func() { _ = limitCore(0) }() // it was possible before
	return cmd.Start()
}

// Now is what holds.
func Now() State {
	var s State
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	s.Dumpable = err != nil || dumpable != 0
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		core.Cur = math.MaxUint64
	}
	s.CoreLimit = core.Cur
	s.UserNamespace = userNamespace()
	return s
}

// userNamespace reads once, since only the process itself could change it.
var userNamespace = sync.OnceValue(func() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
})

// probe is a file that everybody may write and that nothing happens to.
const probe = "/dev/zero"

// Confine forbids this process, and all that it starts, to write anything but
// beneath those of dirs that are there, and to /dev/null. Beneath grounds it may make
// sockets and directories. Reading stays open. It cannot be undone. Abi
// is that of the kernel's Landlock.
func Confine(dirs []string, grounds ...string) (abi int, err error) {
	abi, err = version()
	if err != nil {
		return 0, err
	}
	writable := canWrite(probe)
	// V5 and not the newest: later ones would also forbid to connect to sockets
	// and to signal, which the keyring and the notify socket need. Rights that an
	// older kernel does not know are left out.
	err = landlock.V5.BestEffort().RestrictPaths(
		landlock.RODirs("/"), landlock.RWDirs(dirs...).IgnoreIfMissing(),
		landlock.PathAccess(makeOnly, named(grounds)...).IgnoreIfMissing(), landlock.RWFiles(os.DevNull))
	if err != nil {
		return 0, fmt.Errorf("landlock: %w", err)
	}
	// It returns nil, too, where a system-call filter let nothing happen.
	if writable != nil {
		return 0, fmt.Errorf("it cannot be tried: %w", writable)
	}
	if err := canWrite(probe); !errors.Is(err, fs.ErrPermission) {
		return 0, fmt.Errorf("%s can be written all the same", probe)
	}
	return abi, nil
}

// makeOnly lets nobody make, write or remove a file.
const makeOnly = ll.AccessFSMakeSock | ll.AccessFSMakeDir

func named(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return path == "" })
}

func canWrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// version is the ABI of Landlock, or why there is none (landlock(7)).
func version() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return int(abi), nil
	case syscall.ENOSYS:
		return 0, errors.New("this kernel has no Landlock")
	case syscall.EOPNOTSUPP:
		return 0, errors.New("this kernel has Landlock, but not enabled")
	case syscall.EPERM:
		return 0, errors.New("a system-call filter forbids Landlock")
	}
	return 0, errno
}
