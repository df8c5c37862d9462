package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// A file that somebody else has made, at a path that the configuration names, is
// neither replaced nor removed, and config check says so beforehand: a mistake in
// a path must not cost a .netrc.
func TestASinkTakesNobodysPlace(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	path := dir + "/.netrc"
	const theirs = "machine example.org login me password mine\n"
	must(t, os.WriteFile(path, []byte(theirs), 0o600))
	must(t, os.WriteFile(dir+"/empty", nil, 0o600))
	before, _ := os.Lstat(path)
	w.configure(fmt.Sprintf(tokenSink+tokenSink+tokenSink, ".netrc", "empty", "good"))
	said := func(name string) string {
		return dir + "/" + name + " is there already, and bloq-agent did not write it; rm " + dir + "/" + name + ", or name another path"
	}
	check := func() result { return w.run("", "bloq-agent", "config", "check") }
	if r := check(); r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, said(".netrc")) || !strings.Contains(r.stderr, said("empty")) {
		t.Errorf("config check: %+v", r)
	}

	w.start("--store", "file")
	w.login()
	w.eventually("the sink beside them", w.holdsToken(dir+"/good"))
	w.must("", "bloq-agent", "refresh")
	w.must("", "bloq-agent", "lock")
	w.must("", "bloq-agent", "unlock")
	w.eventually("status says so", func() bool {
		r := w.run("", "bloq-agent", "status")
		return strings.Contains(r.stdout, "sink "+path+": "+said(".netrc")) && strings.Contains(r.stdout, said("empty"))
	})
	after, err := os.Lstat(path)
	if err != nil || !os.SameFile(before, after) || content(path) != theirs || content(dir+"/empty") != "" {
		t.Errorf("the file is another now: %v", err)
	}
	// The running daemon's own file is nobody else's.
	if r := check(); strings.Contains(r.stderr, "good") {
		t.Errorf("config check: %+v", r)
	}

	// What the sentence says mends it.
	w.mustSh("rm " + path + " " + dir + "/empty")
	must(t, w.daemon.Process.Signal(hup))
	w.eventually("the sink", w.holdsToken(path))
	w.must("", "bloq-agent", "config", "check")

	// Without the record nobody knows whose they are.
	w.stop()
	must(t, os.Remove(w.dir+"/state/bloq-agent/sinks.json"))
	if r := check(); r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, said("good")) {
		t.Errorf("config check: %+v", r)
	}
	old := content(path)
	w.start("--store", "file")
	w.eventually("status says so", func() bool {
		return strings.Contains(w.run("", "bloq-agent", "status").stdout, said(".netrc"))
	})
	w.must("", "bloq-agent", "logout")
	if content(path) != old {
		t.Error("a file that is nobody's was replaced or removed")
	}
}

// A hindrance keeps a file in dir from being removed between begin and end.
type hindrance struct {
	dir, reason string
	begin, end  func()
}

// What lock and logout could not remove they name, with exit 5, and the daemon
// removes it as soon as it can: nobody has to ask again.
func TestLockAndLogoutNameTheFilesThatTheyLeave(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, w *world, dir string) hindrance{
		"a disk that is read-only":           readOnlySinks,
		"a disk that is not mounted":         diskThatIsAway,
		"a directory on a disk that is away": directoryThatIsAway,
		"a disk that does not answer":        diskThatHangs,
		"a directory that was moved":         movedDirectory,
		"a directory that is a link now":     linkedDirectory,
		"a directory that cannot be changed": immutableDirectory,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			disk := w.dir + "/sinks-disk"
			must(t, os.Mkdir(disk, 0o700))
			o := prepare(t, w, disk)
			path, other := o.dir+"/x", w.sinkDir()+"/other"
			w.configure("[[profile.default.sink]]\npath = \"" + path + "\"\n" + fmt.Sprintf(tokenSink, "other"))
			w.start("--store", "file")
			w.login()
			both := func() bool { return w.holdsToken(path)() && w.holdsToken(other)() }
			w.eventually("both files", both)

			for _, command := range []struct{ name, done string }{{"lock", "locked"}, {"logout", "forgot profile default"}} {
				o.begin()
				r := w.run("", "bloq-agent", command.name)
				w.wants(r, ipc.ExitUnavailable, command.done+", but the token file "+path+" could not be removed: "+o.reason+
					"; it is removed when the disk is back", "")
				if r := w.run("", "bloq-token"); r.code != ipc.ExitPerson {
					t.Errorf("after %s a token is served: %+v", command.name, r)
				}
				if !w.gone(other)() {
					t.Errorf("%s left a file that it could have removed", command.name)
				}
				if r := w.run("", "bloq-agent", "status"); !strings.Contains(r.stdout, path+": ") {
					t.Errorf("status does not name it:\n%s", r.stdout)
				}
				o.end()
				w.removes(path)
				if command.name == "logout" {
					break
				}
				w.must("", "bloq-agent", "lock")
				w.must("", "bloq-agent", "unlock")
				w.eventually("both files again", both)
			}
			w.eventually("status is in order", func() bool { return !strings.Contains(w.run("", "bloq-agent", "status").stdout, path) })
		})
	}
}

// removes waits until the daemon has removed the file at path. Where the kernel
// confines it, a disk that was mounted since is a new place, and the status says
// that it takes a restart.
func (w *world) removes(path string) {
	w.t.Helper()
	restart := false
	w.eventually("the removal of "+path, func() bool {
		restart = strings.Contains(w.run("", "bloq-agent", "status").stdout, "; restart it")
		return restart || w.gone(path)()
	})
	if restart {
		w.stop()
		w.start("--store", "file")
		w.eventually("the removal of "+path+" after a restart", w.gone(path))
	}
}

func mount(t *testing.T, kind, dir, options string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount a file system")
	}
	if err := syscall.Mount("test", dir, kind, 0, options); err != nil {
		t.Skipf("no mount here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func readOnlySinks(t *testing.T, _ *world, dir string) hindrance {
	mount(t, "tmpfs", dir, "mode=0700")
	remount := func(flags uintptr) func() {
		return func() { must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, "")) }
	}
	return hindrance{dir, "read-only file system", remount(syscall.MS_RDONLY), remount(0)}
}

// diskThatIsAway is a real one, in a file: what lies on it stays while it is not
// mounted.
func diskThatIsAway(t *testing.T, w *world, dir string) hindrance {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount a file system")
	}
	image := filepath.Join(t.TempDir(), "image")
	attach, detach := "mount -o loop "+image+" "+dir, "umount "+dir
	if r := w.sh("truncate -s 2M " + image + " && PATH=$PATH:/usr/sbin mkfs.ext4 -q -O ^has_journal " + image + " && " + attach); r.code != 0 {
		t.Skipf("no disk in a file here: %s", r.stderr)
	}
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
	must(t, os.Chmod(dir, 0o700))
	return hindrance{dir, "its file system is not mounted", func() {
		w.eventually(detach, func() bool { return w.sh(detach).code == 0 }) // the daemon may be looking at it
	}, func() { w.mustSh(attach) }}
}

func directoryThatIsAway(t *testing.T, w *world, dir string) hindrance {
	o := diskThatIsAway(t, w, dir)
	o.dir, o.reason = dir+"/below", "its directory is not there"
	must(t, os.Mkdir(o.dir, 0o700))
	return o
}

// diskThatHangs never answers the kernel, as a file server that is away.
func diskThatHangs(t *testing.T, _ *world, dir string) hindrance {
	var server *os.File
	begin := func() {
		var err error
		if server, err = os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
			t.Skip("takes /dev/fuse, and root")
		}
		mount(t, "fuse", dir, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server.Fd()))
	}
	end := func() {
		must(t, server.Close())
		must(t, syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	return hindrance{dir, "its file system does not answer", begin, end}
}

func movedDirectory(t *testing.T, _ *world, dir string) hindrance {
	return hindrance{
		dir, "its directory is not there",
		func() { must(t, os.Rename(dir, dir+"2")) }, func() { must(t, os.Rename(dir+"2", dir)) },
	}
}

func linkedDirectory(t *testing.T, _ *world, dir string) hindrance {
	return hindrance{dir, dir + " is a symbolic link; name what it points to", func() {
		must(t, os.Rename(dir, dir+"2"))
		must(t, os.Symlink(dir+"2", dir))
	}, func() {
		must(t, os.Remove(dir))
		must(t, os.Rename(dir+"2", dir))
	}}
}

func immutableDirectory(t *testing.T, w *world, dir string) hindrance {
	if os.Getuid() != 0 || w.sh("chattr +i "+dir+" && chattr -i "+dir).code != 0 {
		t.Skip("no chattr here")
	}
	t.Cleanup(func() { _ = exec.Command("chattr", "-i", dir).Run() })
	return hindrance{dir, "operation not permitted", func() { w.mustSh("chattr +i " + dir) }, func() { w.mustSh("chattr -i " + dir) }}
}

// A file that somebody has written to since may hold a token still: lock leaves it
// and says so, and the next daemon says it again.
func TestLockNamesAFileThatWasChanged(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	path := w.sinkDir() + "/x"
	w.configure(fmt.Sprintf(tokenSink, "x"))
	w.start("--store", "file")
	w.login()
	w.eventually("the file", w.holdsToken(path))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("# mine\n")
	must(t, err)
	must(t, f.Close())
	changed := content(path)
	locked := "the token file " + path + " was changed after bloq-agent wrote it and may still hold a token"
	w.wants(w.run("", "bloq-agent", "lock"), ipc.ExitUnavailable, "locked, but "+locked, "rm "+path)
	w.stop()
	w.start("--store", "file")
	w.wants(w.run("", "bloq-agent", "lock"), ipc.ExitUnavailable, "locked, but "+locked, "rm "+path)
	// It is not replaced either.
	w.must("", "bloq-agent", "unlock")
	w.eventually("status says what to type", func() bool {
		return strings.Contains(w.run("", "bloq-agent", "status").stdout, path+" was changed after bloq-agent wrote it; rm "+path)
	})
	if content(path) != changed {
		t.Error("it was replaced")
	}
	w.mustSh("rm " + path)
	must(t, w.daemon.Process.Signal(hup))
	w.eventually("the file", w.holdsToken(path))
	w.must("", "bloq-agent", "lock")
	if !w.gone(path)() {
		t.Error("lock left a token")
	}
}

// A restart goes on where the daemon before could not.
func TestTheNextDaemonRemovesWhatIsLeft(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	a, b := dir+"/a", dir+"/b"
	w.configure(fmt.Sprintf(tokenSink+tokenSink, "a", "b"))
	w.start("--store", "file")
	w.login()
	w.eventually("the files", func() bool { return w.holdsToken(a)() && w.holdsToken(b)() })
	must(t, os.Rename(dir, dir+"2"))
	r := w.run("", "bloq-agent", "logout")
	want := "forgot profile default, but the token file " + a + " could not be removed: its directory is not there; " +
		"the token file " + b + " could not be removed: its directory is not there; they are removed when the disk is back"
	w.wants(r, ipc.ExitUnavailable, want, "")
	w.configure("") // no sink is named any more
	_ = w.daemon.Process.Kill()
	_ = w.daemon.Wait()
	w.start("--store", "file")
	w.eventually("status names them", func() bool {
		r := w.run("", "bloq-agent", "status")
		return strings.Contains(r.stdout, "token file "+a+" could not be removed") && strings.Contains(r.stdout, "token file "+b+" could not be removed")
	})
	must(t, os.Rename(dir+"2", dir))
	w.removes(a)
	w.removes(b)
	w.eventually("status is in order", func() bool { return !strings.Contains(w.run("", "bloq-agent", "status").stdout, dir) })
}

// With a configuration that cannot be read nobody knows which sinks there should
// be; but lock leaves no token in those of the run before.
func TestLockWithABadConfiguration(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	path := w.sinkDir() + "/x"
	w.configure(fmt.Sprintf(tokenSink, "x"))
	w.start("--store", "file")
	w.login()
	w.eventually("the file", w.holdsToken(path))
	token := content(path)
	w.stop()
	w.configure("store = \n")
	w.start("--store", "file")
	w.run("", "bloq-agent", "status")
	if content(path) != token {
		t.Error("a configuration that is not taken removed a file")
	}
	w.must("", "bloq-agent", "lock")
	if !w.gone(path)() {
		t.Error("lock left a token")
	}
}
