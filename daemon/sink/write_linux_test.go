package sink

import (
	"bytes"
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

func mustWrite(t *testing.T, path, text string) ID {
	t.Helper()
	id, err := Write(path, 0o600, []byte(text), quiet)
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
	id, err := Write(path, 0o600, []byte("two"), func(id ID) {
		announced = id
		if !Holds(path, old) || Holds(path, id) {
			t.Error("the new file has its place already")
		}
	})
	if err != nil || id != announced || !Holds(path, id) {
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
			return dir + "/" + strings.Repeat("x", 250), "file name too long"
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := place(t)
			path, want := prepare(t, dir)
			// Our own directory is known through a link too.
			must(t, os.Symlink(dir+"/own", dir+"/alias"))
			_, err := Write(path, 0o600, []byte("secret"), quiet, dir+"/missing", dir+"/alias")
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
	_, err = d.replace("x", 0o600, []byte("secret"), quiet)
	must(t, err)
	wantContent(t, top+"/b/x", "secret")
	wantAlone(t, top+"/evil")
}

func TestModeWhateverTheUmask(t *testing.T) {
	dir := place(t)
	for _, umask := range []int{0, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0o400, 0o600, 0o640, 0o644} {
			old := syscall.Umask(umask)
			_, err := Write(dir+"/x", mode, []byte("t"), quiet)
			syscall.Umask(old)
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
	_, err := Write(path, 0o600, content(0), quiet)
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
		_, err := Write(path, 0o600, content(i), quiet)
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
	if !Holds(path, id) {
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
		if Holds(path, id) {
			t.Errorf("%s is taken for ours", name)
		}
		// What is ours by its inode is told of: it may hold a token still.
		want := map[string]error{"a later content": ErrChanged, "a later time": ErrChanged}[name]
		removed, err := Remove(path, id)
		reused := name == "somebody else's file" && err == ErrChanged // the kernel may give a new file the old inode
		if removed || err != want && !reused {
			t.Errorf("%s: removed %v, %v", name, removed, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_ = os.RemoveAll(path)
	id = mustWrite(t, path, "one")
	if removed, err := Remove(path, id); !removed || err != nil {
		t.Errorf("ours: removed %v, %v", removed, err)
	}
	if removed, err := Remove(path, id); removed || err != nil {
		t.Errorf("again: removed %v, %v", removed, err)
	}
	must(t, os.RemoveAll(dir))
	if removed, err := Remove(path, id); removed || err != nil {
		t.Errorf("without the directory: removed %v, %v", removed, err)
	}
}

// A directory that was opened to others after the write is no reason to leave
// the token there.
func TestRemovalFromADirectoryThatIsOpenNow(t *testing.T) {
	dir := place(t)
	id := mustWrite(t, dir+"/x", "one")
	must(t, os.Chmod(dir, 0o777))
	if removed, err := Remove(dir+"/x", id); !removed || err != nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	wantAlone(t, dir)
}

func TestWhatACrashLeftIsCleared(t *testing.T) {
	dir := place(t)
	must(t, os.WriteFile(dir+"/"+tempName("x"), []byte("half a to"), 0o600))
	id := mustWrite(t, dir+"/x", "one")
	wantContent(t, dir+"/x", "one")
	wantAlone(t, dir, "x")
	must(t, os.WriteFile(dir+"/"+tempName("x"), []byte("half a to"), 0o600))
	_, err := Remove(dir+"/x", id)
	must(t, err)
	wantAlone(t, dir)
	// A link there is not followed.
	must(t, os.Symlink("victim", dir+"/"+tempName("x")))
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
	if _, err := Write(dir+"/x", 0o600, make([]byte, 1<<20), quiet); err == nil {
		t.Error("a megabyte went into 16 KiB")
	}
	wantContent(t, dir+"/x", "one")
	wantAlone(t, dir, "x")
	if !Holds(dir+"/x", id) {
		t.Error("it is another file")
	}
}
