package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"bloq-agent/ipc"
	"bloq-agent/userns"
)

// ErrInUse says that a daemon serves the socket already.
var ErrInUse = errors.New("bloq-agent is already running")

// A DirError says why a directory cannot hold the socket.
type DirError struct {
	Dir    string
	Reason string
	// Repairable says that `chmod go-w` is all it takes.
	Repairable bool
}

func (e *DirError) Error() string { return "socket directory " + e.Dir + " " + e.Reason }

// Listen binds path. Its directory is made 0700 if it is not there; it must
// be ours and nobody else may write in it. A live daemon is never displaced; a
// dead one's socket is replaced. Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) {
	if len(path) > ipc.MaxPath {
		return nil, fmt.Errorf("%s: %w", path, ipc.ErrPathTooLong)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	if err := checkParent(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &owned{path: path, socket: l, lock: lock}, nil
}

func checkDir(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.IsDir():
		return &DirError{Dir: dir, Reason: "is not a directory"}
	case !ok || int(st.Uid) != os.Getuid() || userns.Unknown(st.Uid):
		return &DirError{Dir: dir, Reason: "belongs to another user"}
	case fi.Mode().Perm()&0o022 != 0:
		return &DirError{Dir: dir, Reason: "can be written by others", Repairable: fi.Mode()&os.ModeSticky == 0}
	}
	return nil
}

// checkParent: whoever can rename the directory away can put another in its
// place. The sticky bit (/tmp) forbids that to all but the parent's owner.
func checkParent(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Getuid() && st.Uid != 0 || userns.Unknown(st.Uid) {
		return &DirError{Dir: dir, Reason: "belongs to another user"}
	}
	if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&os.ModeSticky == 0 {
		return &DirError{Dir: dir, Reason: "can be written by others", Repairable: true}
	}
	return nil
}

// takeLock decides between daemons that start at the same moment: whoever
// holds the lock may take a socket that nobody answers on for a stale one.
// Without it, two could each see the other's as stale. The second lock is for its
// pid, which the kernel knows of that kind and not of flock's; nothing is written,
// so no pid is ever a dead one's.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if err == syscall.EWOULDBLOCK {
			err = inUse(f)
		} else {
			err = fmt.Errorf("locking %s: %w", path, err)
		}
		_ = f.Close()
		return nil, err
	}
	// Without it, the pid is not named.
	_ = syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_RDLCK})
	return f, nil
}

// inUse is ErrInUse with the process that holds the lock f, if the kernel tells.
func inUse(f *os.File) error {
	holder := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &holder); err != nil || holder.Type == syscall.F_UNLCK || holder.Pid <= 0 {
		return ErrInUse
	}
	return fmt.Errorf("%w (pid %d)", ErrInUse, holder.Pid)
}

func bind(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// chmod after bind would leave a moment in which others could connect. The
	// umask is the process's; nothing else runs yet when the daemon binds.
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is in the way and is no socket", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return ErrInUse
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
