//go:build linux

package sim

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/store"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTestVolume has /state, which is durable.
func newTestVolume(t *testing.T, seed uint64) *volume {
	t.Helper()
	installDisk()
	v := newVolume(seed, time.Now)
	t.Cleanup(func() { disks.forget(v) })
	must(t, v.write("/state/file", []byte("old content")))
	return v
}

// crashAfter replaces the file, cuts the power after step n of that, and returns
// what is there then. Done reports that WriteFile had returned nil before.
func crashAfter(t *testing.T, n int, seed uint64, lies bool) (content string, steps int, done bool) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVolume(t, seed)
		w := disks.open(v)
		draw := rand.New(rand.NewPCG(seed, 0)).IntN
		if lies {
			w.skipSync = func(path string) bool { return path != "/state" }
		}
		w.after = func(string, string, error) {
			if steps++; steps == n {
				v.crash(draw)
			}
		}
		done = store.WriteFile(w.path("/state/file"), []byte("new content")) == nil
		v.crash(draw)
		b, err := v.read("/state/file")
		if err != nil {
			b = []byte(err.Error())
		}
		content = string(b)
	})
	return content, steps, done
}

func TestAfterACrashTheFileIsTheOldOrTheNew(t *testing.T) {
	seen := map[string]int{}
	_, steps, _ := crashAfter(t, 0, 0, false)
	for n := range steps + 1 {
		for seed := range uint64(40) {
			content, _, done := crashAfter(t, n, seed, false)
			if content != "old content" && content != "new content" || done && content != "new content" {
				t.Errorf("step %d, seed %d: %q, done %v", n, seed, content, done)
			}
			seen[content]++
		}
	}
	if len(seen) != 2 {
		t.Errorf("seen: %v", seen)
	}
}

func TestWithoutSyncTheFileBreaks(t *testing.T) {
	broken := map[string]bool{}
	for seed := range uint64(40) {
		if content, _, _ := crashAfter(t, 0, seed, true); content != "old content" && content != "new content" {
			broken[content] = true
		}
	}
	if len(broken) < 3 {
		t.Errorf("seen: %v", broken)
	}
}

// A daemon that is killed when it has named its key leaves that name to the next one,
// which must not rely on it before it is on the disk.
func TestAnItemDoesNotOutliveItsKey(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			v := newTestVolume(t, seed)
			first, second := disks.open(v), disks.open(v)
			first.after = func(op, path string, _ error) {
				if op == "rename" && path == "/keys/identity.txt" {
					first.kill()
				}
			}
			item, id := store.Item{Origin: "https://accounts.example", RefreshToken: store.NewSecret([]byte("secret"))}, store.NewID()
			if save(first, id, item) == nil {
				t.Error("the first was not killed")
			}
			must(t, save(second, id, item))
			v.crash(func(int) int { return 0 }) // nothing is kept that was not synced
			third := disks.open(v)
			_, err := files(third).Load(t.Context(), id)
			must(t, err)
		})
	}
}

func files(w *view) *store.File {
	return store.NewFile(w.path("/state"), store.NewKey(w.path("/keys"), ""))
}

func save(w *view, id string, item store.Item) error {
	return files(w).Save(context.Background(), id, item)
}

// The same history has the same times, whatever the instance's number.
func TestTimesComeFromTheSeed(t *testing.T) {
	took := func(seed uint64) (d time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			w := disks.open(newTestVolume(t, seed))
			start := time.Now()
			must(t, store.WriteFile(w.path("/state/0123456789abcdef0123456789abcdef.age"), nil))
			d = time.Since(start)
		})
		return d
	}
	if a, b, c := took(1), took(1), took(2); a != b || a == c || a < 2*time.Millisecond {
		t.Errorf("%v, %v, %v", a, b, c)
	}
}

func TestADirectoryIsLockedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVolume(t, 1)
		first, second := disks.open(v), disks.open(v)
		p, err := store.OpenProfiles(first.path("/state"))
		must(t, err)
		if _, err := store.OpenProfiles(second.path("/state")); !errors.Is(err, store.ErrInUse) {
			t.Errorf("the second: %v", err)
		}
		must(t, p.Close())
		_, err = store.OpenProfiles(second.path("/state"))
		must(t, err)
		second.kill()
		_, err = store.OpenProfiles(first.path("/state"))
		must(t, err)
	})
}

func TestAReplacedDirectoryIsSeen(t *testing.T) {
	for name, replace := range map[string]func(*volume, *snapshot) error{
		"copied":   func(v *volume, _ *snapshot) error { return v.replaceDir("/state") },
		"restored": func(v *volume, s *snapshot) error { return v.restore(s, "/state", false) },
		"deleted":  func(v *volume, _ *snapshot) error { return v.delete("/state") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newTestVolume(t, 1)
				w := disks.open(v)
				p, err := store.OpenProfiles(w.path("/state"))
				must(t, err)
				backup, err := v.snapshot("/state")
				must(t, err)
				must(t, p.Dir().WriteFile("file", []byte("new content")))
				must(t, v.restore(backup, "/state", true))
				must(t, p.Dir().Check())
				if b, err := v.read("/state/file"); string(b) != "old content" {
					t.Errorf("after a restore in place: %q, %v", b, err)
				}
				must(t, replace(v, backup))
				var moved *store.MovedError
				if err := p.Dir().Check(); !errors.As(err, &moved) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		set  func(*volume)
		want error
	}{
		{func(v *volume) { v.setFull(true) }, syscall.ENOSPC},
		{func(v *volume) { v.setReadOnly(true) }, syscall.EROFS},
		{func(v *volume) { v.setFailing(1) }, syscall.EIO},
		{func(v *volume) { must(t, v.delete("/state")) }, fs.ErrNotExist},
	} {
		synctest.Test(t, func(t *testing.T) {
			v := newTestVolume(t, 1)
			w := disks.open(v)
			tt.set(v)
			var at *fs.PathError
			var link *os.LinkError
			err := store.WriteFile(w.path("/state/file"), nil)
			if !errors.Is(err, tt.want) || !errors.As(err, &at) && !errors.As(err, &link) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

func TestAHungDiskAndAKill(t *testing.T) {
	for _, onlySync := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			v := newTestVolume(t, 1)
			killed, other := disks.open(v), disks.open(v)
			v.hang(onlySync)
			result := make(map[*view]error)
			var mu sync.Mutex
			for w, name := range map[*view]string{killed: "/state/file", other: "/state/other"} {
				go func() {
					err := store.WriteFile(w.path(name), []byte("new content"))
					mu.Lock()
					defer mu.Unlock()
					result[w] = err
				}()
			}
			time.Sleep(time.Hour)
			killed.kill()
			synctest.Wait()
			if err := result[killed]; len(result) != 1 || !errors.Is(err, syscall.EIO) {
				t.Errorf("%v", result)
			}
			v.release()
			time.Sleep(time.Second)
			synctest.Wait()
			if err, ended := result[other]; !ended || err != nil {
				t.Errorf("%v, %v", ended, err)
			}
			if b, _ := v.read("/state/file"); string(b) != "old content" {
				t.Errorf("the killed one wrote %q", b)
			}
		})
	}
}

// What a killed process has written is there, synced or not.
func TestAKillLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVolume(t, 1)
		w := disks.open(v)
		w.after = func(op, _ string, _ error) {
			if op == "rename" {
				w.kill()
			}
		}
		if err := store.WriteFile(w.path("/state/file"), []byte("new content")); err == nil {
			t.Error("no error")
		}
		if b, _ := v.read("/state/file"); string(b) != "new content" {
			t.Errorf("%q", b)
		}
	})
}

// The names of a crash are a prefix of the changes, and all of what was synced.
func TestNamesThatACrashLeaves(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			v := newTestVolume(t, seed)
			w := disks.open(v)
			p, err := store.OpenProfiles(w.path("/new/state"))
			must(t, err)
			must(t, p.Dir().WriteFile("first", nil))
			must(t, disks.Rename(w.path("/new/state/first"), w.path("/new/state/second")))
			v.crash(rand.New(rand.NewPCG(seed, 0)).IntN)
			if names := v.list("/new/state"); len(names) != 1 {
				t.Errorf("%v", names)
			}
		})
	}
}

func TestModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVolume(t, 1)
		w := disks.open(v)
		key := store.NewKey(w.path("/state"), "")
		f := store.NewFile(w.path("/state"), key)
		item := store.Item{Origin: "https://accounts.example", RefreshToken: store.NewSecret([]byte("secret"))}
		must(t, f.Save(t.Context(), "0123456789abcdef0123456789abcdef", item))
		stamp := f.Stamp("0123456789abcdef0123456789abcdef")
		_, err := f.Load(t.Context(), "0123456789abcdef0123456789abcdef")
		must(t, err)
		must(t, v.chmod("/state/0123456789abcdef0123456789abcdef.age", 0o644))
		if _, err := f.Load(t.Context(), "0123456789abcdef0123456789abcdef"); err == nil {
			t.Error("a secret that others can read was read")
		}
		if f.Stamp("0123456789abcdef0123456789abcdef") == stamp {
			t.Error("the stamp is the same")
		}
	})
}

// A kill between the wait for the disk and what the operation does to it.
func TestAKilledOperationChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVolume(t, 1)
		w := disks.open(v)
		w.before = func(string, string) error {
			w.kill()
			return nil
		}
		if err := disks.Remove(w.path("/state/file")); !errors.Is(err, syscall.EIO) {
			t.Errorf("%v", err)
		}
		if _, err := v.read("/state/file"); err != nil {
			t.Error(err)
		}
	})
}

// A sync of another directory leaves the order of what is still pending.
func TestACrashKeepsTheFirstNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVolume(t, 1)
		w := disks.open(v)
		must(t, v.write("/other/file", nil))
		for _, name := range []string{"a", "b", "c"} {
			_, err := disks.OpenFile(w.path("/state/"+name), os.O_CREATE|os.O_WRONLY, 0o600)
			must(t, err)
		}
		must(t, store.WriteFile(w.path("/other/file"), nil))
		v.crash(func(n int) int { return n / 2 })
		if names := v.list("/state"); !slices.Equal(names, []string{"a", "b", "file"}) {
			t.Errorf("%v", names)
		}
	})
}
