package sink

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// place is a directory that a sink may be in.
func place(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "place")
	must(t, os.Mkdir(dir, 0o700))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet(ID) {}

const temp = ".bloq-TEST.tmp" // as a record names it

func mustWrite(t *testing.T, path, text string) ID {
	t.Helper()
	// Whatever is there is taken for ours.
	var ours []ID
	var st syscall.Stat_t
	if syscall.Lstat(path, &st) == nil {
		ours = append(ours, idOf(&st))
	}
	id, err := write(path, temp, 0o600, []byte(text), ours, quiet, nil)
	must(t, err)
	return id
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s: %q, %v; want %q", path, b, err, want)
	}
}

func wantAlone(t *testing.T, dir string, names ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, names)
	}
}

// Whoever is told of an ID before the file has its place must find it there.
func TestAnIDIsAnnouncedBeforeItIsThere(t *testing.T) {
	path := place(t) + "/x"
	old := mustWrite(t, path, "one")
	var announced ID
	id, err := write(path, temp, 0o600, []byte("two"), []ID{old}, func(id ID) {
		announced = id
		if !holds(path, old) || holds(path, id) {
			t.Error("the new file has its place already")
		}
	}, nil)
	if err != nil || id != announced || !holds(path, id) {
		t.Errorf("announced %v, wrote %v, %v", announced, id, err)
	}
}

// Each of these would put a token where the configuration does not say, or
// where somebody else could take it or put another in its place.
func TestRefusals(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string) (path, want string){
		"the target is a symbolic link": func(t *testing.T, dir string) (string, string) {
			must(t, os.WriteFile(dir+"/victim", []byte("old"), 0o600))
			must(t, os.Symlink("victim", dir+"/x"))
			return dir + "/x", dir + "/x is a symbolic link"
		},
		"the target is a symbolic link to nothing": func(t *testing.T, dir string) (string, string) {
			must(t, os.Symlink("victim", dir+"/x"))
			return dir + "/x", dir + "/x is a symbolic link"
		},
		"the directory is a symbolic link": func(t *testing.T, dir string) (string, string) {
			must(t, os.Mkdir(dir+"/real", 0o700))
			must(t, os.Symlink("real", dir+"/link"))
			return dir + "/link/x", dir + "/link is a symbolic link"
		},
		"a directory on the way is a symbolic link": func(t *testing.T, dir string) (string, string) {
			must(t, os.MkdirAll(dir+"/real/deep", 0o700))
			must(t, os.Symlink(dir+"/real", dir+"/link"))
			return dir + "/link/deep/x", dir + "/link is a symbolic link"
		},
		"a magic link": func(t *testing.T, dir string) (string, string) {
			return "/proc/self/cwd/x", "/proc/self is a symbolic link"
		},
		"a file on the way": func(t *testing.T, dir string) (string, string) {
			must(t, os.WriteFile(dir+"/file", nil, 0o600))
			return dir + "/file/x", dir + "/file is not a directory"
		},
		"no directory": func(t *testing.T, dir string) (string, string) {
			return dir + "/none/x", dir + "/none: no such file or directory"
		},
		"the target is a FIFO": func(t *testing.T, dir string) (string, string) {
			must(t, syscall.Mkfifo(dir+"/x", 0o600))
			return dir + "/x", "not a regular file"
		},
		"the target is a socket": func(t *testing.T, dir string) (string, string) {
			must(t, syscall.Mknod(dir+"/x", syscall.S_IFSOCK|0o600, 0))
			return dir + "/x", "not a regular file"
		},
		"the target is a directory": func(t *testing.T, dir string) (string, string) {
			must(t, os.Mkdir(dir+"/x", 0o700))
			return dir + "/x", "not a regular file"
		},
		"the directory can be written by others": func(t *testing.T, dir string) (string, string) {
			must(t, os.Chmod(dir, 0o707))
			return dir + "/x", dir + " can be written by others"
		},
		"the directory can be written by a group": func(t *testing.T, dir string) (string, string) {
			must(t, os.Chmod(dir, 0o770))
			return dir + "/x", dir + " can be written by others"
		},
		"a sticky directory": func(t *testing.T, dir string) (string, string) {
			must(t, os.Chmod(dir, 0o777|fs.ModeSticky))
			return dir + "/x", dir + " can be written by others"
		},
		"the directory is another user's": func(t *testing.T, dir string) (string, string) {
			if os.Getuid() != 0 {
				t.Skip("takes root")
			}
			must(t, os.Chown(dir, 65534, 65534))
			return dir + "/x", dir + " belongs to another user"
		},
		"the directory is our own": func(t *testing.T, dir string) (string, string) {
			must(t, os.Mkdir(dir+"/own", 0o700))
			return dir + "/own/x", dir + "/own is a directory of bloq-agent itself"
		},
		"the name is too long": func(t *testing.T, dir string) (string, string) {
			return dir + "/" + strings.Repeat("x", 256), "file name too long"
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := place(t)
			path, want := prepare(t, dir)
			// Our own directory is known through a link too.
			must(t, os.Symlink(dir+"/own", dir+"/alias"))
			_, err := write(path, temp, 0o600, []byte("secret"), nil, quiet, []string{dir + "/missing", dir + "/alias"})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			must(t, os.Remove(dir+"/alias"))
			must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() {
					if b, _ := os.ReadFile(p); bytes.Contains(b, []byte("secret")) {
						t.Errorf("the token is in %s", p)
					}
				}
				return err
			}))
		})
	}
}

// A directory that is exchanged in the middle does not lead a token away.
func TestADirectoryThatIsExchangedInTheMiddle(t *testing.T) {
	top := place(t)
	must(t, os.Mkdir(top+"/a", 0o700))
	must(t, os.Mkdir(top+"/evil", 0o700))
	d, err := openDir(top + "/a")
	must(t, err)
	defer d.close()
	must(t, os.Rename(top+"/a", top+"/b"))
	must(t, os.Symlink("evil", top+"/a"))
	_, err = d.replace("x", temp, 0o600, []byte("secret"), false, quiet)
	must(t, err)
	wantContent(t, top+"/b/x", "secret")
	wantAlone(t, top+"/evil")
}

func TestModeWhateverTheUmask(t *testing.T) {
	dir := place(t)
	var ours []ID
	for _, umask := range []int{0, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0o400, 0o600, 0o640, 0o644} {
			old := syscall.Umask(umask)
			id, err := write(dir+"/x", temp, mode, []byte("t"), ours, quiet, nil)
			syscall.Umask(old)
			ours = []ID{id}
			must(t, err)
			fi, err := os.Lstat(dir + "/x")
			must(t, err)
			if fi.Mode() != mode {
				t.Errorf("umask %o: mode %v, want %v", umask, fi.Mode(), mode)
			}
		}
	}
}

// Whoever reads sees one token or another, whole, at every moment.
func TestReadersNeverSeeAPart(t *testing.T) {
	path := place(t) + "/x"
	content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, 3000) }
	id, err := write(path, temp, 0o600, content(0), nil, quiet, nil)
	must(t, err)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					t.Logf("%d reads", n)
					return
				default:
				}
				b, err := os.ReadFile(path)
				if err != nil || len(b) != 3000 || !bytes.Equal(b, bytes.Repeat(b[:1], 3000)) {
					t.Errorf("read %d bytes, %v", len(b), err)
					return
				}
			}
		})
	}
	for i := range 200 {
		id, err = write(path, temp, 0o600, content(i), []ID{id}, quiet, nil)
		must(t, err)
	}
	close(stop)
	readers.Wait()
	wantAlone(t, filepath.Dir(path), "x")
}

func TestOnlyWhatWasWrittenIsRemoved(t *testing.T) {
	dir := place(t)
	path := dir + "/x"
	id := mustWrite(t, path, "one")
	if !holds(path, id) {
		t.Error("it is not what was written")
	}
	for name, change := range map[string]func(){
		"a later content":          func() { must(t, os.WriteFile(path, []byte("two"), 0o600)) },
		"a later time":             func() { must(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour))) },
		"somebody else's file":     func() { must(t, os.Remove(path)); must(t, os.WriteFile(path, []byte("two"), 0o600)) },
		"a symbolic link to it":    func() { must(t, os.Rename(path, dir+"/y")); must(t, os.Symlink("y", path)) },
		"a FIFO":                   func() { must(t, os.Remove(path)); must(t, syscall.Mkfifo(path, 0o600)) },
		"a directory":              func() { must(t, os.Remove(path)); must(t, os.Mkdir(path, 0o700)) },
		"the one of another write": func() { mustWrite(t, path, "two") },
	} {
		_ = os.RemoveAll(path)
		id := mustWrite(t, path, "one")
		change()
		if holds(path, id) {
			t.Errorf("%s is taken for ours", name)
		}
		// What may hold a token is told of.
		want := map[string]error{
			"a later content": ErrChanged, "a later time": ErrChanged,
			"somebody else's file": ErrForeign, "a symbolic link to it": ErrForeign, "the one of another write": ErrForeign,
		}[name]
		removed, err := remove(path, temp, []ID{id})
		reused := name == "somebody else's file" && errors.Is(err, ErrChanged) // the kernel may give a new file the old inode
		if removed || !errors.Is(err, want) && !reused {
			t.Errorf("%s: removed %v, %v", name, removed, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_ = os.RemoveAll(path)
	id = mustWrite(t, path, "one")
	if removed, err := remove(path, temp, []ID{id}); !removed || err != nil {
		t.Errorf("ours: removed %v, %v", removed, err)
	}
	if removed, err := remove(path, temp, []ID{id}); removed || err != nil {
		t.Errorf("again: removed %v, %v", removed, err)
	}
}

// A file that is not there may come back with its directory or its disk, unless
// that was in memory.
func TestADirectoryThatIsAway(t *testing.T) {
	dir := place(t)
	id := mustWrite(t, dir+"/x", "one")
	if id.Device == 0 {
		t.Skipf("%s is on a file system in memory", dir)
	}
	elsewhere, inMemory, older := id, id, id
	elsewhere.Device, inMemory.home, older.Dir = id.Device+1, home{Memory: 1, Dir: id.Dir}, 0
	must(t, os.Rename(dir, dir+"2"))
	wantRemoval := func(name string, id ID, want error) {
		t.Helper()
		if removed, err := remove(dir+"/x", temp, []ID{id}); removed || !errors.Is(err, want) {
			t.Errorf("%s: removed %v, %v; want %v", name, removed, err, want)
		}
	}
	wantRemoval("no directory", id, ErrNoDirectory)
	wantRemoval("no directory, of one in memory", inMemory, nil)
	must(t, os.Mkdir(dir, 0o700)) // as an empty mount point is
	wantRemoval("another directory", id, ErrOtherDirectory)
	wantRemoval("no file, of an older record", older, nil)
	wantRemoval("no file, on another file system", elsewhere, ErrNotMounted)
	wantRemoval("no file, of one in memory", inMemory, nil)
	must(t, os.Remove(dir))
	must(t, os.Rename(dir+"2", dir))
	if removed, err := remove(dir+"/x", temp, []ID{elsewhere}); !removed || err != nil {
		t.Errorf("back, with another number: removed %v, %v", removed, err)
	}
	wantRemoval("no file", id, nil)
}

// A directory in memory can come back as well, while its file system is there.
func TestADirectoryInMemoryThatIsAway(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount a file system")
	}
	top := place(t)
	mount := func() {
		if err := syscall.Mount("tmpfs", top, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
			t.Skipf("no mount here: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(top, syscall.MNT_DETACH) })
		must(t, os.Mkdir(top+"/a", 0o700))
	}
	mount()
	id := mustWrite(t, top+"/a/x", "one")
	if id.Memory == 0 {
		t.Skip("this kernel does not name a file system in memory")
	}
	must(t, os.Rename(top+"/a", top+"/b"))
	must(t, os.Mkdir(top+"/a", 0o700))
	if removed, err := remove(top+"/a/x", temp, []ID{id}); removed || !errors.Is(err, ErrOtherDirectory) {
		t.Errorf("another directory: removed %v, %v", removed, err)
	}
	must(t, syscall.Unmount(top, 0))
	mount() // as after a boot
	if removed, err := remove(top+"/a/x", temp, []ID{id}); removed || err != nil {
		t.Errorf("another file system: removed %v, %v", removed, err)
	}
}

// Only nothing, or what was written here, makes place for a token; Check says the
// same beforehand, and a file that comes in between is not lost.
func TestWhoseFileIsReplaced(t *testing.T) {
	dir := place(t)
	path := dir + "/x"
	for name, tt := range map[string]struct {
		prepare func() []ID
		want    error
	}{
		"nothing":               {func() []ID { return nil }, nil},
		"nothing, once ours":    {func() []ID { return []ID{{Inode: 1, ModTime: 1}} }, nil},
		"ours":                  {func() []ID { return []ID{mustWrite(t, path, "one")} }, nil},
		"the announced one":     {func() []ID { return []ID{{Inode: 1, ModTime: 1}, mustWrite(t, path, "one")} }, nil},
		"somebody's":            {func() []ID { mustWrite(t, path, "one"); return nil }, ErrForeign},
		"somebody's, empty":     {func() []ID { mustWrite(t, path, ""); return nil }, ErrForeign},
		"somebody's after ours": {func() []ID { mustWrite(t, path, "one"); return []ID{{Inode: 1, ModTime: 1}} }, ErrForeign},
		"ours, written to": {func() []ID {
			id := mustWrite(t, path, "one")
			must(t, os.WriteFile(path, []byte("mine"), 0o600))
			return []ID{id}
		}, ErrChanged},
		"ours, touched": {func() []ID {
			id := mustWrite(t, path, "one")
			must(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)))
			return []ID{id}
		}, ErrChanged},
	} {
		_ = os.Remove(path)
		ours := tt.prepare()
		old, _ := os.ReadFile(path)
		if err := check(path, ours); !errors.Is(err, tt.want) {
			t.Errorf("%s: Check says %v, want %v", name, err, tt.want)
		}
		_, err := write(path, temp, 0o600, []byte("token"), ours, quiet, nil)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if tt.want == nil {
			old = []byte("token")
		}
		wantContent(t, path, string(old))
		wantAlone(t, dir, "x")
	}
	must(t, os.Remove(path))
	_, err := write(path, temp, 0o600, []byte("token"), nil, func(ID) { must(t, os.WriteFile(path, []byte("mine"), 0o600)) }, nil)
	if !errors.Is(err, ErrForeign) {
		t.Errorf("a file that came in between: %v", err)
	}
	wantContent(t, path, "mine")
	wantAlone(t, dir, "x")
}

// A directory that was opened to others after the write is no reason to leave
// the token there.
func TestRemovalFromADirectoryThatIsOpenNow(t *testing.T) {
	dir := place(t)
	id := mustWrite(t, dir+"/x", "one")
	must(t, os.Chmod(dir, 0o777))
	if removed, err := remove(dir+"/x", temp, []ID{id}); !removed || err != nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	wantAlone(t, dir)
}

func TestWhatACrashLeftIsCleared(t *testing.T) {
	dir := place(t)
	must(t, os.WriteFile(dir+"/"+temp, []byte("half a to"), 0o600))
	id := mustWrite(t, dir+"/x", "one")
	wantContent(t, dir+"/x", "one")
	wantAlone(t, dir, "x")
	must(t, os.WriteFile(dir+"/"+temp, []byte("half a to"), 0o600))
	_, err := remove(dir+"/x", temp, []ID{id})
	must(t, err)
	wantAlone(t, dir)
	// A link there is not followed.
	must(t, os.Symlink("victim", dir+"/"+temp))
	mustWrite(t, dir+"/x", "two")
	wantAlone(t, dir, "x")
}

// The old content stays if the new one cannot be written.
func TestAFullDiskKeepsTheOldContent(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount a small file system")
	}
	dir := place(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
		t.Skipf("no mount here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	id := mustWrite(t, dir+"/x", "one")
	if _, err := write(dir+"/x", temp, 0o600, make([]byte, 1<<20), []ID{id}, quiet, nil); err == nil {
		t.Error("a megabyte went into 16 KiB")
	}
	wantContent(t, dir+"/x", "one")
	wantAlone(t, dir, "x")
	if !holds(dir+"/x", id) {
		t.Error("it is another file")
	}
}

// A disk that becomes read-only in the middle leaves a part that is known of.
func TestAPartThatIsLeft(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to mount a small file system")
	}
	dir := place(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
		t.Skipf("no mount here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	readOnly := func(ID) { must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")) }
	if _, err := write(dir+"/x", temp, 0o600, []byte("one"), nil, readOnly, nil); !errors.Is(err, errPart) {
		t.Errorf("%v", err)
	}
	wantAlone(t, dir, temp)
	if removed, err := remove(dir+"/x", temp, nil); removed || !errors.Is(err, syscall.EROFS) {
		t.Errorf("removed %v, %v", removed, err)
	}
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""))
	_, err := remove(dir+"/x", temp, nil)
	must(t, err)
	wantAlone(t, dir)
}
