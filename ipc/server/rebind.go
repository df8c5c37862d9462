package server

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// owned holds the lock for as long as the socket lives. The lock's file stays:
// removing it would let a third daemon lock a new one of the same name.
type owned struct {
	path string

	mu     sync.Mutex
	socket *net.UnixListener
	lock   *os.File
	closed bool
}

func (o *owned) current() *net.UnixListener {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.socket
}

// Accept goes on with the socket that Rebind has made.
func (o *owned) Accept() (net.Conn, error) {
	for {
		l := o.current()
		c, err := l.Accept()
		if err == nil || l == o.current() {
			return c, err
		}
	}
}

func (o *owned) Addr() net.Addr { return o.current().Addr() }

// SetDeadline is for the guard's nudge.
func (o *owned) SetDeadline(t time.Time) error { return o.current().SetDeadline(t) }

func (o *owned) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return errors.Join(o.socket.Close(), o.lock.Close())
}

// Rebind binds the path again after its socket, or the directory of that, was
// removed. It makes the directory, but none above, and checks what Listen checks.
func (o *owned) Rebind() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return net.ErrClosed
	}
	dir := filepath.Dir(o.path)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := errors.Join(checkDir(dir), checkParent(filepath.Dir(dir))); err != nil {
		return err
	}
	lock, err := o.relock()
	if err != nil {
		return err
	}
	l, err := rebind(o.path)
	if err != nil {
		if lock != o.lock {
			_ = lock.Close()
		}
		return err
	}
	o.socket.SetUnlinkOnClose(false) // its path is the new one's
	_ = o.socket.Close()             // nobody can reach it
	if lock != o.lock {
		_ = o.lock.Close()
	}
	o.socket, o.lock = l, lock
	return nil
}

// relock is the lock that is held, if its file is still there, else a new one. A
// confined daemon may make no file in a directory that came later. It may remove
// none there either, so it takes no socket for a stale one.
func (o *owned) relock() (*os.File, error) {
	held, err := o.lock.Stat()
	if err != nil {
		return nil, err
	}
	if there, err := os.Lstat(o.path + ".lock"); err == nil && os.SameFile(held, there) {
		return o.lock, nil
	}
	lock, err := takeLock(o.path + ".lock")
	if errors.Is(err, os.ErrPermission) {
		return o.lock, nil
	}
	return lock, err
}

// rebind does not touch the umask, as bind does: by now other goroutines make files.
// The daemon's own umask closes the socket to others until chmod does.
func rebind(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}
