package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/store"
)

// The order is what makes a write durable: the content is on the disk before
// the name points to it, and the name before the caller hears of it.
func TestTheStepsOfADurableWrite(t *testing.T) {
	steps := store.WatchDisk(t)
	do(t, store.WriteFile(filepath.Join(t.TempDir(), "file"), []byte("x")))
	if got := strings.Join(*steps, ", "); got != "write, sync, close, rename, directory sync" {
		t.Error(got)
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
