package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/store"
)

// The order is what makes a write durable: the content is on the disk before
// the name points to it, and the name before the caller hears of it.
func TestTheStepsOfADurableWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	calls := store.WatchDisk(t)
	do(t, store.WriteFile(path, []byte("x")))
	want := []string{"create: temp", "write: temp", "sync: temp", "close: temp", "rename: " + path, "directory sync: " + dir}
	if !slices.Equal(*calls, want) {
		t.Errorf("%q, want %q", *calls, want)
	}
}

// To sync a file is the system's own call, and nothing of ours is in between.
func TestTheSystemsFilesAreItsOwn(t *testing.T) {
	f, err := store.TheSystemsFile(t.TempDir())
	do(t, err)
	if _, is := f.(*os.File); !is {
		t.Errorf("%T", f)
	}
	do(t, f.Close())
}

// What has another name, or none, has it on the disk when the caller hears of
// it: after a power cut a token that was deleted does not come back.
func TestEveryChangeOfANameIsOnTheDisk(t *testing.T) {
	h := newHome(t)
	f, id := h.open(), store.NewID()
	path := filepath.Join(h.items, id+".age")
	for _, tt := range []struct {
		name string
		act  func() error
	}{
		{"a first save makes a key", func() error { return f.Save(t.Context(), id, item("x")) }},
		{"a save", func() error { return f.Save(t.Context(), id, item("y")) }},
		{"a save puts aside what is damaged", func() error {
			do(t, os.WriteFile(path, []byte("damage"), 0o600))
			return f.Save(t.Context(), id, item("z"))
		}},
		{"a deletion", func() error { return f.Delete(t.Context(), id) }},
		{"a passphrase takes the bare key away", func() error { return f.Key().Protect([]byte("correct horse")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := store.WatchDisk(t)
			do(t, tt.act())
			changed := 0
			for i, call := range *calls {
				do, name, _ := strings.Cut(call, ": ")
				if do != "rename" && do != "remove" {
					continue
				}
				changed++
				if !slices.Contains((*calls)[i:], "directory sync: "+filepath.Dir(name)) {
					t.Errorf("%s is not followed by a sync of its directory", call)
				}
			}
			if changed == 0 {
				t.Errorf("no name was changed: %q", *calls)
			}
		})
	}
}

// A file that is opened past the Disk is one that no test can take away.
func TestFilesAreReachedByTheDiskAlone(t *testing.T) {
	past := regexp.MustCompile(`\bos\.(Open|Create|Rename|Remove|Mkdir|Chmod|Chown|Stat|Lstat|Link|Symlink|Truncate|ReadFile|ReadDir|WriteFile)|filepath\.(Glob|Walk)|syscall\.(Open|Flock|Fsync|Rename|Unlink)\(`)
	files, err := filepath.Glob("*.go")
	do(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "disk.go" || strings.HasPrefix(name, "keyring") || strings.HasPrefix(name, "bus") {
			continue // the bus of a keyring is no file of ours
		}
		b, err := os.ReadFile(name)
		do(t, err)
		for _, call := range past.FindAllString(string(b), -1) {
			t.Errorf("%s calls %s", name, call)
		}
	}
}

// A disk that fails at any step of a save leaves the old content or the new,
// nothing beside it, and the next save works.
func TestADiskThatFailsAtAnyStep(t *testing.T) {
	for _, step := range []string{"write", "sync", "close", "rename", "directory sync"} {
		for _, cause := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
			t.Run(step+" "+cause.Error(), func(t *testing.T) {
				dir, id := t.TempDir(), store.NewID()
				h := home{items: dir + "/items", keys: dir + "/keys"}
				do(t, os.Mkdir(h.items, 0o700))
				f := h.open()
				do(t, f.Save(t.Context(), id, item("old")))
				t.Run("failing", func(t *testing.T) {
					store.FailDisk(t, step, cause)
					if err := f.Save(t.Context(), id, item("new")); !errors.Is(err, cause) {
						t.Errorf("save on a broken disk: %v", err)
					}
				})
				want := "old"
				if step == "directory sync" {
					want = "new" // renamed already; only a power cut can undo it
				}
				got, err := f.Load(t.Context(), id)
				if err != nil || string(got.RefreshToken.Reveal()) != want {
					t.Errorf("%s, %v; want %s", got.RefreshToken.Reveal(), err, want)
				}
				files, err := os.ReadDir(h.items)
				do(t, err)
				if len(files) != 1 || files[0].Name() != filepath.Base(id+".age") {
					t.Errorf("left behind: %v", files)
				}
				do(t, f.Save(t.Context(), id, item("new")))
			})
		}
	}
}
