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
		"a directory that is another one":    otherDirectory,
		"another directory in memory":        otherDirectoryInMemory,
		"a directory under another":          directoryUnderAnother,
		"a file that cannot be changed":      immutableFile,
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

func otherDirectory(t *testing.T, _ *world, dir string) hindrance {
	return exchangedDirectory(t, dir)
}

func otherDirectoryInMemory(t *testing.T, _ *world, dir string) hindrance {
	mount(t, "tmpfs", dir, "mode=0700")
	must(t, os.Mkdir(dir+"/below", 0o700))
	return exchangedDirectory(t, dir+"/below")
}

func exchangedDirectory(t *testing.T, dir string) hindrance {
	return hindrance{dir, "its directory is another one", func() {
		must(t, os.Rename(dir, dir+"2"))
		must(t, os.Mkdir(dir, 0o700))
	}, func() {
		must(t, os.Remove(dir))
		must(t, os.Rename(dir+"2", dir))
	}}
}

func directoryUnderAnother(t *testing.T, w *world, dir string) hindrance {
	must(t, os.Mkdir(dir+"2", 0o700))
	attach, detach := "mount --bind "+dir+"2 "+dir, "umount "+dir
	if r := w.sh(attach + " && " + detach); r.code != 0 {
		t.Skipf("no mount here: %s", r.stderr)
	}
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
	return hindrance{dir, "its directory is another one", func() { w.mustSh(attach) }, func() {
		w.eventually(detach, func() bool { return w.sh(detach).code == 0 }) // the daemon may be looking at it
	}}
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

func immutableFile(t *testing.T, w *world, dir string) hindrance {
	path := dir + "/x"
	if os.Getuid() != 0 || w.sh("chattr +i "+dir+" && chattr -i "+dir).code != 0 {
		t.Skip("no chattr here")
	}
	t.Cleanup(func() { _ = exec.Command("chattr", "-i", path).Run() })
	return hindrance{dir, "operation not permitted", func() { w.mustSh("chattr +i " + path) }, func() { w.mustSh("chattr -i " + path) }}
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
