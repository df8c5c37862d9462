package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever of the socket was removed, it is there again, closed to others, and the
// server that accepted before accepts there.
func TestASocketThatWasRemovedIsBoundAgain(t *testing.T) {
	above := shortDir(t)
	path := filepath.Join(above, "d", "s")
	l, err := Listen(path)
	do(t, err)
	accepted := make(chan error)
	go func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c.Close()
		}
	}()
	for _, removed := range []string{"s", "s.lock", ""} {
		do(t, os.RemoveAll(filepath.Join(above, "d", removed)))
		if removed == "s.lock" {
			do(t, os.Remove(path))
		}
		do(t, l.(*owned).Rebind())
		c, err := net.Dial("unix", path)
		do(t, err)
		do(t, errors.Join(<-accepted, c.Close()))
		for p, want := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600} {
			if fi, err := os.Lstat(p); err != nil || fi.Mode().Perm() != want {
				t.Errorf("%q removed: %s: %v, want %v", removed, p, fi.Mode().Perm(), want)
			}
		}
		held, err := l.(*owned).lock.Stat()
		do(t, err)
		if there, err := os.Lstat(path + ".lock"); err != nil || !os.SameFile(held, there) {
			t.Errorf("%q removed: the lock beside the socket is not the one that is held (%v)", removed, err)
		}
		if _, err := Listen(path); !errors.Is(err, ErrInUse) {
			t.Errorf("%q removed: another daemon can have it: %v", removed, err)
		}
	}
	do(t, l.Close())
	if _, open := <-accepted; open {
		t.Error("it accepts after its end")
	}
	if !errors.Is(l.(*owned).Rebind(), net.ErrClosed) {
		t.Error("bound again after its end")
	}
}

// What another has put there meanwhile stays, and a directory above is not made.
func TestASocketIsNotBoundOverAnother(t *testing.T) {
	above := shortDir(t)
	path := filepath.Join(above, "a", "b", "s")
	l, err := Listen(path)
	do(t, err)
	defer func() { _ = l.Close() }()
	do(t, os.RemoveAll(filepath.Join(above, "a")))
	if err := l.(*owned).Rebind(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the directory above: %v", err)
	}
	other, err := Listen(path)
	do(t, err)
	defer func() { _ = other.Close() }()
	if err := l.(*owned).Rebind(); !errors.Is(err, ErrInUse) {
		t.Errorf("beside another daemon: %v", err)
	}
	var dir *DirError
	do(t, os.Chmod(filepath.Dir(path), 0o777))
	if err := l.(*owned).Rebind(); !errors.As(err, &dir) {
		t.Errorf("in a directory that others can write: %v", err)
	}
}

// TestWhoIsRunning is run as another process by itself, because the kernel names
// no lock of our own.
func TestWhoIsRunning(t *testing.T) {
	const variable = "BLOQ_TEST_LOCKED"
	if path := os.Getenv(variable); path != "" {
		_, err := Listen(path)
		fmt.Println("said:", err)
		return
	}
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	do(t, err)
	defer func() { _ = l.Close() }()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWhoIsRunning$")
	cmd.Env = []string{variable + "=" + path}
	out, err := cmd.Output()
	do(t, err)
	if want := fmt.Sprintf("said: bloq-agent is already running (pid %d)\n", os.Getpid()); !strings.Contains(string(out), want) {
		t.Errorf("got %s, want %s", out, want)
	}
}
