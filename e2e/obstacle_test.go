package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

// What keeps a store from taking a rotated refresh token, for real.
type obstacle struct {
	name    string
	store   string
	prepare func(t *testing.T, w *world) (begin, end func())
}

// A real daemon with a real store that stops taking anything: the token is
// served, the status tells, and when the obstacle has gone the token in use is
// saved without anybody's doing. It works after kill -9, so it was.
func TestARotatedTokenOutlivesItsStore(t *testing.T) {
	for _, o := range []obstacle{
		{"full disk", "file", fullDisk},
		{"read-only disk", "file", readOnlyDisk},
		{"keyring locked", "keyring", lockedKeyring},
		{"keyring frozen", "keyring", frozenKeyring},
		{"keyring gone", "keyring", killedKeyring},
	} {
		t.Run(o.name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
			begin, end := o.prepare(t, w)
			w.start()
			w.login("--store", o.store)
			events := w.events()
			w.must("", "bloq-agent", "refresh")
			begin()
			// The endpoint is known to rotate: the token is not spent now.
			held := w.run("", "bloq-agent", "refresh")
			if held.code != ipc.ExitUnavailable || !strings.Contains(held.stderr, "store cannot be written") {
				t.Errorf("refresh with a broken store: exit %d, %s", held.code, held.stderr)
			}
			w.must("", "bloq-token")
			end()
			w.await(events, "a refresh after the obstacle has gone", func(e ipc.Event) bool { return e.Event == "recovered" })
			if err := w.daemon.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = w.daemon.Wait() // killed
			w.start()
			w.must("", "bloq-token", "--min-ttl", "30m")
			if n := w.api.Load().Stats().Reuse; n != 0 {
				t.Errorf("%d spent tokens used again", n)
			}
		})
	}
}

// small mounts a file system of 256 KiB over the state directory.
func small(t *testing.T, w *world) string {
	t.Helper()
	dir := filepath.Join(w.dir, "state", "bloq-agent")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0700")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small disk takes root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func fullDisk(t *testing.T, w *world) (begin, end func()) {
	filler := filepath.Join(small(t, w), "filler")
	begin = func() {
		err := os.WriteFile(filler, make([]byte, 1<<20), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
	}
	return begin, func() { must(t, os.Remove(filler)) }
}

func readOnlyDisk(t *testing.T, w *world) (begin, end func()) {
	dir := small(t, w)
	remount := func(flags uintptr) func() {
		return func() { must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, "")) }
	}
	return remount(syscall.MS_RDONLY), remount(0)
}

func lockedKeyring(t *testing.T, w *world) (begin, end func()) {
	s := storetest.StartSecretService(t)
	w.useBus(s)
	return func() { s.Lock(t) }, func() { s.Unlock(t) }
}

func frozenKeyring(t *testing.T, w *world) (begin, end func()) {
	s := storetest.StartSecretService(t)
	w.useBus(s)
	send := func(sig syscall.Signal) func() { return func() { must(t, syscall.Kill(s.PID, sig)) } }
	return send(syscall.SIGSTOP), send(syscall.SIGCONT)
}

func killedKeyring(t *testing.T, w *world) (begin, end func()) {
	s := storetest.StartSecretService(t)
	w.useBus(s)
	return func() { must(t, syscall.Kill(s.PID, syscall.SIGKILL)) }, func() { s.Unlock(t) } // the bus starts another
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
