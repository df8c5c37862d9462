package trusted_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/store/trusted"
)

const stranger = 65533 // neither us nor root

const nobody = 65534

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to give a file away: sudo go test ./store/trusted")
	}
}

// A place is /tmp-like/home/dir/file, each link of which a test can spoil.
type place struct{ tmp, home, dir, file string }

func newPlace(t *testing.T) place {
	t.Helper()
	tmp := t.TempDir()
	p := place{tmp, tmp + "/home", tmp + "/home/dir", tmp + "/home/dir/file"}
	must(t, os.Chmod(tmp, 0o777|fs.ModeSticky))
	must(t, os.MkdirAll(p.dir, 0o755))
	must(t, os.Chmod(p.home, 0o755))
	must(t, os.WriteFile(p.file, []byte("content"), 0o600))
	return p
}

// reads reports whether path is read, or the refusal.
func reads(t *testing.T, path string) *trusted.Error {
	t.Helper()
	b, err := trusted.ReadFile(path)
	var refused *trusted.Error
	switch {
	case err == nil && string(b) == "content":
		return nil
	case !errors.As(err, &refused):
		t.Fatalf("%q, %v", b, err)
	}
	if b != nil || refused.File != path {
		t.Errorf("%q, and of %s", b, refused.File)
	}
	return refused
}

func TestWhatIsTrusted(t *testing.T) {
	needsRoot(t)
	for name, make := range map[string]func(t *testing.T, p place) string{
		"a file of ours": func(t *testing.T, p place) string { return p.file },
		"open to readers": func(t *testing.T, p place) string {
			must(t, os.Chmod(p.file, 0o644))
			return p.file
		},
		"a link of ours": func(t *testing.T, p place) string {
			must(t, os.Symlink("home/dir/file", p.tmp+"/link"))
			return p.tmp + "/link"
		},
		"links to links": func(t *testing.T, p place) string {
			must(t, os.Symlink("dir/../dir/./file", p.home+"/a"))
			must(t, os.Symlink(p.home, p.tmp+"/b"))
			must(t, os.Symlink("b//a", p.tmp+"/c"))
			return p.tmp + "/c"
		},
		"a sticky directory that others write": func(t *testing.T, p place) string {
			must(t, os.Chmod(p.dir, 0o777|fs.ModeSticky))
			return p.file
		},
		"our own group may write": func(t *testing.T, p place) string {
			must(t, errors.Join(os.Chmod(p.home, 0o775), os.Chmod(p.dir, 0o770), os.Chmod(p.file, 0o664)))
			return p.file
		},
		"read-only mounts, whoever may write there": func(t *testing.T, p place) string {
			must(t, errors.Join(os.Chmod(p.dir, 0o777), os.Chown(p.dir, stranger, stranger)))
			readOnly(t, p.dir)
			return p.file
		},
	} {
		t.Run(name, func(t *testing.T) {
			if e := reads(t, make(t, newPlace(t))); e != nil {
				t.Error(e)
			}
		})
	}
}

// readOnly mounts dir upon itself.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("no mount can be made here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""))
}

// Each is refused with the sentence that names what is wrong and the command that
// mends it; the command as it stands does.
func TestWhatIsRefused(t *testing.T) {
	needsRoot(t)
	for name, tt := range map[string]struct {
		spoil func(p place) error
		want  string // DIR, FILE and so on stand for paths
	}{
		"another user's file":    {func(p place) error { return os.Chown(p.file, stranger, 0) }, "FILE belongs to another user, 65533 (chown root FILE)"},
		"others may write it":    {func(p place) error { return os.Chmod(p.file, 0o602) }, "FILE can be written by others (chmod o-w FILE)"},
		"a group may write it":   {func(p place) error { return group(p.file, 0o660) }, "FILE can be written by its group (chmod g-w FILE)"},
		"everybody may write it": {func(p place) error { return group(p.file, 0o666) }, "FILE can be written by others (chmod go-w FILE)"},
		"another user's, and writable": {func(p place) error {
			return errors.Join(os.Chmod(p.file, 0o606), os.Chown(p.file, stranger, 0))
		}, "FILE belongs to another user, 65533 (chown root FILE && chmod o-w FILE)"},
		"an access list": {func(p place) error { return errors.Join(os.Chmod(p.file, 0o600), setACL(p.file)) }, "FILE can be written by its group (chmod g-w FILE)"},

		"a directory that others write":   {func(p place) error { return os.Chmod(p.dir, 0o757) }, "FILE: DIR can be written by others (chmod o-w DIR)"},
		"a directory that a group writes": {func(p place) error { return group(p.dir, 0o775) }, "FILE: DIR can be written by its group (chmod g-w DIR)"},
		"another user's directory":        {func(p place) error { return os.Chown(p.dir, stranger, 0) }, "FILE: DIR belongs to another user, 65533 (chown root DIR)"},
		"another user's, and sticky": {func(p place) error {
			return errors.Join(os.Chmod(p.dir, 0o755|fs.ModeSticky), os.Chown(p.dir, stranger, 0))
		}, "FILE: DIR belongs to another user, 65533 (chown root DIR)"},
		"a directory above":                  {func(p place) error { return os.Chmod(p.home, 0o777) }, "FILE: HOME can be written by others (chmod o-w HOME)"},
		"a directory above, with its list":   {func(p place) error { return errors.Join(os.Chmod(p.home, 0o755), setACL(p.home)) }, "FILE: HOME can be written by its group (chmod g-w HOME)"},
		"another user's in a sticky one":     {func(p place) error { return os.Chown(p.home, stranger, 0) }, "FILE: HOME belongs to another user, 65533 (chown root HOME)"},
		"a link to a file that others write": {func(p place) error { return errors.Join(link(p), os.Chmod(p.tmp+"/to", 0o666)) }, "FILE: TMP/to can be written by others (chmod o-w TMP/to)"},
		"a link that leads through a directory that others write": {func(p place) error {
			return errors.Join(os.Mkdir(p.tmp+"/open", 0o700), os.Chmod(p.tmp+"/open", 0o777), os.Rename(p.file, p.tmp+"/to"),
				os.Symlink("../to", p.tmp+"/open/link"), os.Symlink("../../open/link", p.file))
		}, "FILE: TMP/open can be written by others (chmod o-w TMP/open)"},
		"another user's link in a sticky directory": {func(p place) error {
			return errors.Join(os.Rename(p.file, p.dir+"/to"), os.Symlink("to", p.file), os.Lchown(p.file, stranger, 0), os.Chmod(p.dir, 0o777|fs.ModeSticky))
		}, "FILE belongs to another user, 65533 (chown -h root FILE)"},
		"a directory in place of the file": {func(p place) error { return errors.Join(os.Remove(p.file), os.Mkdir(p.file, 0o700)) }, "FILE is not a regular file"},
		"a FIFO in place of the file":      {func(p place) error { return errors.Join(os.Remove(p.file), syscall.Mkfifo(p.file, 0o600)) }, "FILE is not a regular file"},
		"a link to a FIFO": {func(p place) error {
			return errors.Join(os.Remove(p.file), syscall.Mkfifo(p.dir+"/to", 0o600), os.Symlink("to", p.file))
		}, "FILE: DIR/to is not a regular file"},
		"a link to a device": {func(p place) error { return errors.Join(os.Remove(p.file), os.Symlink("/dev/null", p.file)) }, "FILE: /dev/null is not a regular file"},
		"a socket in place of the file": {func(p place) error {
			return errors.Join(os.Remove(p.file), syscall.Mknod(p.file, syscall.S_IFSOCK|0o600, 0))
		}, "FILE is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			must(t, tt.spoil(p))
			e := reads(t, p.file)
			want := strings.NewReplacer("FILE", p.file, "DIR", p.dir, "HOME", p.home, "TMP", p.tmp).Replace(tt.want)
			if e == nil || e.Error() != want {
				t.Fatalf("got  %v\nwant %s", e, want)
			}
			if trusted.Mend(e) == "" {
				return
			}
			if out, err := exec.Command("sh", "-c", trusted.Mend(e)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if e := reads(t, p.file); e != nil {
				t.Errorf("mended, and %v", e)
			}
		})
	}
}

// What is root's or nobody's may be the system's, which nobody should be told to
// take, unless it lies in their home.
func TestNoCommandTakesWhatIsTheSystems(t *testing.T) {
	needsRoot(t)
	for name, spoil := range map[string]func(p place) error{
		"FILE":      func(p place) error { return os.Chown(p.file, nobody, 0) },
		"FILE, too": func(p place) error { return errors.Join(os.Chmod(p.file, 0o606), os.Chown(p.file, nobody, 0)) },
		"DIR":       func(p place) error { return os.Chown(p.dir, nobody, 0) },
		"HOME":      func(p place) error { return os.Chown(p.home, nobody, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			must(t, spoil(p))
			for _, home := range []string{"", "/", ".", "home", p.home + "/di", p.home + "x"} {
				t.Setenv("HOME", home)
				if e := reads(t, p.file); e == nil || e.Mend != "" || !strings.HasSuffix(e.Error(), " belongs to another user, nobody") {
					t.Errorf("at home in %q: %v", home, e)
				}
			}
			t.Setenv("HOME", p.home)
			if out, err := exec.Command("sh", "-c", trusted.Mend(reads(t, p.file))).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if e := reads(t, p.file); e != nil {
				t.Errorf("mended, and %v", e)
			}
		})
	}
	p := newPlace(t)
	must(t, errors.Join(os.Chmod(p.file, 0o640), os.Chown(p.file, nobody, 0)))
	if _, err := trusted.ReadOwn(p.file); err == nil || err.Error() != p.file+" belongs to another user, nobody" {
		t.Errorf("a secret: %v", err)
	}
}

// group gives path to a group that is not ours.
func group(path string, mode fs.FileMode) error {
	return errors.Join(os.Chown(path, -1, stranger), os.Chmod(path, mode))
}

func link(p place) error {
	return errors.Join(os.Rename(p.file, p.tmp+"/to"), os.Symlink("../../to", p.file))
}

// setACL lets the stranger write, which the mode shows as a right of the group.
func setACL(path string) error {
	acl := "\x02\x00\x00\x00" +
		"\x01\x00\x07\x00\xff\xff\xff\xff" + // the owner
		"\x02\x00\x07\x00\xfd\xff\x00\x00" + // user 65533
		"\x04\x00\x00\x00\xff\xff\xff\xff" + // the group
		"\x10\x00\x07\x00\xff\xff\xff\xff" + // at most
		"\x20\x00\x05\x00\xff\xff\xff\xff" // others
	return syscall.Setxattr(path, "system.posix_acl_access", []byte(acl), 0)
}

// Nobody writes into the FIFO.
func TestAFIFOHoldsNobodyUp(t *testing.T) {
	p := newPlace(t)
	must(t, os.Remove(p.file))
	must(t, syscall.Mkfifo(p.file, 0o600))
	answer := make(chan error, 1)
	go func() {
		_, err := trusted.ReadFile(p.file)
		answer <- err
	}()
	select {
	case err := <-answer:
		if want := p.file + " is not a regular file"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it hangs")
	}
}

// A command is typed as it stands, whatever the path.
func TestTheCommandIsQuoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it's $HOME; `x`")
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	must(t, os.Chmod(path, 0o606))
	if out, err := exec.Command("sh", "-c", trusted.Mend(reads(t, path))).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if e := reads(t, path); e != nil {
		t.Error(e)
	}
}

func TestAFileThatIsNotThereIsNotThere(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("none", dir+"/link"))
	must(t, os.Chmod(dir, 0o777)) // what others could put there is not there yet
	for _, path := range []string{"", dir + "/none", dir + "/none/none", dir + "/link"} {
		if _, err := trusted.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// Where a link of /proc leads to may have no name, and exists.
func TestWhatExistsIsNeverMissing(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer func() { _ = errors.Join(r.Close(), w.Close()) }()
	deleted, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer func() { _ = deleted.Close() }()
	must(t, os.Remove(deleted.Name()))
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	must(t, err)
	defer func() { _ = errors.Join(syscall.Close(pair[0]), syscall.Close(pair[1])) }()
	const nameless = "has no name in any directory; name a regular file"
	for fd, want := range map[int]string{int(r.Fd()): "is a pipe; name a regular file", int(deleted.Fd()): nameless, pair[0]: nameless} {
		for _, dir := range []string{"/proc/self/fd/", "/dev/fd/"} {
			path := dir + strconv.Itoa(fd)
			_, err := trusted.ReadFile(path)
			for _, err := range []error{err, trusted.CheckParents(path)} {
				if err == nil || err.Error() != path+" "+want || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%v, want %s", err, want)
				}
			}
		}
	}
}

func TestLinksThatLeadNowhere(t *testing.T) {
	p := newPlace(t)
	must(t, os.Symlink("loop", p.dir+"/loop"))
	if _, err := trusted.ReadFile(p.dir + "/loop"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
	if _, err := trusted.ReadFile(p.file + "/file"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}

func TestAPathIsRelativeToWhereWeStand(t *testing.T) {
	p := newPlace(t)
	t.Chdir(p.dir)
	must(t, os.Symlink("dir", p.home+"/link"))
	for _, path := range []string{"file", "./file", "../dir/file", "../link/../dir/file"} {
		if e := reads(t, path); e != nil {
			t.Error(e)
		}
	}
	must(t, os.Chmod(p.home, 0o777))
	if e := reads(t, "file"); e == nil || e.Path != p.home {
		t.Errorf("%v", e)
	}
}

func TestAFileThatIsTooLong(t *testing.T) {
	p := newPlace(t)
	must(t, os.Truncate(p.file, 1<<20))
	if b, err := trusted.ReadFile(p.file); err != nil || len(b) != 1<<20 {
		t.Errorf("1 MiB: %d bytes, %v", len(b), err)
	}
	must(t, os.Truncate(p.file, 1<<20+1))
	if _, err := trusted.ReadFile(p.file); err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
		t.Errorf("more: %v", err)
	}
}

func TestParentsAreCheckedAndNotWhatLiesThere(t *testing.T) {
	needsRoot(t)
	p := newPlace(t)
	must(t, errors.Join(os.Chown(p.file, stranger, stranger), os.Chmod(p.file, 0o666)))
	must(t, trusted.CheckParents(p.file))
	must(t, os.Chmod(p.dir, 0o777|fs.ModeSticky))
	if err := trusted.CheckParents(p.file); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("another user's in a sticky directory: %v", err)
	}
	must(t, os.Chmod(p.dir, 0o700))
	must(t, os.Chmod(p.home, 0o777))
	must(t, os.Symlink(p.file, p.tmp+"/link"))
	for _, path := range []string{p.file, p.tmp + "/link"} {
		if err := trusted.CheckParents(path); err == nil || trusted.Mend(err) != "chmod o-w "+p.home {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := trusted.CheckParents(p.dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestASecretIsOursAndClosed(t *testing.T) {
	needsRoot(t)
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o601, 0o666} {
		p := newPlace(t)
		must(t, os.Chmod(p.file, mode))
		_, err := trusted.ReadOwn(p.file)
		if err == nil || !strings.Contains(err.Error(), "is open to others") || trusted.Mend(err) != "chmod 600 "+p.file {
			t.Errorf("%v: %v", mode, err)
		}
	}
	p := newPlace(t)
	must(t, os.Chown(p.file, stranger, 0))
	if _, err := trusted.ReadOwn(p.file); err == nil || trusted.Mend(err) != "chown root "+p.file {
		t.Errorf("another user's: %v", err)
	}
	must(t, os.Chmod(p.file, 0o640))
	if _, err := trusted.ReadOwn(p.file); err == nil || trusted.Mend(err) != "chown root "+p.file+" && chmod 600 "+p.file {
		t.Errorf("another user's, and open: %v", err)
	}
	p = newPlace(t)
	must(t, link(p))
	if _, err := trusted.ReadOwn(p.file); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: %v", err)
	}
	p = newPlace(t)
	must(t, os.Chmod(p.home, 0o777))
	if _, err := trusted.ReadOwn(p.file); err == nil || trusted.Mend(err) != "chmod o-w "+p.home {
		t.Errorf("below a directory that others write: %v", err)
	}
}
