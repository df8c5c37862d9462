package server

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/ipc"
)

func TestListenMakesItPrivateUnderAnyUmask(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(shortDir(t), "a", "s")
	l, err := Listen(path)
	do(t, err)
	for p, want := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600, path + ".lock": 0o600} {
		if fi, err := os.Lstat(p); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", p, fi.Mode().Perm(), want)
		}
	}
	do(t, l.Close())
	if _, err := os.Lstat(path); err == nil {
		t.Error("closed, and the socket is still there")
	}
	again, err := Listen(path)
	do(t, err)
	do(t, again.Close())
}

func TestListenRefusesADirectoryThatIsNotOurs(t *testing.T) {
	dir := shortDir(t)
	open, link := filepath.Join(dir, "open"), filepath.Join(dir, "link")
	do(t, os.Mkdir(open, 0o700))
	do(t, os.Chmod(open, 0o777))
	do(t, os.Symlink(filepath.Join(dir, "target"), link))
	do(t, os.Mkdir(filepath.Join(dir, "target"), 0o700))
	for _, d := range []string{open, link} {
		var e *DirError
		if _, err := Listen(filepath.Join(d, "s")); !errors.As(err, &e) {
			t.Errorf("%s: %v", d, err)
		}
	}
	if os.Getuid() == 0 {
		foreign := filepath.Join(dir, "foreign")
		do(t, os.Mkdir(foreign, 0o700))
		do(t, os.Chown(foreign, 65534, 65534))
		var e *DirError
		if _, err := Listen(filepath.Join(foreign, "s")); !errors.As(err, &e) || !strings.Contains(err.Error(), "another user") {
			t.Errorf("%v", err)
		}
	}
	entries, err := os.ReadDir(open)
	if err != nil || len(entries) != 0 {
		t.Errorf("something was made in a refused directory: %v", entries)
	}
}

// Whoever can rename the socket's directory away can put another in its place.
func TestListenRefusesAParentThatOthersRule(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mode    os.FileMode
		owner   int
		refused string
	}{
		{"ours", 0o700, -1, ""},
		{"open to all", 0o777, -1, "can be written by others"},
		{"open to a group", 0o770, -1, "can be written by others"},
		{"open and sticky", 0o777 | os.ModeSticky, -1, ""},
		{"another user's", 0o755, 65534, "belongs to another user"},
		{"another user's and sticky", 0o777 | os.ModeSticky, 65534, "belongs to another user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.owner >= 0 && os.Getuid() != 0 {
				t.Skip("needs root to give a directory away: sudo go test ./ipc/server")
			}
			parent := filepath.Join(shortDir(t), "parent")
			dir := filepath.Join(parent, "dir")
			do(t, os.MkdirAll(dir, 0o700))
			do(t, os.Chmod(parent, tt.mode))
			do(t, os.Chown(parent, tt.owner, -1))
			l, err := Listen(filepath.Join(dir, "s"))
			if tt.refused == "" {
				do(t, err)
				do(t, l.Close())
				return
			}
			var e *DirError
			if !errors.As(err, &e) || e.Dir != parent || e.Reason != tt.refused {
				t.Errorf("%v", err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("something was made there: %v", entries)
			}
		})
	}
}

func TestListenKnowsTheLongestPath(t *testing.T) {
	dir := shortDir(t)
	name := strings.Repeat("x", ipc.MaxPath-len(dir)-1)
	l, err := Listen(filepath.Join(dir, name))
	do(t, err)
	do(t, l.Close())
	if _, err := Listen(filepath.Join(dir, name+"x")); !errors.Is(err, ipc.ErrPathTooLong) {
		t.Errorf("%v", err)
	}
}

func TestALiveDaemonIsNeverDisplaced(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	first, err := Listen(path)
	do(t, err)
	defer func() { _ = first.Close() }()
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second daemon: %v", err)
	}
	// A listener without our lock, such as systemd's, is alive all the same.
	other := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", other)
	do(t, err)
	defer func() { _ = l.Close() }()
	if _, err := Listen(other); !errors.Is(err, ErrInUse) {
		t.Errorf("a foreign listener: %v", err)
	}
}

// Of two that start at the same moment each finds the other's socket stale, for a
// moment. The lock decides.
func TestWhoHoldsTheLockHasTheSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	do(t, err)
	stale.SetUnlinkOnClose(false)
	do(t, stale.Close())
	lock, err := takeLock(path + ".lock")
	do(t, err)
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("beside one that has the lock and has not bound yet: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("what the other is about to replace was removed: %v", err)
	}
	do(t, lock.Close())
	l, err := Listen(path)
	do(t, err)
	do(t, l.Close())
}

// A daemon that is so busy that its backlog is full refuses connections too,
// but not as a dead one does.
func TestABusyDaemonIsNotTakenForADeadOne(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	do(t, err)
	defer func() { _ = syscall.Close(fd) }()
	do(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}))
	do(t, syscall.Listen(fd, 0))
	for {
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer func() { _ = c.Close() }()
	}
	if _, err := Listen(path); err == nil {
		t.Error("taken over")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error("its socket was removed")
	}
}

func TestAStaleSocketIsReplacedAndNothingElse(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	do(t, err)
	dead.SetUnlinkOnClose(false)
	do(t, dead.Close())
	l, err := Listen(path)
	do(t, err)
	do(t, l.Close())
	for name, make := range map[string]func(string) error{
		"file":    func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
		"FIFO":    func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"symlink": func(p string) error { return os.Symlink("/nonexistent", p) },
	} {
		path := filepath.Join(shortDir(t), "s")
		do(t, make(path))
		if _, err := Listen(path); err == nil {
			t.Errorf("%s: replaced", name)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: removed", name)
		}
	}
}
